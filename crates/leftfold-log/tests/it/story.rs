//! Words in which the tests speak of logs and events.

use std::{
    fs,
    path::{Path, PathBuf},
};

use leftfold_log::{Log, LogOptions, ReadError};
use leftfold_model::{
    Append, EventId, EventType, ExpectedRevision, NewEvent, Read, RecordedEvent, StreamName, Tag,
};
use tempfile::TempDir;

/// A directory of its own for each test.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The files of a directory, by name.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

/// Settings under which a few dozen events fill a segment.
pub(crate) fn tiny() -> LogOptions {
    LogOptions::default()
        .with_segment_bytes(16 * 1024)
        .with_segment_events(50)
}

#[track_caller]
pub(crate) fn open(directory: &TempDir) -> Log {
    Log::open(directory.path(), tiny()).unwrap()
}

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::new(name).unwrap()
}

/// An event whose id, data and tag follow from a number.
pub(crate) fn event(n: u64) -> NewEvent {
    NewEvent::json(
        EventType::new(format!("T{}", n % 3)).unwrap(),
        format!("{{\"n\":{n}}}"),
    )
    .with_id(id(n))
    .with_tags([Tag::new(format!("n:{}", n % 7)).unwrap()])
    .unwrap()
}

pub(crate) fn id(n: u64) -> EventId {
    EventId::from_bytes(u128::from(n + 1).to_le_bytes())
}

pub(crate) fn append(
    name: &str,
    expected: ExpectedRevision,
    numbers: impl IntoIterator<Item = u64>,
) -> Append {
    Append::to(
        stream(name),
        expected,
        numbers.into_iter().map(event).collect(),
    )
    .unwrap()
}

#[track_caller]
pub(crate) fn read(log: &Log, read: &Read) -> Vec<RecordedEvent> {
    try_read(log, read).unwrap()
}

pub(crate) fn try_read(log: &Log, read: &Read) -> Result<Vec<RecordedEvent>, ReadError> {
    let mut cursor = log.read(read)?;
    let mut events = Vec::new();
    while let Some(batch) = cursor.next_batch()? {
        events.extend(batch);
    }
    Ok(events)
}
