//! KurrentDB's wire: its published client, and the one generated from the same contract.
//!
//! **Owns:** [`Call`], what the rows ask on this wire. **Does not know:** how answers are timed.
//! **Invariants:** all appends of a value go through one call on one connection.

pub(crate) mod generated;
pub(crate) mod groups;
pub(crate) mod published;

use futures_util::future::BoxFuture;

/// A connection with a call for appends, many of which may be under way.
pub(crate) trait Call: Send + Sync + 'static {
    /// Appends so many events to this caller's stream. A caller waits before it appends again.
    fn append(&self, caller: u64, events: usize) -> BoxFuture<'_, anyhow::Result<()>>;
    /// Reads the whole log; answers how many events it has.
    fn read_all(&self) -> BoxFuture<'_, anyhow::Result<u64>>;
}
