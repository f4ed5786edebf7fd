//! Opening the older segments: their locations and their indexes, rebuilt where they are missing.
//!
//! **Owns:** the choice of index files, and the check that segments follow each other without a hole.
//! **Does not know:** the newest segment. **Invariants:** see [`super`]; cost is a few small reads per segment.

use std::sync::{Arc, RwLock};

use leftfold_model::Position;

use super::{OpenReport, active, inventory::Inventory};
use crate::{
    cache::FileCache,
    disk::{FileKind, FileName},
    error::StorageError,
    index::{IndexFile, MemIndex},
    maintenance,
    record::{Checksum, LogId, header::SegmentHeader},
    segment::{Locations, Segment, locations, scan::Scan},
};

/// The older segments and the index of their events.
#[derive(Debug)]
pub(crate) struct SealedSegments {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) index_files: Vec<Arc<IndexFile>>,
}

pub(crate) fn open(
    handles: &Arc<FileCache>,
    headers: &[SegmentHeader],
    inventory: &Inventory,
    report: &mut OpenReport,
) -> Result<SealedSegments, StorageError> {
    let mut older = SealedSegments {
        segments: Vec::new(),
        index_files: Vec::new(),
    };
    for pair in headers.windows(2) {
        let [header, SegmentHeader { first: next, .. }] = pair else {
            continue;
        };
        let range = (header.first, next.previous());
        let covered = older
            .index_files
            .last()
            .is_some_and(|index_file| index_file.last() >= range.1);
        let index = if covered {
            None
        } else {
            widest_index(handles, inventory, headers, header)?
        };
        let locations = stored_locations(handles, inventory, header, *next)?;
        match (locations, covered || index.is_some()) {
            (Some(locations), true) => {
                older
                    .segments
                    .push(Arc::new(Segment::of(header, locations)));
                older.index_files.extend(index);
            }
            (locations, indexed) => {
                report.indexes_rebuilt += 1;
                let (segment, tail) = rebuild(handles, header, locations)?;
                match index {
                    None if !indexed => {
                        older.index_files.push(maintenance::flush_index(
                            handles, header.log, &segment, &tail,
                        )?);
                    }
                    index => older.index_files.extend(index),
                }
                older.segments.push(segment);
            }
        }
        check_contiguous(older.segments.last(), *next)?;
    }
    Ok(older)
}

/// A segment must end right before the next one begins.
fn check_contiguous(segment: Option<&Arc<Segment>>, next: Position) -> Result<(), StorageError> {
    let Some(segment) = segment else {
        return Ok(());
    };
    let end = segment
        .first
        .saturating_add(u64::from(segment.locations.count()));
    if end == next {
        return Ok(());
    }
    let what = format!("the segment ends before position {end}, but the next one begins at {next}");
    Err(StorageError::corrupt(
        &segment.name(),
        u64::from(segment.locations.end()),
        what,
    ))
}

/// The locations file of a segment, if it is there, sound, and of all events up to the next segment.
fn stored_locations(
    handles: &Arc<FileCache>,
    inventory: &Inventory,
    header: &SegmentHeader,
    next: Position,
) -> Result<Option<Locations>, StorageError> {
    let kind = locations::kind(header.first, header.generation, header.erased);
    if !inventory.locations.contains(&FileName::of(kind)) {
        return Ok(None);
    }
    match locations::open(handles, header) {
        Ok(sealed) => {
            let is_whole = header.first.saturating_add(u64::from(sealed.count)) == next;
            Ok(is_whole.then_some(Locations::File(sealed)))
        }
        Err(error) if error.is_corruption() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The sound index file that begins at `first`, ends where a segment does, and covers the most.
fn widest_index(
    handles: &Arc<FileCache>,
    inventory: &Inventory,
    headers: &[SegmentHeader],
    of: &SegmentHeader,
) -> Result<Option<Arc<IndexFile>>, StorageError> {
    let (first, log): (Position, LogId) = (of.first, of.log);
    let ends_a_segment = |last: Position| headers.iter().any(|of| of.first == last.next());
    // Sorted by first, the widest of each first.
    let candidates = inventory
        .indexes
        .iter()
        .filter(|&&(from, last)| from == first && ends_a_segment(last));
    for &range in candidates {
        match IndexFile::open(handles, log, range) {
            Ok(file) => return Ok(Some(Arc::new(file))),
            // Only damage is a reason to rebuild: anything else may pass, and the file is good.
            Err(error) if error.is_corruption() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Rebuilds the locations of a segment, and its index in memory, from its frames.
pub(super) fn rebuild(
    handles: &Arc<FileCache>,
    header: &SegmentHeader,
    stored: Option<Locations>,
) -> Result<(Arc<Segment>, MemIndex), StorageError> {
    let (first, generation, log) = (header.first, header.generation, header.log);
    let name = FileName::of(FileKind::Segment { first, generation });
    let file = handles.get(&name)?;
    let mut scan = Scan::of(file.as_ref(), name, Checksum::of(log), first)?;
    let gathered = active::scan_segment(&mut scan, &name, first, &mut |_| Ok(()))?;
    let data_end = scan.end_of_data(gathered.end)?;
    if data_end > gathered.end || gathered.growing.offsets.is_empty() {
        return Err(StorageError::corrupt(&name, gathered.end, gathered.why));
    }
    gathered.check_erased(&name, header)?;
    let kind = locations::kind(first, generation, header.erased);
    handles.forget(&FileName::of(kind));
    let locations = Locations::Memory(Arc::new(RwLock::new(gathered.growing)));
    let locations = stored
        .filter(|stored| stored.count() == locations.count())
        .unwrap_or(locations);
    Ok((
        maintenance::seal(handles, log, &Segment::of(header, locations))?,
        gathered.tail,
    ))
}
