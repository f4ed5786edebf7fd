//! A store over PostgreSQL, beside listeners, and with a view that its appends write.
//!
//! **Owns:** the rows over PostgreSQL. **Does not know:** the other rows.
//! **Invariants:** both sides of a row use one server, in databases of their own.

use std::time::{Duration, Instant};

use leftfold::{
    HandlerError, Listener, ListenerHandle, PostgresView, Projection, Recorded, SqlTransaction,
    Store,
    model::Position,
    sqlx::{self, PgPool, Postgres},
};
use leftfold_postgres::testing::Server;

use crate::account::{Account, AccountEvent};

const NAMES: [&str; 20] = [
    "l0", "l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8", "l9", "l10", "l11", "l12", "l13", "l14",
    "l15", "l16", "l17", "l18", "l19",
];

/// The nth of the listeners.
struct Nth<const N: usize>;

impl<const N: usize> Listener for Nth<N> {
    type Event = AccountEvent;
    const NAME: &'static str = NAMES[N];

    async fn on(&self, _: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        Ok(())
    }
}

macro_rules! follow {
    ($store:expr, $($nth:literal)*) => {
        vec![$($store.follow(Nth::<$nth>).spawn()),*]
    };
}

fn twenty(store: &Store) -> Vec<ListenerHandle> {
    follow!(store, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19)
}

/// Appends by one writer for some time; the position of the last event, and events per second.
async fn write(store: &Store, time: Duration) -> anyhow::Result<(Position, f64)> {
    let accounts = store.repository::<Account>();
    let begun = Instant::now();
    let (mut count, mut last) = (0_u64, Position::START);
    while begun.elapsed() < time {
        let deposit = |_: &Account| AccountEvent::Deposited { cents: 1 };
        let done = accounts.execute(&(count % 10).to_string(), deposit).await?;
        last = done.position.unwrap_or_default();
        count += 1;
    }
    Ok((last, count as f64 / begun.elapsed().as_secs_f64()))
}

/// One writer beside twenty listeners, and one beside none; events per second.
pub(crate) async fn listeners(server: &Server, time: Duration) -> anyhow::Result<(f64, f64)> {
    let quiet = Store::postgres(&server.database()).await?;
    let (_, alone) = write(&quiet, time).await?;
    quiet.close().await?;
    let store = Store::postgres(&server.database()).await?;
    let listeners = twenty(&store);
    for listener in &listeners {
        listener.started().await?;
    }
    let (last, beside) = write(&store, time).await?;
    for listener in listeners {
        listener.wait_for(last).await?;
        listener.stop().await?;
    }
    store.close().await?;
    Ok((beside, alone))
}

/// What is in each account.
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
        let AccountEvent::Deposited { cents } = event.event;
        let add = tx.sql(
            "insert into {balances} as b values ($1, $2) \
             on conflict (account) do update set cents = b.cents + excluded.cents",
        );
        let add = sqlx::query(add).bind(event.aggregate_id()).bind(cents);
        add.execute(&mut **tx).await?;
        Ok(())
    }
}

/// One writer whose appends write a view, and one that waits for the projection's task; events per second.
pub(crate) async fn inline(server: &Server, time: Duration) -> anyhow::Result<(f64, f64)> {
    let address = server.database();
    let store = Store::postgres(&address).await?;
    let view = PostgresView::open(PgPool::connect(&address).await?).await?;
    let (inline, balances) = store.project(Balances, view).inline().await?;
    let (_, within) = write(&inline, time).await?;
    balances.stop().await?;
    store.close().await?;

    let address = server.database();
    let store = Store::postgres(&address).await?;
    let view = PostgresView::open(PgPool::connect(&address).await?).await?;
    let balances = store.project(Balances, view).spawn();
    balances.ready().await?;
    let accounts = store.repository::<Account>();
    let (begun, mut count) = (Instant::now(), 0_u64);
    while begun.elapsed() < time {
        let deposit = |_: &Account| AccountEvent::Deposited { cents: 1 };
        let done = accounts.execute(&(count % 10).to_string(), deposit).await?;
        let position = done.position.unwrap_or_default();
        balances.wait_for(position, Duration::from_secs(60)).await?;
        count += 1;
    }
    let waited = count as f64 / begun.elapsed().as_secs_f64();
    balances.stop().await?;
    store.close().await?;
    Ok((within, waited))
}
