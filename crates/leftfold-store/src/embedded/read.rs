//! A read of the embedded store, batch by batch.
//!
//! **Owns:** [`ReadStream`], and [`EntryStream`], which returns erased events too. **Does not know:** the thread of a step.
//! **Invariants:** a step holds one batch of about [`BATCH_BYTES`].

use leftfold_log as log;
use leftfold_log::{Cursor, FirstBatch, Log};
use leftfold_model::{Position, Read, RecordedEvent};

use super::rebuilding;
use crate::{ErasedEvent, LogEntry, ReadBatch, ReadError};

/// Bytes of a batch, about. Readers may be slow and many, and each holds one.
const BATCH_BYTES: u64 = 256 * 1024;

/// A read before and after its first batch.
pub(super) enum ReadStream {
    NotBegun(Log, Read),
    Begun(Log, Box<Cursor>),
}

impl ReadStream {
    pub(super) fn begin(log: &Log, read: &Read) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let first = rebuilding(log, || {
            let mut cursor = log.read(read)?.with_batch_bytes(BATCH_BYTES);
            let events = cursor.next_batch()?;
            Ok((cursor, events))
        });
        first.map(|first| Some(Self::first(log, first)))
    }

    /// Returns the first batch, even without events, because it carries the token.
    pub(super) fn first(log: &Log, (cursor, events): FirstBatch) -> (ReadBatch, Self) {
        let cursor = Box::new(cursor.with_batch_bytes(BATCH_BYTES));
        Self::batch(log.clone(), cursor, events.unwrap_or_default())
    }

    pub(super) fn go_on(
        log: Log,
        mut cursor: Box<Cursor>,
    ) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let events = rebuilding(&log, || cursor.next_batch())?;
        Ok(events.map(|events| Self::batch(log, cursor, events)))
    }

    fn batch(log: Log, cursor: Box<Cursor>, events: Vec<RecordedEvent>) -> (ReadBatch, Self) {
        let token = cursor.token();
        (ReadBatch { events, token }, Self::Begun(log, cursor))
    }
}

/// A read of every position, before and after its first batch.
pub(super) enum EntryStream {
    NotBegun(Log, Read),
    Begun(Log, Box<Cursor>),
}

impl EntryStream {
    pub(super) fn after(log: &Log, after: Position) -> Self {
        Self::NotBegun(log.clone(), Read::all().from_position(after.next()))
    }

    pub(super) fn step(self) -> Result<Option<(Vec<LogEntry>, Self)>, ReadError> {
        let (log, mut cursor) = match self {
            Self::NotBegun(log, read) => {
                let cursor = rebuilding(&log, || log.read(&read))?;
                (log, Box::new(cursor.with_batch_bytes(BATCH_BYTES)))
            }
            Self::Begun(log, cursor) => (log, cursor),
        };
        let entries = rebuilding(&log, || cursor.next_entries())?;
        let entry = |entry: log::LogEntry| match entry.is_erased {
            true => LogEntry::Erased(ErasedEvent::of(&entry.event)),
            false => LogEntry::Event(entry.event),
        };
        Ok(entries.map(|entries| {
            let entries = entries.into_iter().map(entry).collect();
            (entries, Self::Begun(log, cursor))
        }))
    }
}
