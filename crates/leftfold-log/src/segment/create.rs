//! Making a segment file.
//!
//! **Owns:** the order in which a new segment comes to be. **Does not know:** when one is needed.
//! **Invariants:** a segment gets its name only after its header and its length are durable and there is room for all
//! of it; it is used only after its name is.
//!
//! A sync is cheapest where zeros were written before, for then it changes no metadata. Room can be reserved at once;
//! zeros are written into the spare bit by bit, when there is nothing better to do.

use std::sync::Arc;

use leftfold_model::Position;

use crate::{
    disk::{Disk, DiskFile, FileKind, FileName},
    error::StorageError,
    planted::{self, Planted},
    record::{
        LogId,
        header::{Erased, SEGMENT_HEADER_BYTES, SegmentHeader},
    },
};

/// Zeros written and synced at once: a sync of an append that comes meanwhile waits for no more than these.
const ZEROS: &[u8] = &[0; 512 * 1024];

/// Creates a file with room for `bytes` under a temporary name.
fn reserved(
    disk: &dyn Disk,
    name: &FileName,
    bytes: u64,
) -> Result<Arc<dyn DiskFile>, StorageError> {
    let file = match disk.create(name) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(name)
                .map_err(|e| StorageError::io("remove", name, e))?;
            disk.create(name)
        }
        created => created,
    };
    let file = file.map_err(|e| StorageError::io("create", name, e))?;
    if let Err(error) = file.reserve(bytes) {
        // Gives the space back, so that the log can go on when there is room again.
        drop(file);
        let _ = disk.remove(name);
        return Err(StorageError::io("write", name, error));
    }
    Ok(file)
}

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
    pub(crate) fn prepare(disk: &dyn Disk, bytes: u64) -> Result<Self, StorageError> {
        let (name, temporary) = (
            FileName::of(FileKind::Spare),
            FileName::temporary(FileKind::Spare),
        );
        let file = reserved(disk, &temporary, bytes)?;
        disk.rename(&temporary, &name)
            .map_err(|e| StorageError::io("rename", &temporary, e))?;
        Ok(Self {
            file,
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

/// Turns the spare into a segment, or makes one if there is none.
pub(crate) fn segment(
    disk: &dyn Disk,
    log: LogId,
    (first, generation): (Position, u32),
    bytes: u64,
    spare: Option<PreallocatedSegment>,
) -> Result<FileName, StorageError> {
    let kind = FileKind::Segment { first, generation };
    let (name, temporary) = (FileName::of(kind), FileName::temporary(kind));
    let (file, from) = match spare {
        Some(spare) => (spare.file, FileName::of(FileKind::Spare)),
        None => (reserved(disk, &temporary, bytes)?, temporary),
    };
    let header = SegmentHeader {
        log,
        generation,
        first,
        erased: Erased::default(),
    }
    .encode();
    file.write_all_at(&header, 0)
        .map_err(|e| StorageError::io("write", &from, e))?;
    file.sync_data()
        .map_err(|e| StorageError::io("sync", &from, e))?;
    disk.rename(&from, &name)
        .map_err(|e| StorageError::io("rename", &from, e))?;
    if !planted::is(Planted::NoDirectorySyncAtRoll) {
        disk.sync_dir()
            .map_err(|e| StorageError::directory("sync", e))?;
    }
    Ok(name)
}

/// Writes `frames` (the bytes behind the header) into the generation of a segment with this header, and puts it in place.
///
/// What a failed sync left in the system's cache is not on disk, and a later sync does not bring it there: only
/// bytes written anew are known to be durable (docs/durability.md).
pub(crate) fn copy(
    disk: &dyn Disk,
    header: &SegmentHeader,
    frames: &[u8],
    bytes: u64,
) -> Result<FileName, StorageError> {
    let kind = FileKind::Segment {
        first: header.first,
        generation: header.generation,
    };
    let (name, temporary) = (FileName::of(kind), FileName::temporary(kind));
    let file = disk
        .create(&temporary)
        .map_err(|e| StorageError::io("create", &temporary, e))?;
    let header = header.encode();
    let io = |operation, e| StorageError::io(operation, &temporary, e);
    file.write_all_at(&header, 0).map_err(|e| io("write", e))?;
    file.write_all_at(frames, SEGMENT_HEADER_BYTES as u64)
        .map_err(|e| io("write", e))?;
    let written = (SEGMENT_HEADER_BYTES + frames.len()) as u64;
    if !planted::is(Planted::CopyNotSynced) {
        let reserved = file.reserve(bytes.max(written));
        reserved.map_err(|e| io("write", e))?;
        file.sync_data().map_err(|e| io("sync", e))?;
    }
    disk.rename(&temporary, &name)
        .map_err(|e| StorageError::io("rename", &temporary, e))?;
    if !planted::is(Planted::CopyNameNotSynced) {
        disk.sync_dir()
            .map_err(|e| StorageError::directory("sync", e))?;
    }
    Ok(name)
}
