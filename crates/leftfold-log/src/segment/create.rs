//! Creating a segment file.
//!
//! **Owns:** the order of steps that create a segment. **Does not know:** when one is needed.
//! **Invariants:** a segment gets its name only after its header and its length are durable and its space is reserved; it is
//! used only after its name is durable.
//!
//! A sync is cheapest where zeros were written before, because it changes no metadata then. Reserving space is one call. Zeros
//! are written into the preallocated segment in small steps while the log is idle.

use std::sync::Arc;

use leftfold_model::Position;

use crate::{
    atomic_file::sync_dir,
    cache::FileCache,
    disk::{DiskFile, FileKind, FileName},
    error::StorageError,
    planted::{self, Planted},
    record::{
        LogId,
        header::{Erased, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
};

/// Zeros written and synced at once: a sync of an append that comes meanwhile waits for no more than these.
const ZEROS: &[u8] = &[0; 512 * 1024];

/// A file that will become a segment.
#[derive(Debug)]
pub(crate) struct PreallocatedSegment {
    file: Arc<dyn DiskFile>,
    pub(crate) bytes: u64,
    /// Zeros were written up to here.
    zeros: u64,
}

impl PreallocatedSegment {
    /// Makes a spare of this many bytes.
    pub(crate) fn prepare(files: &FileCache, bytes: u64) -> Result<Self, StorageError> {
        let spare = files.create(FileKind::Spare)?;
        spare.reserve(bytes)?;
        Ok(Self {
            file: spare.rename()?,
            bytes,
            zeros: 0,
        })
    }

    /// Writes some more zeros; `false`: they are all there.
    pub(crate) fn fill(&mut self) -> Result<bool, StorageError> {
        let count = usize::try_from(self.bytes - self.zeros).unwrap_or(usize::MAX);
        let zeros = ZEROS.get(..count.min(ZEROS.len())).unwrap_or_default();
        if zeros.is_empty() {
            return Ok(false);
        }
        let written = self.file.write_all_at(zeros, self.zeros);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|e| StorageError::io("write", &FileName::of(FileKind::Spare), e))?;
        self.zeros += zeros.len() as u64;
        Ok(true)
    }
}

/// Lengthens an empty segment.
pub(crate) fn lengthen(
    file: &dyn DiskFile,
    name: &FileName,
    bytes: u64,
) -> Result<(), StorageError> {
    let grown = file.reserve(bytes).and_then(|()| file.sync_data());
    grown.map_err(|e| StorageError::io("write", name, e))
}

/// Turns the spare into a segment, or makes one if there is none. Returns its file: no other descriptor is needed.
pub(crate) fn segment(
    files: &FileCache,
    log: LogId,
    (first, generation): (Position, u32),
    bytes: u64,
    spare: Option<PreallocatedSegment>,
) -> Result<Arc<dyn DiskFile>, StorageError> {
    let kind = FileKind::Segment { first, generation };
    let header = SegmentHeader {
        log,
        generation,
        first,
        erased: Erased::default(),
    }
    .encode();
    let file = match spare {
        Some(spare) => use_spare(files, spare, &header, kind)?,
        None => {
            let segment = files.create(kind)?;
            segment.reserve(bytes)?;
            segment.write_at(&header, 0)?;
            segment.sync()?;
            segment.rename()?
        }
    };
    if !planted::is(Planted::NoDirectorySyncAtRoll) {
        sync_dir(files.disk().as_ref())?;
    }
    Ok(file)
}

/// Writes the header into the spare and gives it the name of the segment. A spare of which that fails is removed: nothing else
/// would use the room it holds.
fn use_spare(
    files: &FileCache,
    spare: PreallocatedSegment,
    header: &[u8],
    kind: FileKind,
) -> Result<Arc<dyn DiskFile>, StorageError> {
    let from = FileName::of(FileKind::Spare);
    let failed = |operation| move |e| StorageError::io(operation, &from, e);
    let written = spare.file.write_all_at(header, 0).map_err(failed("write"));
    let synced = written.and_then(|()| spare.file.sync_data().map_err(failed("sync")));
    let renamed = synced.and_then(|()| {
        let renamed = files.disk().rename(&from, &FileName::of(kind));
        renamed.map_err(failed("rename"))
    });
    match renamed {
        Ok(()) => Ok(spare.file),
        Err(error) => {
            let _ = files.disk().remove(&from);
            Err(error)
        }
    }
}

/// Writes the frames of the segment `from`, up to the offset `end`, into the generation with this header, and puts it in place.
///
/// What a failed sync left in the system's cache is not on disk, and a later sync does not bring it there: only
/// bytes written again are known to be durable (docs/durability.md). On a full disk it reserves no more than it writes.
/// Returns how many bytes the file has.
pub(crate) fn copy(
    files: &FileCache,
    header: &SegmentHeader,
    (from, end): (&FileName, u64),
    bytes: u64,
) -> Result<u64, StorageError> {
    let kind = FileKind::Segment {
        first: header.first,
        generation: header.generation,
    };
    let segment = files.create(kind)?;
    segment.write_at(&header.encode(), 0)?;
    let start = SEGMENT_HEADER_BYTES as u64;
    segment.copy_from(files.get(from)?.as_ref(), from, start..end, start)?;
    let written = end.max(start);
    let mut capacity = bytes.max(written);
    if !planted::is(Planted::CopyNotSynced) {
        match segment.reserve(capacity) {
            Err(error) if error.is_full() => capacity = written,
            reserved => reserved?,
        }
        segment.sync()?;
    }
    segment.rename()?;
    if !planted::is(Planted::CopyNameNotSynced) {
        sync_dir(files.disk().as_ref())?;
    }
    Ok(capacity)
}
