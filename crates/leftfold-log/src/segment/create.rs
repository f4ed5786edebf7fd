//! Making a segment file.
//!
//! **Owns:** the order in which a new segment comes to be. **Does not know:** when one is needed.
//! **Invariants:** a segment gets its name only after its header and all of its zeros are durable; it is used only
//! after its name is.

use std::sync::Arc;

use leftfold_model::Position;

use crate::{
    disk::{Disk, DiskFile, FileKind, FileName},
    error::StorageError,
    planted::{self, Planted},
    record::{
        LogId,
        header::{SEGMENT_HEADER_BYTES, SegmentHeader},
    },
};

/// Zeros written at once.
const ZEROS: &[u8] = &[0; 256 * 1024];

/// Creates a file of zeros under a temporary name, durable but for its name.
fn zeros(disk: &dyn Disk, name: &FileName, bytes: u64) -> Result<Arc<dyn DiskFile>, StorageError> {
    let file = match disk.create(name) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(name)
                .map_err(|e| StorageError::io("remove", name, e))?;
            disk.create(name)
        }
        created => created,
    };
    let file = file.map_err(|e| StorageError::io("create", name, e))?;
    if let Err(error) = fill(&*file, 0, bytes) {
        // Gives the space back, so that the log can go on when there is room again.
        drop(file);
        let _ = disk.remove(name);
        return Err(StorageError::io("write", name, error));
    }
    Ok(file)
}

/// Overwrites a range by zeros and makes them durable.
fn fill(file: &dyn DiskFile, from: u64, to: u64) -> std::io::Result<()> {
    let mut at = from;
    while at < to {
        let count = usize::try_from(to - at)
            .unwrap_or(usize::MAX)
            .min(ZEROS.len());
        file.write_all_at(ZEROS.get(..count).unwrap_or_default(), at)?;
        at += count as u64;
    }
    file.sync_data()
}

/// Lengthens an empty segment by zeros.
pub(crate) fn lengthen(
    file: &dyn DiskFile,
    name: &FileName,
    from: u64,
    to: u64,
) -> Result<(), StorageError> {
    fill(file, from, to).map_err(|e| StorageError::io("write", name, e))
}

/// Prepares the file of a future segment, under a temporary name.
pub(crate) fn prepare_spare(disk: &dyn Disk, bytes: u64) -> Result<(), StorageError> {
    zeros(disk, &FileName::temporary(FileKind::Spare), bytes).map(drop)
}

/// Makes the prepared file the spare. Not while the spare is being turned into a segment.
pub(crate) fn name_spare(disk: &dyn Disk) -> Result<(), StorageError> {
    let temporary = FileName::temporary(FileKind::Spare);
    let renamed = disk.rename(&temporary, &FileName::of(FileKind::Spare));
    renamed.map_err(|e| StorageError::io("rename", &temporary, e))
}

/// Turns the spare file into a segment, or makes a segment if there is no spare or it is too short.
pub(crate) fn segment(
    disk: &dyn Disk,
    log: LogId,
    (first, generation): (Position, u32),
    bytes: u64,
    spare: bool,
) -> Result<FileName, StorageError> {
    let kind = FileKind::Segment { first, generation };
    let (name, temporary) = (FileName::of(kind), FileName::temporary(kind));
    let (file, from) = if spare {
        let from = FileName::of(FileKind::Spare);
        (
            disk.open(&from)
                .map_err(|e| StorageError::io("open", &from, e))?,
            from,
        )
    } else {
        (zeros(disk, &temporary, bytes)?, temporary)
    };
    let header = SegmentHeader {
        log,
        generation,
        first,
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

/// Writes `frames` (the bytes behind the header) into a new generation of a segment, and puts it in place.
///
/// What a failed sync left in the system's cache is not on disk, and a later sync does not bring it there: only
/// bytes written anew are known to be durable (docs/durability.md).
pub(crate) fn copy(
    disk: &dyn Disk,
    log: LogId,
    (first, generation): (Position, u32),
    frames: &[u8],
    bytes: u64,
) -> Result<FileName, StorageError> {
    let kind = FileKind::Segment { first, generation };
    let (name, temporary) = (FileName::of(kind), FileName::temporary(kind));
    let file = disk
        .create(&temporary)
        .map_err(|e| StorageError::io("create", &temporary, e))?;
    let header = SegmentHeader {
        log,
        generation,
        first,
    }
    .encode();
    let io = |operation, e| StorageError::io(operation, &temporary, e);
    file.write_all_at(&header, 0).map_err(|e| io("write", e))?;
    file.write_all_at(frames, SEGMENT_HEADER_BYTES as u64)
        .map_err(|e| io("write", e))?;
    let written = (SEGMENT_HEADER_BYTES + frames.len()) as u64;
    if !planted::is(Planted::CopyNotSynced) {
        fill(&*file, written, bytes.max(written)).map_err(|e| io("write", e))?;
    }
    disk.rename(&temporary, &name)
        .map_err(|e| StorageError::io("rename", &temporary, e))?;
    if !planted::is(Planted::CopyNameNotSynced) {
        disk.sync_dir()
            .map_err(|e| StorageError::directory("sync", e))?;
    }
    Ok(name)
}
