//! Projections beside inserts by hand.
//!
//! **Owns:** a projection into SQLite and one in memory, and batched inserts. **Does not know:** listeners.
//! **Invariants:** both sides write a row for each event into a table of one shape, in transactions of 512 events, with the
//! checkpoint in the transaction.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use leftfold::{
    HandlerError, LiveProjection, Projection, Recorded, SqlTransaction, SqliteView, Store,
    model::Position,
    sqlx::{
        self, Sqlite, SqlitePool,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
    },
};

use crate::account::{Account, AccountEvent};

const LONG: Duration = Duration::from_secs(3_600);

async fn pool(file: &Path) -> anyhow::Result<SqlitePool> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(2);
    Ok(pool.connect_with(options).await?)
}

struct Deposits;

impl Projection for Deposits {
    type Event = AccountEvent;
    type View = SqliteView;
    const NAME: &'static str = "deposits";
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Sqlite>) -> Result<(), HandlerError> {
        let table = tx.sql(
            "create table {deposits} (position integer primary key, account text, cents integer)",
        );
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Sqlite>,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        let AccountEvent::Deposited { cents } = event.event;
        let insert = tx.sql("insert into {deposits} values ($1, $2, $3)");
        let insert = sqlx::query(insert)
            .bind(i64::try_from(event.position.get())?)
            .bind(event.aggregate_id())
            .bind(cents);
        insert.execute(&mut **tx).await?;
        Ok(())
    }
}

/// Projects the whole log into a new database; events per second.
pub(crate) async fn projection(store: &Store, file: &Path) -> anyhow::Result<f64> {
    let head = store.event_store().head().await?;
    let view = SqliteView::open(pool(file).await?).await?;
    let begun = Instant::now();
    let projection = store.project(Deposits, view).spawn();
    projection.wait_for(head, LONG).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    projection.stop().await?;
    Ok(head.get() as f64 / elapsed)
}

/// Does by hand what the projection does; events per second.
pub(crate) async fn inserts(store: &Store, file: &Path) -> anyhow::Result<f64> {
    let head = store.event_store().head().await?;
    let pool = pool(file).await?;
    for table in [
        "create table deposits (position integer primary key, account text, cents integer)",
        "create table checkpoint (position integer)",
        "insert into checkpoint values (0)",
    ] {
        sqlx::query(table).execute(&pool).await?;
    }
    let begun = Instant::now();
    let subscription = store.events::<AccountEvent>().subscription()?;
    let mut deliveries = store.event_store().subscribe(subscription);
    let mut reached = Position::START;
    while reached < head {
        let Some(delivery) = deliveries.next().await else {
            anyhow::bail!("store is closed");
        };
        let delivery = delivery?;
        for batch in delivery.events.chunks(512) {
            let mut transaction = pool.begin().await?;
            for event in batch {
                for value in Recorded::<AccountEvent>::of(event)? {
                    let AccountEvent::Deposited { cents } = value.event;
                    sqlx::query("insert into deposits values ($1, $2, $3)")
                        .bind(i64::try_from(value.position.get())?)
                        .bind(value.aggregate_id())
                        .bind(cents)
                        .execute(&mut *transaction)
                        .await?;
                }
            }
            let last = batch.last().map_or(0, |event| event.position.get());
            sqlx::query("update checkpoint set position = $1")
                .bind(i64::try_from(last)?)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        reached = delivery.through;
    }
    Ok(head.get() as f64 / begun.elapsed().as_secs_f64())
}

/// Waits for each of some events to be in the view; the medians of that and of the append alone, in milliseconds.
pub(crate) async fn append_to_seen(file: &Path) -> anyhow::Result<(f64, f64)> {
    let directory = tempfile::tempdir()?;
    let store = Store::open(directory.path()).await?;
    let view = SqliteView::open(pool(file).await?).await?;
    let projection = store.project(Deposits, view).spawn();
    projection.ready().await?;
    let accounts = store.repository::<Account>();
    let (mut seen, mut appended) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        let begun = Instant::now();
        let done = accounts.execute("1", |_| AccountEvent::Deposited { cents: 1 });
        let position = done.await?.position.unwrap_or_default();
        appended.push(begun.elapsed().as_secs_f64() * 1_000.0);
        projection.wait_for(position, LONG).await?;
        seen.push(begun.elapsed().as_secs_f64() * 1_000.0);
    }
    projection.stop().await?;
    store.close().await?;
    Ok((crate::median(&seen), crate::median(&appended)))
}

#[derive(Default)]
struct Total {
    cents: i64,
}

impl LiveProjection for Total {
    type Event = AccountEvent;

    fn project(&mut self, event: &Recorded<AccountEvent>) {
        let AccountEvent::Deposited { cents } = event.event;
        self.cents += cents;
    }
}

/// Folds the whole log in memory; events per second.
pub(crate) async fn live(store: &Store) -> anyhow::Result<f64> {
    let head = store.event_store().head().await?;
    let begun = Instant::now();
    let total = store.live::<Total>();
    total.wait_for(head, LONG).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    anyhow::ensure!(total.read(|total| total.cents) > 0);
    Ok(head.get() as f64 / elapsed)
}

/// Executes commands by one caller on a store in memory, each of which waits for the view; commands per second.
pub(crate) async fn commands(commands: u64, accounts: u64) -> anyhow::Result<f64> {
    let store = Store::memory();
    let total = store.live::<Total>();
    let repository = store.repository::<Account>().with_state_cache(1_000);
    let begun = Instant::now();
    for command in 0..commands {
        let account = (command % accounts).to_string();
        let deposit = |_: &Account| AccountEvent::Deposited { cents: 1 };
        let done = repository.execute(&account, deposit).await?;
        let position = done.position.unwrap_or_default();
        total.wait_for(position, LONG).await?;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    anyhow::ensure!(total.read(|total| total.cents.cast_unsigned()) == commands);
    Ok(commands as f64 / elapsed)
}
