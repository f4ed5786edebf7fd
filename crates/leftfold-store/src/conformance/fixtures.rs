//! Constructors and readers that the rules share.
//!
//! **Owns:** short forms of the model's constructors and of reading to the end. **Does not know:** rules.
//! **Invariants:** nothing waits longer than a deadline.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use leftfold_model::{
    Append, AppendCondition, Appended, Category, Conflict, EventType, ExpectedRevision, NewEvent,
    Position, Query, QueryItem, Read, RecordedEvent, Revision, StreamName, StreamWrite, Tag,
};

use crate::{AppendError, Delivery, EventStore, ReadError, Subscription};

pub(super) type Store = Arc<dyn EventStore>;

pub(super) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}
pub(super) fn category(name: &str) -> Category {
    Category::new(name).unwrap()
}
pub(super) fn kind(name: &str) -> EventType {
    EventType::new(name).unwrap()
}
pub(super) fn tag(name: &str) -> Tag {
    Tag::new(name).unwrap()
}
pub(super) fn event(name: &str) -> NewEvent {
    NewEvent::json(kind(name), "{}")
}
pub(super) fn tagged(name: &str, tags: &[&str]) -> NewEvent {
    event(name)
        .with_tags(tags.iter().map(|name| tag(name)))
        .unwrap()
}
pub(super) fn events(count: usize) -> Vec<NewEvent> {
    (0..count).map(|_| event("T")).collect()
}
pub(super) fn exact(revision: u64) -> ExpectedRevision {
    ExpectedRevision::Exact(Revision::new(revision))
}
pub(super) fn write(name: &str, expected: ExpectedRevision, events: Vec<NewEvent>) -> StreamWrite {
    StreamWrite {
        stream: stream(name),
        expected,
        events,
    }
}
pub(super) fn to(name: &str, expected: ExpectedRevision, events: Vec<NewEvent>) -> Append {
    Append::to(stream(name), expected, events).unwrap()
}
pub(super) fn unless(append: Append, query: Query, after: u64) -> Append {
    append
        .with_condition(AppendCondition::new(query, Position::new(after)))
        .unwrap()
}
pub(super) fn of_types(types: &[&str]) -> Query {
    item(types, &[])
}
pub(super) fn of_tags(tags: &[&str]) -> Query {
    item(&[], tags)
}
pub(super) fn item(types: &[&str], tags: &[&str]) -> Query {
    Query::items([query_item(types, tags)]).unwrap()
}
pub(super) fn query_item(types: &[&str], tags: &[&str]) -> QueryItem {
    QueryItem::new(
        types.iter().map(|name| kind(name)),
        tags.iter().map(|name| tag(name)),
    )
    .unwrap()
}

/// Appends, and must succeed.
#[track_caller]
pub(super) fn ok(result: Result<Appended, AppendError>) -> Appended {
    result.unwrap()
}

/// The conflict an append was refused with.
#[track_caller]
pub(super) fn conflict(result: Result<Appended, AppendError>) -> Conflict {
    match result {
        Err(AppendError::Conflict(conflict)) => conflict,
        other => panic!("expected a conflict, got {other:?}"),
    }
}

/// Everything a read gives.
pub(super) async fn read(store: &Store, read: Read) -> Vec<RecordedEvent> {
    try_read(store, read).await.unwrap()
}

pub(super) async fn try_read(store: &Store, read: Read) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut batches = store.read(read);
    let mut events = Vec::new();
    while let Some(batch) = batches.next().await {
        events.extend(batch?.events);
    }
    Ok(events)
}

/// The positions a read gives.
pub(super) async fn positions(store: &Store, wanted: Read) -> Vec<u64> {
    read(store, wanted)
        .await
        .iter()
        .map(|event| event.position.get())
        .collect()
}

/// The revisions a read gives.
pub(super) async fn revisions(store: &Store, wanted: Read) -> Vec<u64> {
    read(store, wanted)
        .await
        .iter()
        .map(|event| event.revision.get())
        .collect()
}

/// Waits no longer than a deadline.
pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(Duration::from_secs(60), work).await;
    done.expect("an answer in time")
}

/// Follows until `enough` deliveries say so; no longer than a deadline.
pub(super) async fn follow(
    store: &Store,
    subscription: Subscription,
    mut enough: impl FnMut(&Delivery) -> bool,
) -> Vec<RecordedEvent> {
    let mut deliveries = store.subscribe(subscription);
    let mut events = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), deliveries.next()).await;
        let delivery = next
            .expect("a subscription stands still")
            .expect("a subscription ended")
            .unwrap();
        let done = enough(&delivery);
        events.extend(delivery.events);
        if done {
            return events;
        }
    }
}
