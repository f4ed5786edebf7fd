//! Opening: from files to a log that can be trusted.
//!
//! **Owns:** [`recover`] and its errors. **Does not know:** threads, who appends.
//! **Invariants:**
//! - Recovery changes nothing before it has understood every segment's header.
//! - It truncates only bytes that no sync can have covered, and saves them first.
//! - After an unclean stop, it rewrites and syncs the newest segment's frames before the log serves any of them.
//! - It rebuilds an index that is missing or damaged from the log.
//! - It reports a hole in the log, or a newest segment that is known to have had a successor, and never skips it.
//!
//! **Reading order:** [`recover`], [`active`], [`sealed`], then [`marker`] and [`inventory`].

mod active;
mod error;
mod inventory;
mod marker;
mod sealed;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use leftfold_model::{EventId, Position};

use active::Active;
pub(crate) use active::{ScannedSegment, scan_segment};
pub use error::OpenError;
pub(crate) use inventory::Inventory;
pub(crate) use marker::Marker;
use sealed::SealedSegments;

use crate::{
    append::{AppendValidator, RecentIds},
    atomic_file::sync_dir,
    cache::FileCache,
    disk::{Disk, FileKind, FileName},
    error::StorageError,
    index::{IndexFile, IndexSnapshot, MemIndex},
    limits::{LogOptions, RECENT_IDS},
    planted::{self, Planted},
    record::{
        Checksum, LogId,
        header::{Erased, FORMAT, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
    segment::{Segment, Segments, create, locations},
};

/// What opening found and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the log had been stopped cleanly (a new log counts as such).
    pub clean: bool,
    /// Bytes without a whole append that were cut from the end and saved, if any, and the file they were saved in. None are, if
    /// the log is only read.
    pub torn_tail: Option<(u64, FileName)>,
    /// How many segments had their index rebuilt.
    pub indexes_rebuilt: usize,
}

/// A log that can be appended to and read.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: LogId,
    pub(crate) segments: Segments,
    pub(crate) sources: IndexSnapshot,
    pub(crate) tail: Arc<MemIndex>,
    pub(crate) decider: AppendValidator,
    /// Offset behind the last frame of the newest segment.
    pub(crate) end: u64,
    /// Bytes of the newest segment's file.
    pub(crate) capacity: u64,
    /// Whether there is a marker of an earlier clean stop.
    pub(crate) marked: bool,
    pub(crate) report: OpenReport,
}

/// Opens the log on this disk; the caller holds the lock.
pub(crate) fn recover(disk: &Arc<dyn Disk>, options: &LogOptions) -> Result<Recovered, OpenError> {
    let inventory = Inventory::of(disk.as_ref())?;
    let handles = Arc::new(FileCache::over(Arc::clone(disk), options.cache_bytes));
    let Some((&first, &generation)) = inventory.segments.first_key_value() else {
        return create_log(disk, handles, &inventory, options);
    };
    let headers = read_headers(&handles, &inventory, (first, generation))?;
    let mut report = OpenReport::default();
    let Some(newest) = headers.last() else {
        let lock = FileName::of(FileKind::Lock);
        return Err(StorageError::corrupt(&lock, 0, "there is no segment").into());
    };
    let log = newest.log;
    let marker = Marker::read_if(inventory.marker, &handles, log)?;
    remove_unneeded(disk.as_ref(), &inventory)?;
    let opening = Opening {
        handles: &handles,
        inventory: &inventory,
        headers: &headers,
        marker,
        options,
    };
    let early = if active::has_unsure_name(&handles, newest, marker)? {
        Some(opening.active(newest, &mut report)?)
    } else {
        sync_dir(disk.as_ref())?;
        None
    };
    let written_anew = early.as_ref().map(|active| active.segment.header(log));
    let sealed = opening.sealed(written_anew.as_ref().unwrap_or(newest), &mut report)?;
    let active = match early {
        // The sealed ones may have taken of its room.
        Some(active) => active.measured(&handles)?,
        None => opening.active(newest, &mut report)?,
    };
    remove_leftovers(disk.as_ref(), &inventory, &headers, &sealed.index_files)?;
    let mut list = sealed.segments;
    list.push(Arc::clone(&active.segment));
    let mut segments = Segments {
        list: list.into(),
        handles,
        seal: Checksum::of(log),
    };
    let recent = recent_ids(&mut segments, &headers, active.recent)?;
    let tail = Arc::new(active.tail);
    let sources = IndexSnapshot {
        index_files: sealed.index_files.into(),
        tails: [Arc::clone(&tail)].into(),
    };
    let decider = AppendValidator {
        next: active.next,
        recent,
    };
    Ok(Recovered {
        log,
        segments,
        sources,
        tail,
        decider,
        end: active.end,
        capacity: active.capacity,
        marked: inventory.marker,
        report,
    })
}

/// What the steps of an opening need.
struct Opening<'a> {
    handles: &'a Arc<FileCache>,
    inventory: &'a Inventory,
    headers: &'a [SegmentHeader],
    marker: Option<Marker>,
    options: &'a LogOptions,
}

impl Opening<'_> {
    /// Opens the sealed segments. What is derived from one is written only when the name of the segment behind it is durable.
    fn sealed(
        &self,
        newest: &SegmentHeader,
        report: &mut OpenReport,
    ) -> Result<SealedSegments, OpenError> {
        let (handles, inventory) = (self.handles, self.inventory);
        match sealed::open(handles, self.headers, inventory, report) {
            Err(error) if error.is_full() => {
                // Indexes that waited to be written when the process ended need room.
                remove_replaced(handles.disk().as_ref(), inventory)?;
                active::give_room_back(handles, newest)?;
                report.indexes_rebuilt = 0;
                Ok(sealed::open(handles, self.headers, inventory, report)?)
            }
            sealed => Ok(sealed?),
        }
    }

    fn active(&self, newest: &SegmentHeader, report: &mut OpenReport) -> Result<Active, OpenError> {
        let mut open = || {
            let (marker, options) = (self.marker, self.options);
            active::open(
                self.handles,
                newest,
                self.inventory,
                marker,
                options,
                report,
            )
        };
        match open() {
            Err(OpenError::Storage(error)) if error.is_full() => {
                // A generation that was left when a process ended holds the room of a segment.
                remove_replaced(self.handles.disk().as_ref(), self.inventory)?;
                open()
            }
            active => active,
        }
    }
}

fn create_log(
    disk: &Arc<dyn Disk>,
    handles: Arc<FileCache>,
    inventory: &Inventory,
    options: &LogOptions,
) -> Result<Recovered, OpenError> {
    if !inventory.is_empty() {
        let name = FileName::of(FileKind::Segment {
            first: Position::FIRST,
            generation: 0,
        });
        return Err(StorageError::corrupt(&name, 0, "the log's segments are missing").into());
    }
    for name in &inventory.leftovers {
        disk.remove(name)
            .map_err(|e| StorageError::io("remove", name, e))?;
    }
    let log = LogId(options.log_id.unwrap_or(*EventId::fresh().as_bytes()));
    let capacity = options.bytes_of_segment(0);
    create::segment(&handles, log, (Position::FIRST, 0), capacity, None)?;
    let header = SegmentHeader {
        log,
        generation: 0,
        first: Position::FIRST,
        erased: Erased::default(),
    };
    let segment = Segment::of(&header, active::empty_locations());
    let tail = Arc::new(MemIndex::new(Position::FIRST));
    Ok(Recovered {
        log,
        segments: Segments {
            list: [Arc::new(segment)].into(),
            handles,
            seal: Checksum::of(log),
        },
        sources: IndexSnapshot {
            index_files: [].into(),
            tails: [Arc::clone(&tail)].into(),
        },
        tail,
        decider: AppendValidator {
            next: Position::FIRST,
            recent: RecentIds::default(),
        },
        end: SEGMENT_HEADER_BYTES as u64,
        capacity,
        marked: false,
        report: OpenReport {
            clean: true,
            ..OpenReport::default()
        },
    })
}

/// Reads the headers of all segments, and checks that they are of one log and begin with its first position.
fn read_headers(
    handles: &FileCache,
    inventory: &Inventory,
    (first, generation): (Position, u32),
) -> Result<Vec<SegmentHeader>, OpenError> {
    let log = read_header(handles, first, generation)?.log;
    let mut headers = Vec::with_capacity(inventory.segments.len());
    for (&first, &generation) in &inventory.segments {
        let other = read_header(handles, first, generation)?;
        if other.log != log || other.first != first || other.generation != generation {
            let name = FileName::of(FileKind::Segment { first, generation });
            return Err(StorageError::corrupt(
                &name,
                0,
                "the segment belongs to another place or log",
            )
            .into());
        }
        headers.push(other);
    }
    if first != Position::FIRST {
        let name = FileName::of(FileKind::Segment { first, generation });
        let what = format!("the segments before position {first} are missing");
        return Err(StorageError::corrupt(&name, 0, what).into());
    }
    Ok(headers)
}

/// Reads and checks the header of a segment.
pub(crate) fn read_header(
    handles: &FileCache,
    first: Position,
    generation: u32,
) -> Result<SegmentHeader, OpenError> {
    let name = FileName::of(FileKind::Segment { first, generation });
    let file = handles.get(&name)?;
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let size = file
        .size()
        .map_err(|e| StorageError::io("measure", &name, e))?;
    if size < SEGMENT_HEADER_BYTES as u64 {
        return Err(StorageError::corrupt(&name, size, "the file is cut short").into());
    }
    file.read_exact_at(&mut bytes, 0)
        .map_err(|e| StorageError::io("read", &name, e))?;
    SegmentHeader::decode(&bytes).map_err(|error| match error {
        HeaderError::NewerFormat(found) => OpenError::NewerFormat {
            file: name,
            found,
            newest: FORMAT,
        },
        HeaderError::Malformed(malformed) => StorageError::corrupt(&name, 0, malformed.what).into(),
    })
}

/// Removes what is never read before anything is written: half-written files and the spare. On a full disk their space is
/// what recovery needs.
fn remove_unneeded(disk: &dyn Disk, inventory: &Inventory) -> Result<(), StorageError> {
    for name in inventory.leftovers.iter().filter(|name| name.is_unneeded()) {
        remove_if_there(disk, name)?;
    }
    Ok(())
}

/// Removes generations of segments that a later one took the place of. On a full disk their space is what recovery needs.
fn remove_replaced(disk: &dyn Disk, inventory: &Inventory) -> Result<(), StorageError> {
    for name in inventory
        .leftovers
        .iter()
        .filter(|name| !name.is_unneeded())
    {
        remove_if_there(disk, name)?;
    }
    Ok(())
}

fn remove_if_there(disk: &dyn Disk, name: &FileName) -> Result<(), StorageError> {
    match disk.remove(name) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StorageError::io("remove", name, error))
        }
        _ => Ok(()),
    }
}

/// Removes what is not needed any more: replaced generations and their locations, indexes that others cover.
fn remove_leftovers(
    disk: &dyn Disk,
    inventory: &Inventory,
    headers: &[SegmentHeader],
    used: &[Arc<IndexFile>],
) -> Result<(), OpenError> {
    let covered = inventory.indexes.iter().filter(|&&(first, last)| {
        !used
            .iter()
            .any(|index_file| (index_file.first(), index_file.last()) == (first, last))
    });
    let covered = covered.map(|&(first, last)| FileName::of(FileKind::Index { first, last }));
    let located =
        |of: &SegmentHeader| FileName::of(locations::kind(of.first, of.generation, of.erased));
    let located: HashSet<FileName> = headers.iter().map(located).collect();
    let replaced = inventory
        .locations
        .iter()
        .filter(|&name| !located.contains(name));
    let leftovers = inventory.leftovers.iter().chain(replaced).copied();
    for name in leftovers.chain(covered) {
        remove_if_there(disk, &name)?;
    }
    Ok(())
}

/// The newest events by id: those of the newest segment, and as many before it as are missing to a full window and
/// lie within a bounded number of bytes. Locations that turn out to be damaged are rebuilt.
fn recent_ids(
    segments: &mut Segments,
    headers: &[SegmentHeader],
    of_active: VecDeque<active::Recent>,
) -> Result<RecentIds, StorageError> {
    let mut recent = RecentIds::default();
    if planted::is(Planted::RecentIdsForgotten) {
        return Ok(recent);
    }
    let older = loop {
        match older_ids(segments, headers, of_active.len()) {
            Err(error) if error.is_corruption() => {
                rebuild_damaged_locations(segments, headers, error)?
            }
            older => break older?,
        }
    };
    for event in older.into_iter().rev().chain(of_active) {
        let id = std::iter::once(event.id);
        recent.push(event.position, &event.stream, event.revision, id);
    }
    Ok(recent)
}

/// Rebuilds the locations of the segment whose locations were found to be damaged; the error, if it is about anything else.
fn rebuild_damaged_locations(
    segments: &mut Segments,
    headers: &[SegmentHeader],
    error: StorageError,
) -> Result<(), StorageError> {
    let mut list = segments.list.to_vec();
    let is_damaged = |s: &Arc<Segment>| s.has_damaged_locations.load(Ordering::Acquire);
    let at = list.iter().position(is_damaged);
    let (Some(segment), Some(header)) = (
        at.and_then(|at| list.get_mut(at)),
        at.and_then(|at| headers.get(at)),
    ) else {
        return Err(error);
    };
    (*segment, _) = sealed::rebuild(&segments.handles, header, None)?;
    segments.list = list.into();
    Ok(())
}

/// Events before the newest segment, newest first.
fn older_ids(
    segments: &Segments,
    headers: &[SegmentHeader],
    of_active: usize,
) -> Result<Vec<active::Recent>, StorageError> {
    const BYTES_MAX: u64 = 64 * 1024 * 1024;
    const CHUNK_EVENTS: u64 = 4_096;
    /// Bytes that are read at once, one event more or less.
    const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
    let active_first = headers
        .last()
        .map_or(Position::FIRST, |newest| newest.first);
    let missing = RECENT_IDS.saturating_sub(of_active) as u64;
    let oldest = active_first.get().saturating_sub(missing).max(1);
    let (mut older, mut end, mut bytes) = (Vec::new(), active_first.get(), 0);
    let mut buffer = Vec::new();
    while end > oldest && bytes < BYTES_MAX {
        let from = end.saturating_sub(CHUNK_EVENTS).max(oldest);
        let positions: Vec<Position> = (from..end).rev().map(Position::new).collect();
        let fetched = segments.fetch(&positions, CHUNK_BYTES, buffer)?;
        let Some(last) = fetched.last() else { break };
        for event in fetched.refs() {
            older.push(active::Recent::of(&event?)?);
        }
        buffer = fetched.into_buffer();
        bytes += buffer.len() as u64;
        end = last.get();
    }
    Ok(older)
}
