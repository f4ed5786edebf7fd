//! Reading the events at given positions.
//!
//! **Owns:** [`Segments::fetch`] and [`Fetched`], the events as bytes in memory. **Does not know:** why these events.
//! **Invariants:** events come in the order of the positions; no byte is used before its record's checksum is verified;
//! memory is bounded by the caller's bound and one event.
//! **Reading order:** [`Fetched`], [`locate`] (where events lie), [`io`] (how they are read), [`erased`], [`decode`].

mod decode;
mod erased;
mod io;
mod locate;

use std::sync::Arc;

use bytes::Bytes;
use leftfold_model::{Position, RecordedEvent};

use super::Segments;
use crate::{
    disk::{DiskFile, FileName},
    error::StorageError,
    record::{Checksum, Malformed, event},
};

/// Bytes that are read at once for the names of other events, one event more or less.
const NAMED_BYTES_MAX: u64 = 1024 * 1024;

/// Events that were read, in one buffer.
#[derive(Debug)]
pub(crate) struct Fetched {
    bytes: Bytes,
    seal: Checksum,
    runs: Vec<Run>,
    /// Position of each event, and where in its segment it lies.
    places: Vec<(Position, u64)>,
    /// Names that these refer to, encoded, of events that are not among them; positions rise.
    named: Vec<(Position, Vec<u8>)>,
    /// Which of the places, counted from 0, say that their events are erased.
    erased: Vec<usize>,
    /// How many of the places are returned, and whether erased events are among them.
    returned: usize,
    shows_erased: bool,
    /// Whether these are not all that were asked for.
    pub(crate) truncated: bool,
}

/// Events that lie close together in one segment.
#[derive(Debug)]
struct Run {
    /// `None` once it was read: what was read keeps no file open.
    file: Option<Arc<dyn DiskFile>>,
    name: FileName,
    from: u64,
    to: u64,
    /// Where its bytes lie in memory.
    within: usize,
    /// How many events it and those before it have.
    places_end: usize,
}

impl Run {
    fn bytes(&self) -> u64 {
        self.to - self.from
    }

    fn file(&self) -> std::io::Result<&dyn DiskFile> {
        let closed = || std::io::Error::other("a run was read twice");
        self.file.as_deref().ok_or_else(closed)
    }

    /// Announces the read to the system.
    fn will_read(&self) {
        if let Some(file) = &self.file {
            file.will_read(self.from, self.bytes());
        }
    }

    fn failed(&self, error: std::io::Error) -> StorageError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                StorageError::corrupt(&self.name, self.from, "the file is cut short")
            }
            _ => StorageError::io("read", &self.name, error),
        }
    }
}

impl Segments {
    /// Reads the events at these positions, which must all rise or all fall, erased ones included. Reads the first of them
    /// if they have more than about `bytes_max` bytes or lie in many segments. `buffer` is memory to use, whatever it
    /// holds.
    pub(crate) fn fetch(
        &self,
        positions: &[Position],
        bytes_max: u64,
        buffer: Vec<u8>,
    ) -> Result<Fetched, StorageError> {
        self.handles.count_read();
        let mut fetched = self.locate(positions, bytes_max)?;
        fetched.truncated = fetched.places.len() < positions.len();
        fetched.read(buffer)?;
        let missing = fetched.look();
        fetched.named = self.names_of_others(&missing)?;
        Ok(fetched)
    }

    /// Reads the names of these events, a bounded number of bytes at once: the events themselves may be large.
    fn names_of_others(
        &self,
        mut positions: &[Position],
    ) -> Result<Vec<(Position, Vec<u8>)>, StorageError> {
        let mut named = Vec::with_capacity(positions.len());
        let mut buffer = Vec::new();
        while !positions.is_empty() {
            let mut some = self.locate(positions, NAMED_BYTES_MAX)?;
            some.read(buffer)?;
            some.encode_names(&mut named)?;
            positions = match some.places.len() {
                0 => break,
                count => positions.get(count..).unwrap_or_default(),
            };
            buffer = some.into_buffer();
        }
        Ok(named)
    }

    /// Reads one event, also if it is erased: then it has no data.
    pub(crate) fn event(&self, position: Position) -> Result<Option<RecordedEvent>, StorageError> {
        let fetched = self.fetch(&[position], u64::MAX, Vec::new())?;
        Ok(fetched.into_events()?.pop())
    }
}

impl Fetched {
    /// The position of the last event, returned or not.
    pub(crate) fn last(&self) -> Option<Position> {
        self.places.last().map(|&(position, _)| position)
    }

    /// Where the bytes of each event lie: run, position, offset in the segment, offset in memory.
    fn each(&self) -> impl Iterator<Item = (&Run, Position, u64, usize)> {
        let mut runs = self.runs.iter();
        let mut run = runs.next();
        self.places
            .iter()
            .enumerate()
            .map_while(move |(nth, &(position, start))| {
                while run.is_some_and(|run| run.places_end <= nth) {
                    run = runs.next();
                }
                let run = run?;
                let within = usize::try_from(start - run.from).unwrap_or(usize::MAX);
                Some((run, position, start, run.within.saturating_add(within)))
            })
    }

    /// Takes note of the erased events, and gives the positions, rising, of events that hold names of these and are not
    /// among them.
    fn look(&mut self) -> Vec<Position> {
        let (mut missing, mut erased) = (Vec::new(), Vec::new());
        for (nth, (_, position, _, within)) in self.each().enumerate() {
            let bytes = self.bytes.get(within..).unwrap_or_default();
            let peeked = event::peek(bytes);
            if peeked.is_erased {
                erased.push(nth);
            }
            if let Some(events) = peeked.back {
                let at = position.get().saturating_sub(events);
                if at > 0 && self.index_of(Position::new(at)).is_none() {
                    missing.push(Position::new(at));
                }
            }
        }
        self.erased = erased;
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The place of the event at this position, if it is here.
    fn index_of(&self, position: Position) -> Option<usize> {
        // Without gaps, as in a scan, the distance to the first one is the index.
        let first = self.places.first()?.0.get();
        let distance = usize::try_from(position.get().abs_diff(first)).ok()?;
        if self
            .places
            .get(distance)
            .is_some_and(|(at, _)| *at == position)
        {
            return Some(distance);
        }
        let falls = matches!(&*self.places, [(a, _), .., (b, _)] if a > b);
        let order = |(at, _): &(Position, u64)| {
            if falls {
                position.cmp(at)
            } else {
                at.cmp(&position)
            }
        };
        self.places.binary_search_by(order).ok()
    }
}

fn damaged(run: &Run, offset: u64, malformed: &Malformed) -> StorageError {
    StorageError::corrupt(&run.name, offset, malformed.what)
}
