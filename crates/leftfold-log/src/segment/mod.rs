//! Segments: the files that hold the events.
//!
//! **Owns:** creating, finding, scanning and reading segments; the location of each event in its segment.
//! **Does not know:** which appends are allowed, what the index holds, threads.
//! **Invariants:**
//! - A segment has its full length from the start, so a sync changes no metadata.
//! - The file of a sealed segment never changes. Scavenging writes another one, of the next generation, and a reader with an
//!   older view is redirected to it.
//! - A read verifies every record it returns.
//!
//! **Reading order:** [`Segment`], [`Segments`], [`Locations`], [`fetch`], [`scan`], [`create`].

pub(crate) mod create;
mod fetch;
pub(crate) mod locations;
pub(crate) mod scan;

use std::{
    ops::Range,
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use leftfold_model::Position;

pub(crate) use fetch::Fetched;
pub(crate) use locations::{LocationReader, Locations};

use crate::{
    cache::FileCache,
    disk::{DiskFile, FileKind, FileName},
    error::StorageError,
    record::{
        Checksum, LogId,
        header::{Erased, SegmentHeader},
    },
};

/// One segment, as readers see it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first: Position,
    pub(crate) generation: u32,
    /// Which of its events are erased.
    pub(crate) erased: Erased,
    pub(crate) locations: Locations,
    /// Whether its locations file was found to be damaged.
    pub(crate) has_damaged_locations: AtomicBool,
    /// The segment that took this one's place: sealed since, or with more events erased.
    replaced_by: OnceLock<Arc<Segment>>,
}

impl Segment {
    /// The segment with this header.
    pub(crate) fn of(header: &SegmentHeader, locations: Locations) -> Self {
        Self {
            first: header.first,
            generation: header.generation,
            erased: header.erased,
            locations,
            has_damaged_locations: AtomicBool::new(false),
            replaced_by: OnceLock::new(),
        }
    }

    /// What its file says of itself in a log with this id.
    pub(crate) fn header(&self, log: LogId) -> SegmentHeader {
        SegmentHeader {
            log,
            generation: self.generation,
            first: self.first,
            erased: self.erased,
        }
    }

    pub(crate) fn name(&self) -> FileName {
        FileName::of(FileKind::Segment {
            first: self.first,
            generation: self.generation,
        })
    }

    /// The name of its locations file, when it has one.
    pub(crate) fn locations_name(&self) -> FileName {
        FileName::of(locations::kind(self.first, self.generation, self.erased))
    }

    /// Its file.
    pub(crate) fn file(&self, handles: &FileCache) -> Result<Arc<dyn DiskFile>, StorageError> {
        handles.get(&self.name())
    }

    /// Says what takes this one's place. Afterwards its files may go.
    pub(crate) fn replace(&self, by: Arc<Self>) {
        if !std::ptr::eq(self, &raw const *by) {
            // Never set already: sealing and rewriting replace one segment at a time.
            let _ = self.replaced_by.set(by);
        }
    }

    /// What took this one's place, or itself.
    fn current(&self) -> &Self {
        let mut current = self;
        while let Some(newer) = current.replaced_by.get() {
            current = newer;
        }
        current
    }
}

/// The segments of a log, oldest first, as a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    pub(crate) list: Arc<[Arc<Segment>]>,
    pub(crate) handles: Arc<FileCache>,
    pub(crate) seal: Checksum,
}

impl Segments {
    /// The segment of this position, and the positions it may hold.
    fn segment_of(&self, position: Position) -> Option<(&Arc<Segment>, Range<Position>)> {
        let index = self
            .list
            .partition_point(|segment| segment.first <= position);
        let segment = self.list.get(index.checked_sub(1)?)?;
        let end = self
            .list
            .get(index)
            .map_or(Position::MAX, |next| next.first);
        Some((segment, segment.first..end))
    }

    /// The name of the segment that holds this position.
    pub(crate) fn name_at(&self, position: Position) -> FileName {
        let segment = self.segment_of(position);
        segment.map_or(FileName::of(FileKind::Lock), |(segment, _)| segment.name())
    }
}
