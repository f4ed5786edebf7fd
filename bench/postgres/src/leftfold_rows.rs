//! Our side of each row.
//!
//! **Owns:** driving Leftfold through its public interface. **Does not know:** peers.
//! **Invariants:** every append is awaited until it is durable.

use std::{sync::Arc, time::Instant};

use futures_util::TryStreamExt;
use leftfold::{
    Repository, Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision, Scope, StreamName},
};
use leftfold_postgres::PostgresStore;
use leftfold_store::{EventStore, Subscription};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    bank::{Account, account},
    rate,
};

/// 110 bytes, as in the rows beside it.
pub(crate) const DATA: &str = concat!(
    r#"{"account":"7f3a9c","amount":1250,"currency":"EUR","#,
    r#""note":"a deposit of the usual kind, made at the counter"}"#
);

pub(crate) async fn open(address: &str) -> anyhow::Result<Arc<PostgresStore>> {
    Ok(Arc::new(PostgresStore::open(address).await?))
}

/// Appends of one event, each client to a stream of its own, at the revision it knows.
pub(crate) async fn appends(
    store: &Arc<PostgresStore>,
    run: u64,
    clients: u64,
    seconds: f64,
) -> anyhow::Result<f64> {
    let kind = EventType::new("MoneyDeposited")?;
    let store = Arc::clone(store);
    rate(clients, seconds, move |client, count| {
        let (store, kind) = (Arc::clone(&store), kind.clone());
        async move {
            let stream = StreamName::new(format!("r{run}-{client}"))?;
            let expected = match count.checked_sub(1) {
                None => ExpectedRevision::NoStream,
                Some(last) => ExpectedRevision::Exact(Revision::new(last)),
            };
            let append = Append::to(stream, expected, vec![NewEvent::json(kind, DATA)])?;
            store.append(append).await?;
            Ok(())
        }
    })
    .await
}

/// Subscriptions to streams that get no events, each caught up. They end when the set is dropped.
pub(crate) async fn subscribe(
    store: &Arc<PostgresStore>,
    subscriptions: u64,
) -> anyhow::Result<JoinSet<()>> {
    let mut idle = JoinSet::new();
    let (caught_up, mut all) = mpsc::channel(1);
    for nth in 0..subscriptions {
        let mut deliveries = store.subscribe(Subscription {
            scope: Scope::Stream(StreamName::new(format!("idle-{nth}"))?),
            ..Subscription::default()
        });
        let caught_up = caught_up.clone();
        idle.spawn(async move {
            let mut told = Some(caught_up);
            while let Ok(Some(delivery)) = deliveries.try_next().await {
                if delivery.caught_up
                    && let Some(told) = told.take()
                {
                    let _ = told.send(()).await;
                }
            }
        });
    }
    drop(caught_up);
    // The log must have an event, else a subscription has nothing to catch up with.
    let event = NewEvent::json(EventType::new("Begun")?, "{}");
    let first = Append::to(
        StreamName::new("begun")?,
        ExpectedRevision::Any,
        vec![event],
    )?;
    store.append(first).await?;
    while all.recv().await.is_some() {}
    Ok(idle)
}

pub(crate) async fn bank(address: &str) -> anyhow::Result<Repository<Account>> {
    let store = Store::new(PostgresStore::open(address).await?);
    Ok(store.repository::<Account>())
}

/// Deposits: load, decide, append.
pub(crate) async fn deposits(
    accounts: &Repository<Account>,
    callers: u64,
    seconds: f64,
) -> anyhow::Result<f64> {
    let accounts = accounts.clone();
    rate(callers, seconds, move |caller, count| {
        let accounts = accounts.clone();
        async move {
            accounts
                .execute(&account(caller, count), |account| account.deposit(1))
                .await?;
            Ok(())
        }
    })
    .await
}

/// Fills a store with events of 1,000 streams.
pub(crate) async fn fill(store: &PostgresStore, events: u64) -> anyhow::Result<()> {
    let kind = EventType::new("MoneyDeposited")?;
    let each = 1_000.min(events);
    for round in 0..events / each {
        let stream = StreamName::new(format!("account-{}", round % 1_000))?;
        let events = (0..each)
            .map(|_| NewEvent::json(kind.clone(), DATA))
            .collect();
        store
            .append(Append::to(stream, ExpectedRevision::Any, events)?)
            .await?;
    }
    Ok(())
}

/// Reads everything; events per second.
pub(crate) async fn read_all(store: &PostgresStore, events: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut batches = store.read(Read::all());
    let mut count = 0;
    while let Some(batch) = batches.try_next().await? {
        count += batch.events.len() as u64;
    }
    anyhow::ensure!(count == events, "{count} of {events} events");
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
