//! A read of the embedded store, batch by batch.
//!
//! **Owns:** [`ReadStream`], and [`EntryStream`], which returns erased events too. **Does not know:** the thread of a step.
//! **Invariants:** a step holds one batch of about [`BATCH_BYTES`].

use leftfold_log as log;
use leftfold_log::{Cursor, FirstBatch, Log};
use leftfold_model::{ConflictToken, Direction, Position, Read, ReadFrom, RecordedEvent};

use super::rebuilding;
use crate::{ErasedEvent, LogEntry, ReadBatch, ReadError};

/// Bytes of a batch, about. Readers may be slow and many, and each holds one.
const BATCH_BYTES: u64 = 256 * 1024;

/// A read before and after its first batch.
pub(super) enum ReadStream {
    NotBegun(Log, Read),
    Begun(Box<Reading>),
}

/// A read in progress.
pub(super) struct Reading {
    log: Log,
    /// What is left of the read, to begin it again: a cursor keeps the index files of its beginning, damaged ones too.
    rest: Read,
    cursor: Cursor,
    token: ConflictToken,
}

impl ReadStream {
    pub(super) fn begin(log: Log, read: Read) -> Result<(ReadBatch, Self), ReadError> {
        let first = rebuilding(&log, || {
            let mut cursor = log.read(&read)?.with_batch_bytes(BATCH_BYTES);
            let events = cursor.next_batch()?;
            Ok((cursor, events))
        })?;
        Ok(Self::first(log, read, first))
    }

    /// Returns the first batch, even without events, because it carries the token.
    pub(super) fn first(log: Log, read: Read, (cursor, events): FirstBatch) -> (ReadBatch, Self) {
        let reading = Box::new(Reading {
            token: cursor.token(),
            cursor: cursor.with_batch_bytes(BATCH_BYTES),
            log,
            rest: read,
        });
        reading.batch(events.unwrap_or_default())
    }

    pub(super) fn go_on(mut reading: Box<Reading>) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let events = reading.next_events()?;
        Ok((!events.is_empty()).then(|| reading.batch(events)))
    }
}

impl Reading {
    /// Returns whether there is certainly nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.cursor.is_done()
    }

    fn next_events(&mut self) -> Result<Vec<RecordedEvent>, ReadError> {
        let (log, mut has_failed) = (self.log.clone(), false);
        let events = rebuilding(&log, || {
            if has_failed {
                self.cursor = log.read(&self.rest)?.with_batch_bytes(BATCH_BYTES);
            }
            let events = self.cursor.next_batch();
            has_failed = events.is_err();
            events
        });
        let mut events = events?.unwrap_or_default();
        // A cursor that began again sees what was appended since.
        events.retain(|event| event.position <= self.token.seen_through());
        Ok(events)
    }

    fn batch(mut self: Box<Self>, events: Vec<RecordedEvent>) -> (ReadBatch, ReadStream) {
        if let Some(last) = events.last() {
            self.rest.from = ReadFrom::Position(match self.rest.direction {
                Direction::Forwards => last.position.next(),
                Direction::Backwards => last.position.previous(),
            });
        }
        let limit = self
            .rest
            .limit
            .map(|limit| limit.saturating_sub(events.len() as u64));
        self.rest.limit = limit;
        let token = self.token;
        (ReadBatch { events, token }, ReadStream::Begun(self))
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
