//! Files that appear whole, or not at all.
//!
//! **Owns:** [`AtomicFile`]: write under a temporary name, sync, rename, sync the directory; remove on failure.
//! **Does not know:** what the file holds.
//! **Invariants:** a file gets its final name only by [`AtomicFile::rename`] or [`AtomicFile::persist`]; a temporary file
//! that was not renamed is removed when its value is dropped, so a failed attempt keeps no space.

use std::{io, ops::Range, sync::Arc};

use crate::{
    disk::{Disk, DiskFile, FileKind, FileName},
    error::StorageError,
};

/// Bytes that are copied at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file under construction.
#[derive(Debug)]
pub(crate) struct AtomicFile<'a> {
    disk: &'a dyn Disk,
    temporary: FileName,
    file: Arc<dyn DiskFile>,
    is_renamed: bool,
}

impl<'a> AtomicFile<'a> {
    /// Creates the temporary file; removes one that an earlier attempt left behind.
    pub(crate) fn create(disk: &'a dyn Disk, kind: FileKind) -> Result<Self, StorageError> {
        let temporary = FileName::temporary(kind);
        let created = match disk.create(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let removed = disk.remove(&temporary);
                removed.map_err(|e| StorageError::io("remove", &temporary, e))?;
                disk.create(&temporary)
            }
            created => created,
        };
        Ok(Self {
            disk,
            temporary,
            file: created.map_err(|e| StorageError::io("create", &temporary, e))?,
            is_renamed: false,
        })
    }

    /// Writes `bytes` at byte `at`.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> Result<(), StorageError> {
        let written = self.file.write_all_at(bytes, at);
        written.map_err(|e| StorageError::io("write", &self.temporary, e))
    }

    /// Copies the bytes `range` of another file to byte `at` on, piece by piece. Pieces of zeros are not written, but the last
    /// one: a file that was extended without being written is as small when it is copied.
    pub(crate) fn copy_from(
        &self,
        file: &dyn DiskFile,
        name: &FileName,
        range: Range<u64>,
        at: u64,
    ) -> Result<(), StorageError> {
        let mut piece = Vec::new();
        let mut from = range.start;
        while from < range.end {
            let count = usize::try_from(range.end - from).unwrap_or(usize::MAX);
            piece.resize(count.min(PIECE_BYTES), 0);
            let read = file.read_exact_at(&mut piece, from);
            read.map_err(|e| StorageError::io("read", name, e))?;
            let is_last = count <= PIECE_BYTES;
            if is_last || piece.iter().any(|&byte| byte != 0) {
                self.write_at(&piece, at + (from - range.start))?;
            }
            from += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes the file at least `bytes` long and reserves the space for that.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), StorageError> {
        let reserved = self.file.reserve(bytes);
        reserved.map_err(|e| StorageError::io("write", &self.temporary, e))
    }

    /// Makes the bytes durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let synced = self.file.sync_data();
        synced.map_err(|e| StorageError::io("sync", &self.temporary, e))
    }

    /// Gives the file its final name, replacing a file of that name. The name is not durable yet.
    pub(crate) fn rename(mut self) -> Result<Arc<dyn DiskFile>, StorageError> {
        let name = FileName::of(self.temporary.kind());
        let renamed = self.disk.rename(&self.temporary, &name);
        renamed.map_err(|e| StorageError::io("rename", &self.temporary, e))?;
        self.is_renamed = true;
        Ok(Arc::clone(&self.file))
    }

    /// Gives the file its final name and makes the name durable. The bytes must have been synced.
    pub(crate) fn persist(self) -> Result<Arc<dyn DiskFile>, StorageError> {
        let disk = self.disk;
        let file = self.rename()?;
        sync_dir(disk)?;
        Ok(file)
    }
}

impl Drop for AtomicFile<'_> {
    fn drop(&mut self) {
        if !self.is_renamed {
            // What cannot be removed now is removed by the next attempt, or by the next open.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}

/// Makes creations, renames and removals durable.
pub(crate) fn sync_dir(disk: &dyn Disk) -> Result<(), StorageError> {
    disk.sync_dir()
        .map_err(|e| StorageError::directory("sync", e))
}
