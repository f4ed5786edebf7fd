//! Segments: the files that hold the events.
//!
//! **Owns:** how a segment is made, found, scanned and read; where in it each event lies.
//! **Does not know:** which appends are allowed, what the index holds, threads.
//! **Invariants:** a segment has its full length from the start, so a sync changes no metadata; sealed segments never
//! change; a read checks every record it returns.
//! **Reading order:** [`Segment`], [`Segments`], [`Locations`], [`scan`], [`create`].

pub(crate) mod create;
mod handles;
pub(crate) mod locations;
pub(crate) mod scan;

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use leftfold_model::{Position, RecordedEvent};

pub(crate) use handles::Handles;
pub(crate) use locations::{LocationReader, Locations};

use crate::{
    disk::{DiskFile, FileKind, FileName},
    error::StorageError,
    record::{Seal, event},
};

/// Bytes of one read when events lie side by side. Larger: fewer calls, more memory per reader.
const READ_BYTES_MAX: u64 = 1024 * 1024;
/// Events this far apart are still read in one go: a page costs less than a call.
const READ_GAP_BYTES_MAX: u64 = 4 * 1024;

/// One segment, as readers see it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first: Position,
    pub(crate) generation: u32,
    pub(crate) locations: Locations,
}

impl Segment {
    pub(crate) fn name(&self) -> FileName {
        FileName::of(FileKind::Segment {
            first: self.first,
            generation: self.generation,
        })
    }
}

/// The segments of a log, oldest first, as a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    pub(crate) list: Arc<[Arc<Segment>]>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) seal: Seal,
}

impl Segments {
    /// Reads the events whose positions `next` gives, which must all rise or all fall, until there are no more,
    /// or the batch holds `events_max` events or about `bytes_max` bytes.
    pub(crate) fn fetch(
        &self,
        next: &mut dyn FnMut() -> Result<Option<Position>, StorageError>,
        (events_max, bytes_max): (usize, u64),
    ) -> Result<Vec<RecordedEvent>, StorageError> {
        let mut events = Vec::new();
        let mut run: Option<Run<'_>> = None;
        let (mut wanted, mut bytes) = (0, 0);
        while wanted < events_max && bytes < bytes_max {
            let Some(position) = next()? else { break };
            if !run
                .as_ref()
                .is_some_and(|run| run.range.contains(&position))
            {
                if let Some(run) = run.take() {
                    run.finish(&mut events)?;
                }
                run = self.run_at(position)?;
            }
            let Some(run) = run.as_mut() else { break };
            bytes += run.add(position, &mut events)?;
            wanted += 1;
        }
        if let Some(run) = run {
            run.finish(&mut events)?;
        }
        Ok(events)
    }

    /// An empty run in the segment of this position.
    fn run_at(&self, position: Position) -> Result<Option<Run<'_>>, StorageError> {
        let index = self
            .list
            .partition_point(|segment| segment.first <= position);
        let Some(segment) = index.checked_sub(1).and_then(|index| self.list.get(index)) else {
            return Ok(None);
        };
        let end = self
            .list
            .get(index)
            .map_or(Position::MAX, |next| next.first);
        let name = segment.name();
        Ok(Some(Run {
            file: self.handles.get(&name)?,
            name,
            seal: self.seal,
            range: segment.first..end,
            locations: segment.locations.reader(&self.handles, segment.first),
            from: 0,
            to: 0,
            places: Vec::new(),
        }))
    }

    /// The name of the segment that holds this position.
    pub(crate) fn name_at(&self, position: Position) -> FileName {
        let index = self
            .list
            .partition_point(|segment| segment.first <= position);
        let segment = index.checked_sub(1).and_then(|index| self.list.get(index));
        segment.map_or(FileName::of(FileKind::Lock), |segment| segment.name())
    }

    /// Reads one event.
    pub(crate) fn event(&self, position: Position) -> Result<Option<RecordedEvent>, StorageError> {
        let mut wanted = Some(position);
        Ok(self.fetch(&mut || Ok(wanted.take()), (1, u64::MAX))?.pop())
    }
}

/// Events of one segment that lie side by side, to be read in one go.
struct Run<'a> {
    file: Arc<dyn DiskFile>,
    name: FileName,
    seal: Seal,
    range: Range<Position>,
    locations: LocationReader<'a>,
    from: u64,
    to: u64,
    places: Vec<(Position, u64)>,
}

impl Run<'_> {
    /// Adds an event, reading what is gathered first if it lies too far off. Gives the bytes it takes.
    fn add(
        &mut self,
        position: Position,
        events: &mut Vec<RecordedEvent>,
    ) -> Result<u64, StorageError> {
        let (start, end) = self.locations.of(position)?;
        let gap = if start >= self.to {
            start - self.to
        } else {
            self.from.saturating_sub(end)
        };
        let span = self.to.max(end) - self.from.min(start);
        if !self.places.is_empty() && (gap > READ_GAP_BYTES_MAX || span > READ_BYTES_MAX) {
            self.read(events)?;
        }
        if self.places.is_empty() {
            (self.from, self.to) = (start, end);
        }
        (self.from, self.to) = (self.from.min(start), self.to.max(end));
        self.places.push((position, start));
        Ok(end - start)
    }

    fn read(&mut self, events: &mut Vec<RecordedEvent>) -> Result<(), StorageError> {
        let mut buffer = vec![0; usize::try_from(self.to - self.from).unwrap_or(0)];
        let read = self.file.read_exact_at(&mut buffer, self.from);
        read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => {
                StorageError::corrupt(&self.name, self.from, "the file is cut short")
            }
            _ => StorageError::io("read", &self.name, e),
        })?;
        let bytes = Bytes::from(buffer);
        for (position, offset) in self.places.drain(..) {
            let mut record = bytes.slice(usize::try_from(offset - self.from).unwrap_or(0)..);
            let decoded = event::take_record(&mut record, self.seal, position)
                .and_then(|record| event::decode(&record, position));
            events.push(decoded.map_err(|m| StorageError::corrupt(&self.name, offset, m.what))?);
        }
        Ok(())
    }

    fn finish(mut self, events: &mut Vec<RecordedEvent>) -> Result<(), StorageError> {
        if self.places.is_empty() {
            Ok(())
        } else {
            self.read(events)
        }
    }
}
