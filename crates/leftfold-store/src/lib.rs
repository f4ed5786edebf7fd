//! The contract every Leftfold store fulfils, two stores that fulfil it, and the suite that checks it.
//!
//! **Owns:** [`EventStore`], its errors, [`MemoryStore`], and keeping snapshots.
//! **Does not know:** wires, SQL, aggregates, runtimes beyond tokio's channels and blocking pool.
//! **Invariants:** a rule about streams is decided below this trait, once per store, and checked by the
//! conformance suite against every store; a difference between stores is a bug or a [`Capabilities`] entry.
//! **Reading order:** [`EventStore`], [`AppendError`], [`ReadError`], [`MemoryStore`].

mod backend;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
#[cfg(feature = "engine")]
mod embedded;
mod error;
mod memory;
mod retention;
#[cfg(feature = "engine")]
mod snapshot_file;
mod snapshots;

pub use backend::{AppendTransaction, Backend, Truncation};
pub use contract::{
    Capabilities, Delivery, EventStore, ListStreams, ReadBatch, StoreStats, StreamInfo,
    Subscription,
};
#[cfg(feature = "engine")]
pub use embedded::{EmbeddedBackend, EmbeddedStore};
pub use error::{AppendError, Cause, ReadError};
#[cfg(feature = "engine")]
pub use leftfold_log::{LogOptions, OpenError};
pub use memory::{MemoryBackend, MemoryStore};
pub use retention::{
    Delete, RetentionStore, Scavenge, ScavengeProgress, StreamMetadata, StreamState, StreamStatus,
    append_in_transaction,
};
pub use snapshots::{MemorySnapshotStore, SavedSnapshot, SnapshotError, SnapshotStore};
