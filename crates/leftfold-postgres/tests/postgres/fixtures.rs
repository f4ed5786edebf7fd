//! Fixtures of the tests.
//!
//! **Owns:** appends, waiting for a condition, and subscribing up to a position. **Does not know:** servers.

use std::{future::Future, time::Duration};

use futures_util::StreamExt;
use leftfold_model::{
    Append, Appended, EventType, ExpectedRevision, NewEvent, Position, Read, StreamName,
};
use leftfold_postgres::PostgresStore;
use leftfold_store::{AppendError, EventStore, ReadError, Subscription};

/// How long something that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn event(kind: &str) -> NewEvent {
    NewEvent::json(EventType::new(kind).unwrap(), "{}")
}

pub(crate) fn to(stream: &str, expected: ExpectedRevision, kind: &str) -> Append {
    Append::to(self::stream(stream), expected, vec![event(kind)]).unwrap()
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// Waits until `holds`, which something else brings about.
pub(crate) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("it does not come about");
}

/// Repeats an append until its outcome is known.
pub(crate) async fn surely(store: &PostgresStore, append: &Append) -> Appended {
    let known = async {
        loop {
            match store.append(append.clone()).await {
                Ok(appended) => return appended,
                Err(AppendError::Conflict(conflict)) => panic!("{conflict}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, known)
        .await
        .expect("the outcome stays unknown")
}

/// The positions that a subscription to everything delivers, up to `last`.
pub(crate) async fn followed(store: &PostgresStore, last: u64) -> Vec<u64> {
    followed_all(store, Subscription::default(), Position::new(last)).await
}

/// The positions that a subscription delivers, up to `last`.
pub(crate) async fn followed_all(
    store: &PostgresStore,
    subscription: Subscription,
    last: Position,
) -> Vec<u64> {
    let mut positions = Vec::new();
    let mut deliveries = store.subscribe(subscription);
    let follow = async {
        while let Some(delivery) = deliveries.next().await {
            let delivery = delivery.unwrap();
            positions.extend(delivery.events.iter().map(|event| event.position.get()));
            if delivery.through >= last {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, follow)
        .await
        .expect("the subscription does not get there");
    positions
}

/// The revisions that a read of a stream gives.
pub(crate) async fn revisions(store: &PostgresStore, name: &str) -> Vec<u64> {
    try_revisions(store, name).await.unwrap()
}

/// The revisions that a read of a stream returns, or the error that ends it.
pub(crate) async fn try_revisions(
    store: &PostgresStore,
    name: &str,
) -> Result<Vec<u64>, ReadError> {
    let mut batches = store.read(Read::stream(stream(name)));
    let mut revisions = Vec::new();
    while let Some(batch) = batches.next().await {
        revisions.extend(batch?.events.iter().map(|event| event.revision.get()));
    }
    Ok(revisions)
}

/// All types in the log, in order.
pub(crate) async fn types(store: &PostgresStore) -> Vec<String> {
    let mut batches = store.read(Read::all());
    let mut types = Vec::new();
    while let Some(batch) = batches.next().await {
        types.extend(
            batch
                .unwrap()
                .events
                .iter()
                .map(|event| event.event_type.to_string()),
        );
    }
    types
}

/// Positions without a gap from 1.
pub(crate) fn dense(last: u64) -> Vec<u64> {
    (1..=last).collect()
}
