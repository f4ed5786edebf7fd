//! What is kept of files between reads: open descriptors, and blocks that were checked.
//!
//! **Owns:** [`FileCache`] and [`BlockCache`]. **Does not know:** what files hold.
//! **Invariants:** both are bounded, the one in descriptors, the other in bytes.

mod block_cache;
mod file_cache;

pub(crate) use block_cache::{BlockCache, FileId};
pub(crate) use file_cache::FileCache;
