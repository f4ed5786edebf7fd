//! The segment that takes appends.
//!
//! **Owns:** [`ActiveSegment`]: its file, its locations and index in memory, and how far it is written.
//! **Does not know:** which appends are allowed, groups, views.
//! **Invariants:** frames follow each other without a gap; offsets are of frames that were decided, durable or not.

use std::sync::{Arc, PoisonError, RwLock};

use leftfold_model::Position;

use crate::{
    disk::DiskFile,
    error::StorageError,
    index::MemIndex,
    record::{
        LogId, frame,
        header::{Erased, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
    segment::{Locations, Segment, create, locations::Growing},
};

/// The segment that appends go to.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) segment: Arc<Segment>,
    growing: Arc<RwLock<Growing>>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) index: Arc<MemIndex>,
    pub(super) events: u32,
    /// Offset behind the last frame that was taken to be written.
    pub(super) written: u64,
    pub(super) capacity: u64,
}

/// Bytes of a segment that holds nothing but one frame of this many bytes.
pub(super) fn bytes_for(frame_bytes: usize) -> u64 {
    (SEGMENT_HEADER_BYTES + frame_bytes + frame::ALIGNMENT) as u64
}

/// Returns what readers see of a new segment that begins at `first`.
pub(super) fn empty(log: LogId, first: Position) -> Arc<Segment> {
    let growing = Growing {
        offsets: Vec::new(),
        end: u32::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u32::MAX),
    };
    let header = SegmentHeader {
        log,
        generation: 0,
        first,
        erased: Erased::default(),
    };
    let locations = Locations::Memory(Arc::new(RwLock::new(growing)));
    Arc::new(Segment::of(&header, locations))
}

impl ActiveSegment {
    /// A segment that is going to take appends, written through `file`.
    pub(super) fn new(
        segment: &Arc<Segment>,
        index: Arc<MemIndex>,
        file: Arc<dyn DiskFile>,
        capacity: u64,
    ) -> Self {
        let growing = match &segment.locations {
            Locations::Memory(growing) => Arc::clone(growing),
            Locations::File(_) => Arc::default(),
        };
        Self {
            segment: Arc::clone(segment),
            growing,
            file,
            index,
            events: segment.locations.count(),
            written: u64::from(segment.locations.end()),
            capacity,
        }
    }

    /// Whether `bytes` more, of which the last frame holds `events` events, fit into the segment.
    pub(super) fn fits(&self, bytes: usize, events: usize, events_max: u32) -> bool {
        let end = self.written + bytes as u64;
        let count = u64::from(self.events) + events as u64;
        end <= self.capacity && (count <= u64::from(events_max) || self.events == 0)
    }

    /// Adds the locations of decided records: their offsets in the group, which will have `group_bytes` bytes with them.
    pub(super) fn add(&mut self, records: &[usize], group_bytes: usize) {
        let at = |record: &usize| offset32(self.written + *record as u64);
        let mut growing = self.growing.write().unwrap_or_else(PoisonError::into_inner);
        growing.offsets.extend(records.iter().map(at));
        growing.end = offset32(self.written + group_bytes as u64);
        drop(growing);
        self.events += u32::try_from(records.len()).unwrap_or(u32::MAX);
    }

    /// Lengthens the segment to the size it is meant to have, which closing took from it. An empty segment also grows for
    /// an append that is larger than that.
    pub(super) fn grow(&mut self, planned: u64, frame_bytes: usize) -> Result<(), StorageError> {
        let needed = if self.events == 0 {
            planned.max(bytes_for(frame_bytes))
        } else {
            planned
        };
        create::lengthen(self.file.as_ref(), &self.segment.name(), needed)?;
        self.capacity = needed;
        Ok(())
    }

    /// Frees the space that was preallocated behind the last event.
    pub(super) fn trim_preallocation(&self) -> Result<(), StorageError> {
        let trimmed = self.file.set_len(self.written);
        let trimmed = trimmed.and_then(|()| self.file.sync_data());
        trimmed.map_err(|e| StorageError::io("shorten", &self.segment.name(), e))
    }
}

fn offset32(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}
