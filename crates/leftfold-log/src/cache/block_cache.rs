//! A bounded cache of verified blocks of index and locations files.
//!
//! **Owns:** [`BlockCache`]. **Does not know:** what a block holds, where files lie.
//! **Invariants:** a block enters the cache only after its checksum was verified; it belongs to an open file, not to a name,
//! so a file that replaces another never sees the other's blocks; memory stays within the bound, approximately.
//!
//! The system's page cache keeps the same bytes. This cache saves the system call, the copy and the checksum, which together
//! cost more than the use of the block.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use quick_cache::{Weighter, sync::Cache};

use crate::{error::StorageError, nowait};

/// About the size of a block.
const BLOCK_BYTES: usize = 4_096;
/// Memory of a cached block beside its bytes.
const ENTRY_BYTES: u64 = 96;
/// Steps of finding a block and decoding what is looked for in it.
const STEPS: u32 = 8;

/// A bounded number of blocks of any number of files.
#[derive(Debug)]
pub(crate) struct BlockCache {
    cache: Cache<(FileId, u64), Arc<[u8]>, ByBytes>,
    files: AtomicU64,
}

/// A file, for as long as it is open.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct FileId(u64);

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<(FileId, u64), Arc<[u8]>> for ByBytes {
    fn weight(&self, _: &(FileId, u64), block: &Arc<[u8]>) -> u64 {
        block.len() as u64 + ENTRY_BYTES
    }
}

impl BlockCache {
    /// Creates a cache of about this many bytes.
    pub(crate) fn with_bytes(bytes: usize) -> Self {
        let blocks = (bytes / BLOCK_BYTES).max(1);
        Self {
            cache: Cache::with_weighter(blocks, bytes as u64, ByBytes),
            files: AtomicU64::new(0),
        }
    }

    /// Creates an id for a file that was opened.
    pub(crate) fn file(&self) -> FileId {
        FileId(self.files.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the block at this offset of the file; `read` reads and verifies it if it is not cached.
    pub(crate) fn get(
        &self,
        file: FileId,
        offset: u64,
        read: impl FnOnce() -> Result<Vec<u8>, StorageError>,
    ) -> Result<Arc<[u8]>, StorageError> {
        nowait::charge(STEPS)?;
        if let Some(block) = self.find(file, offset) {
            return Ok(block);
        }
        let block: Arc<[u8]> = read()?.into();
        self.cache.insert((file, offset), Arc::clone(&block));
        Ok(block)
    }

    /// Returns the block at this offset of the file, if it is cached.
    pub(crate) fn find(&self, file: FileId, offset: u64) -> Option<Arc<[u8]>> {
        self.cache.get(&(file, offset))
    }
}
