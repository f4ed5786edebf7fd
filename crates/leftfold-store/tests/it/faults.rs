//! Faults of the disk and of the engine below a store.
//!
//! **Owns:** what callers see of them. **Does not know:** how the engine meets them.

use std::{io, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use leftfold_log::{Log, LogOptions, SystemClock, disk::FileKind};
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision, StreamName};
use leftfold_store::{AppendError, Delete, EmbeddedStore, EventStore, Truncation};
use tempfile::TempDir;

use crate::faulty_disk::FaultyDisk;

fn opened(segment_events: u32) -> (TempDir, FaultyDisk, EmbeddedStore) {
    let directory = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::at(&directory);
    let options = LogOptions::default().with_segment_events(segment_events);
    let log = Log::open_on(Arc::new(disk.clone()), options, Arc::new(SystemClock)).unwrap();
    (directory, disk, EmbeddedStore::over(log))
}

fn name(stream: &str) -> StreamName {
    StreamName::new(stream).unwrap()
}

fn deposit(stream: &str) -> Append {
    let event = NewEvent::json(EventType::new("DepositMade").unwrap(), "{}");
    Append::to(name(stream), ExpectedRevision::Any, vec![event]).unwrap()
}

/// What a disk reports that cannot read or write.
fn input_output_error() -> io::Error {
    io::Error::from_raw_os_error(5)
}

#[tokio::test]
async fn a_scavenge_that_panics_ends_with_an_error_and_not_as_if_it_were_done() {
    let (_directory, disk, store) = opened(10);
    disk.refuse(|operation, name| {
        let is_rewritten =
            matches!(name.kind(), FileKind::Segment { generation, .. } if generation > 0);
        assert!(
            operation != "create" || !is_rewritten,
            "a panic of the test"
        );
        None
    });
    for _ in 0..25 {
        store.append(deposit("s")).await.unwrap();
    }
    let (stream, before) = (name("s"), Revision::new(5));
    let erasing = store
        .storage()
        .unwrap()
        .erase(vec![Truncation { stream, before }], None);
    let steps: Vec<_> = erasing.collect().await;
    assert!(matches!(steps.last(), Some(Err(_))), "{steps:?}");
}

#[tokio::test]
async fn a_retry_that_cannot_read_what_it_needs_is_not_said_to_be_certainly_not_written() {
    let (directory, disk, store) = opened(5);
    // A store with metadata reads that of a stream before it appends to it.
    for n in 0..20 {
        let stream = format!("account-{n}");
        store.append(deposit(&stream)).await.unwrap();
        let delete = Delete::stream(name(&stream), ExpectedRevision::Any);
        store.delete(delete).await.unwrap();
    }
    // The next segment has begun, so the next append creates no file.
    store.append(deposit("account-20")).await.unwrap();
    let first = deposit("account-3");
    disk.refuse(|operation, _| (operation == "sync").then(input_output_error));
    let unknown = store.append(first.clone()).await.unwrap_err();
    assert!(!unknown.is_definitely_not_written(), "{unknown:?}");

    disk.refuse(|_, _| Some(input_output_error()));
    let retry = store.append(first).await.unwrap_err();
    assert!(!retry.is_definitely_not_written(), "{retry:?}");
    let other = store.append(deposit("account-4")).await.unwrap_err();
    assert!(
        matches!(other, AppendError::Unavailable { .. }),
        "{other:?}"
    );

    // The sync was refused, the bytes are in the file: the next open finds them.
    drop(store);
    let store = EmbeddedStore::open(directory.path(), LogOptions::default());
    let read = store.await.unwrap().read(Read::stream(name("account-3")));
    let batches: Vec<_> = read.try_collect().await.unwrap();
    assert_eq!(
        batches
            .iter()
            .map(|batch| batch.events.len())
            .sum::<usize>(),
        1
    );
}

#[tokio::test]
async fn the_statistics_tell_of_maintenance_that_fails_until_it_succeeds() {
    let (_directory, disk, store) = opened(5);
    let told = async || {
        let stats = store.stats().await.unwrap();
        let mut details = stats.details.into_iter();
        details.find_map(|(name, text)| (name == "maintenance_error").then_some(text))
    };
    assert_eq!(told().await, None);
    disk.refuse(|operation, name| {
        let is_refused = operation == "create" && matches!(name.kind(), FileKind::Index { .. });
        is_refused.then(input_output_error)
    });
    for n in 0..12 {
        store.append(deposit(&format!("s-{n}"))).await.unwrap();
    }
    let error = loop {
        match told().await {
            Some(error) => break error,
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    assert!(error.contains("Input/output error"), "{error}");
    disk.refuse_nothing();
    while told().await.is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
