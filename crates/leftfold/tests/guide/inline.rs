//! A projection and a table that change in the transaction of an append: the chapter on projections.

use leftfold::{
    HandlerError, PostgresView, Projection, Recorded, Repository, SqlTransaction, Store,
    sqlx::{self, PgPool, Postgres},
};
use leftfold_postgres::{PostgresStore, testing::Server};

use crate::account::{AccountEvent, BankAccount};

struct Balances;

impl Projection for Balances {
    type Event = AccountEvent;
    type View = PostgresView;
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Postgres>) -> Result<(), HandlerError> {
        let table = tx.sql("create table {balances} (account text primary key, cents bigint)");
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Postgres>,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        let cents = match event.event {
            AccountEvent::Deposited { cents } => i64::try_from(cents)?,
            AccountEvent::Withdrawn { cents } => -i64::try_from(cents)?,
        };
        let add = tx.sql(
            "insert into {balances} as b values ($1, $2)
             on conflict (account) do update set cents = b.cents + excluded.cents",
        );
        let add = sqlx::query(add).bind(event.aggregate_id()).bind(cents);
        add.execute(&mut **tx).await?;
        Ok(())
    }
}

#[tokio::test]
async fn an_inline_projection_has_an_event_when_its_command_is_done()
-> Result<(), Box<dyn std::error::Error>> {
    let server = Server::start();
    let address = server.database();
    let store = Store::postgres(&address).await?;
    let pool = PgPool::connect(&address).await?;
    let view = PostgresView::open(pool.clone()).await?;

    let (store, balances) = store.project(Balances, view).inline().await?;

    let accounts = store.repository::<BankAccount>();
    accounts.execute("7f3", |a| a.deposit(100)).await?;
    let cents: i64 = sqlx::query_scalar("select cents from balances where account = '7f3'")
        .fetch_one(&pool)
        .await?;
    assert_eq!(cents, 100);
    balances.stop().await?;
    Ok(())
}

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
