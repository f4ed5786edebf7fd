//! Caches between reads: open files, and verified blocks.
//!
//! **Owns:** [`FileCache`] and [`BlockCache`]. **Does not know:** what files hold.
//! **Invariants:** both are bounded: the first in descriptors, the second in bytes.

mod block_cache;
mod file_cache;

pub(crate) use block_cache::{BlockCache, FileId};
pub(crate) use file_cache::{FileCache, PinnedFile};
