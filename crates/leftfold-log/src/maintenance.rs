//! The file operations of maintenance: sealing a segment, writing its index, merging index files.
//!
//! **Owns:** the order of writes within each step. **Does not know:** threads, views, or when a step is due.
//! **Invariants:** every step writes new files, syncs them, and only then removes old ones; a crash in a step loses nothing
//! but the step.

use std::sync::{Arc, PoisonError};

use crate::{
    cache::FileCache,
    disk::{FileKind, FileName},
    error::StorageError,
    index::{IndexFile, MemIndex, TailPostings, merge, write_index_file},
    record::LogId,
    segment::{Locations, Segment, locations},
};

/// Seals a segment: writes its locations file and truncates its file to its end.
pub(crate) fn seal(
    handles: &FileCache,
    log: LogId,
    segment: &Segment,
) -> Result<Arc<Segment>, StorageError> {
    let name = segment.name();
    let end = u64::from(segment.locations.end());
    let file = segment.file(handles)?;
    if file
        .size()
        .map_err(|e| StorageError::io("measure", &name, e))?
        > end
    {
        file.set_len(end)
            .map_err(|e| StorageError::io("cut", &name, e))?;
        file.sync_data()
            .map_err(|e| StorageError::io("sync", &name, e))?;
    }
    let sealed = match &segment.locations {
        Locations::File(sealed) => *sealed,
        Locations::Memory(growing) => {
            let growing = growing.read().unwrap_or_else(PoisonError::into_inner);
            locations::write(handles, &segment.header(log), &growing)?
        }
    };
    let header = segment.header(log);
    Ok(Arc::new(Segment::of(&header, Locations::File(sealed))))
}

/// Writes the index of a sealed segment and opens it.
pub(crate) fn flush_index(
    handles: &Arc<FileCache>,
    log: LogId,
    segment: &Segment,
    tail: &MemIndex,
) -> Result<Arc<IndexFile>, StorageError> {
    let range = (
        segment.first,
        segment
            .first
            .saturating_add(u64::from(segment.locations.count()))
            .previous(),
    );
    write_index_file(
        handles,
        log,
        range,
        &mut TailPostings::of(&tail.shards()),
        &|| true,
    )?;
    // A file of this name may have been open before.
    handles.forget(&FileName::of(FileKind::Index {
        first: range.0,
        last: range.1,
    }));
    Ok(Arc::new(IndexFile::open(handles, log, range)?))
}

/// Merges adjacent index files into one and opens it. The caller then drops the parts and removes their files. `None` if
/// there was nothing to merge, or `go_on` returned `false`.
pub(crate) fn merge_indexes(
    handles: &Arc<FileCache>,
    log: LogId,
    parts: &[Arc<IndexFile>],
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Arc<IndexFile>>, StorageError> {
    let (Some(oldest), Some(newest)) = (parts.first(), parts.last()) else {
        return Ok(None);
    };
    let range = (oldest.first(), newest.last());
    if merge(handles, log, parts, go_on)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(IndexFile::open(handles, log, range)?)))
}

/// Removes index files that a merge replaced. Views that still use them keep them open.
pub(crate) fn remove_merged(
    handles: &FileCache,
    parts: &[Arc<IndexFile>],
) -> Result<(), StorageError> {
    for part in parts {
        part.pin()?;
        let removed = handles.disk().remove(part.name());
        handles.forget(part.name());
        removed.map_err(|e| StorageError::io("remove", part.name(), e))?;
    }
    Ok(())
}
