//! A reading model in SQLite: who has how much, for any question that SQL can ask.
//!
//! Each run deposits, waits until the table has it, and prints the richest accounts.
//!
//! In memory: `cargo run -p leftfold --features sqlx-sqlite --example read_model_sqlite`. In a directory: add `-- data`.

use std::{env, error::Error, path::Path, time::Duration};

use leftfold::{
    Aggregate, Event, HandlerError, Projection, Recorded, SqlTransaction, SqliteView, Store,
    sqlx::{
        self, Sqlite,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("DepositMade")]
    DepositMade { cents: u32 },
}
use AccountEvent::DepositMade;

#[derive(Default)]
struct Account;

impl Aggregate for Account {
    const CATEGORY: &'static str = "account";
    type Event = AccountEvent;

    fn apply(&mut self, _: &AccountEvent) {}
}

struct Balances;

impl Projection for Balances {
    type Event = AccountEvent;
    type View = SqliteView;
    const NAME: &'static str = "balances";
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Sqlite>) -> Result<(), HandlerError> {
        let table = tx.sql("create table {balances} (account text primary key, cents integer)");
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Sqlite>,
        deposit: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        let DepositMade { cents } = deposit.event;
        let add = tx.sql(
            "insert into {balances} as b values ($1, $2)
             on conflict (account) do update set cents = b.cents + excluded.cents",
        );
        let add = sqlx::query(add).bind(deposit.aggregate_id()).bind(cents);
        add.execute(&mut **tx).await?;
        Ok(())
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1);
    let (store, file) = match &directory {
        Some(directory) => {
            let store = Store::open(directory).await?;
            (store, Path::new(directory).join("views.sqlite"))
        }
        None => (Store::memory(), Path::new(":memory:").to_owned()),
    };
    let options = SqliteConnectOptions::new().filename(file);
    let pool = SqlitePoolOptions::new().max_connections(1);
    let pool = pool.connect_with(options.create_if_missing(true)).await?;

    let view = SqliteView::open(pool.clone()).await?;
    let balances = store.project(Balances, view).spawn();
    let accounts = store.repository::<Account>();
    let mut position = None;
    for (id, cents) in [("ann", 300), ("bob", 200), ("cid", 500)] {
        let committed = accounts.execute(id, |_| DepositMade { cents }).await?;
        position = committed.position;
    }
    let within = Duration::from_secs(10);
    balances
        .wait_for(position.unwrap_or_default(), within)
        .await?;

    let richest = "select account, cents from balances order by cents desc limit 2";
    for (account, cents) in sqlx::query_as::<_, (String, i64)>(richest)
        .fetch_all(&pool)
        .await?
    {
        println!("{account} has {cents} cents");
    }
    balances.stop().await?;
    store.close().await?;
    Ok(())
}
