//! A table that changes in the transaction of an append: the chapter on projections.

use leftfold::{Repository, Store};
use leftfold_postgres::{PostgresStore, testing::Server};

use crate::account::BankAccount;

async fn deposit(
    postgres: &PostgresStore,
    accounts: &Repository<BankAccount>,
    account: &str,
    cents: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let prepared = accounts.prepare(account, |a| a.deposit(cents)).await?;
    let Some(append) = prepared else {
        return Ok(());
    };
    let mut connection = postgres.connection().await?;
    let transaction = connection.transaction().await?;
    let add = "insert into balances as b values ($1, $2)
               on conflict (account) do update set cents = b.cents + excluded.cents";
    let cents = i64::try_from(cents)?;
    transaction.execute(add, &[&account, &cents]).await?;
    postgres.append_in(&transaction, append).await?; // last: it holds up all other appends
    transaction.commit().await?;
    Ok(())
}

#[tokio::test]
async fn a_table_and_an_append_change_together_or_not_at_all()
-> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start();
    let postgres = PostgresStore::open(&server.database()).await?;
    let accounts = Store::new(postgres.clone()).repository::<BankAccount>();
    let connection = postgres.connection().await?;
    let table = "create table balances (account text primary key, cents bigint not null)";
    connection.batch_execute(table).await?;
    let cents = async || -> Result<i64, Box<dyn std::error::Error>> {
        let row = connection.query_one("select cents from balances", &[]);
        Ok(row.await?.get(0))
    };

    deposit(&postgres, &accounts, "7f3", 100).await?;
    deposit(&postgres, &accounts, "7f3", 20).await?;
    assert_eq!(cents().await?, 120);
    assert_eq!(accounts.load("7f3").await?.state().balance, 120);

    // Decided on a state that another command changed meanwhile: neither is kept.
    let stale = accounts.prepare("7f3", |a| a.withdraw(120)).await?;
    deposit(&postgres, &accounts, "7f3", 5).await?;
    let mut other = postgres.connection().await?;
    let transaction = other.transaction().await?;
    let empty = "update balances set cents = 0";
    transaction.execute(empty, &[]).await?;
    let append = stale.ok_or("nothing to withdraw")?;
    assert!(postgres.append_in(&transaction, append).await.is_err());
    drop(transaction);
    assert_eq!(cents().await?, 125);
    assert_eq!(accounts.load("7f3").await?.state().balance, 125);
    Ok(())
}
