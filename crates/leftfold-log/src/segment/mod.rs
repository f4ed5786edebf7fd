//! Segments: the files that hold the events.
//!
//! **Owns:** how a segment is made, found, scanned and read; where in it each event lies.
//! **Does not know:** which appends are allowed, what the index holds, threads.
//! **Invariants:** a segment has its full length from the start, so a sync changes no metadata; sealed segments never
//! change; a read checks every record it returns.
//! **Reading order:** [`Segment`], [`Segments`], [`Locations`], [`fetch`], [`scan`], [`create`].

pub(crate) mod create;
mod fetch;
mod handles;
pub(crate) mod locations;
pub(crate) mod scan;

use std::{ops::Range, sync::Arc};

use leftfold_model::Position;

pub(crate) use fetch::Fetched;
pub(crate) use handles::Handles;
pub(crate) use locations::{LocationReader, Locations};

use crate::{
    disk::{FileKind, FileName},
    record::Seal,
};

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
