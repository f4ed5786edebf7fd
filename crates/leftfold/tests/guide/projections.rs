//! A projection of all accounts into SQLite, and its second version: the chapter on projections.

use std::time::Duration;

use leftfold::{
    HandlerError, Projection, Recorded, SqlTransaction, SqliteView, Store,
    sqlx::{self, Sqlite},
    testing::GivenProjection,
};

use crate::account::{AccountEvent, BankAccount};

struct Balances;

impl Projection for Balances {
    type Event = AccountEvent;
    type View = SqliteView;
    const NAME: &'static str = "balances"; // the checkpoint is kept under it
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Sqlite>) -> Result<(), HandlerError> {
        let table = tx.sql("create table {balances} (account text primary key, cents integer)");
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Sqlite>,
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

/// The second version also counts the deposits.
struct DepositCounts;

impl Projection for DepositCounts {
    type Event = AccountEvent;
    type View = SqliteView;
    const NAME: &'static str = "balances";
    const VERSION: u32 = 2;

    async fn set_up(&self, tx: &mut SqlTransaction<Sqlite>) -> Result<(), HandlerError> {
        let table = tx.sql("create table {balances} (account text primary key, deposits integer)");
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Sqlite>,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        if let AccountEvent::Deposited { .. } = event.event {
            let add = tx.sql(
                "insert into {balances} as b values ($1, 1)
                 on conflict (account) do update set deposits = b.deposits + 1",
            );
            let add = sqlx::query(add).bind(event.aggregate_id());
            add.execute(&mut **tx).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn balances_are_kept_in_tables_and_a_second_version_takes_over()
-> Result<(), Box<dyn std::error::Error>> {
    let store = Store::memory();
    let accounts = store.repository::<BankAccount>();
    let pool = sqlx::sqlite::SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;

    let view = SqliteView::open(pool.clone()).await?;
    let balances = store.project(Balances, view).spawn();

    let done = accounts.execute("7f3", |a| a.deposit(100)).await?;
    let position = done.position.unwrap_or_default();
    balances.wait_for(position, Duration::from_secs(2)).await?;
    let cents: i64 = sqlx::query_scalar("select cents from balances where account = '7f3'")
        .fetch_one(&pool)
        .await?;
    assert_eq!(cents, 100);
    balances.stop().await?;

    let view = SqliteView::open(pool.clone()).await?;
    let counts = store.project(DepositCounts, view).on_catch_up(|progress| {
        println!("{} of {}", progress.position, progress.head);
    });
    let counts = counts.spawn();
    counts.ready().await?;
    counts.remove_superseded().await?;
    let deposits: i64 = sqlx::query_scalar("select deposits from balances where account = '7f3'")
        .fetch_one(&pool)
        .await?;
    assert_eq!(deposits, 1);
    Ok(())
}

#[tokio::test]
async fn balances_of_an_account_are_added_up() -> Result<(), Box<dyn std::error::Error>> {
    let pool = sqlx::sqlite::SqlitePoolOptions::new()
        .max_connections(1)
        .connect("sqlite::memory:")
        .await?;
    let view = SqliteView::open(pool.clone()).await?;
    GivenProjection::new(Balances)
        .and("account-7f3", AccountEvent::Deposited { cents: 100 })
        .and("account-7f3", AccountEvent::Withdrawn { cents: 30 })
        .project_into(&view)
        .await;
    let cents: i64 = sqlx::query_scalar("select cents from balances")
        .fetch_one(&pool)
        .await?;
    assert_eq!(cents, 70);
    Ok(())
}
