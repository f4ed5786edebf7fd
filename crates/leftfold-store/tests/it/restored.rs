//! A directory that was restored to an earlier state while subscriptions were open.
//!
//! **Owns:** what they see of it. **Does not know:** stores of other kinds: one in memory cannot be restored, and each of the
//! others has this test beside its own suite.

use futures_util::StreamExt;
use leftfold_model::{Append, EventType, ExpectedRevision::Any, NewEvent, Position, StreamName};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions, ReadError, Subscription};

async fn append(store: &EmbeddedStore, count: usize) {
    let event = || NewEvent::json(EventType::new("Noted").unwrap(), "{}");
    let events = (0..count).map(|_| event()).collect();
    let append = Append::to(StreamName::new("a").unwrap(), Any, events).unwrap();
    store.append(append).await.unwrap();
}

async fn open(directory: &std::path::Path) -> EmbeddedStore {
    let store = EmbeddedStore::open(directory, LogOptions::default()).await;
    store.unwrap()
}

#[tokio::test]
async fn a_subscription_of_a_directory_that_was_restored_to_an_earlier_head_ends_and_is_refused_by_both_positions()
 {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    append(&store, 3).await;
    store.close().await.unwrap();
    let backup = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), backup.path().join(entry.file_name())).unwrap();
    }
    let store = open(directory.path()).await;
    append(&store, 4).await;
    let mut deliveries = store.subscribe(Subscription::after(Position::START));
    let mut through = Position::START;
    while through < Position::new(7) {
        through = deliveries.next().await.unwrap().unwrap().through;
    }
    // The directory is locked as long as the store is open, so it is closed for the restore.
    store.close().await.unwrap();
    assert!(deliveries.next().await.is_none());
    let store = open(backup.path()).await;
    let refused = store.subscribe(Subscription::after(through)).next().await;
    let error = refused.unwrap().unwrap_err();
    assert!(matches!(error, ReadError::Invalid { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains('7') && text.contains("position 3"), "{text}");
}
