//! The contract every Leftfold store fulfils, two stores that fulfil it, and the suite that checks it.
//!
//! **Owns:** [`EventStore`], its errors, [`MemoryStore`], storing snapshots, [`consumers`] and [`keys`], and
//! [`TenantStore`].
//! **Does not know:** wire protocols, SQL, aggregates, runtimes beyond tokio's channels and blocking pool.
//! **Invariants:** a rule about streams is decided below this trait, once per store, and checked by the
//! conformance suite against every store; a difference between stores is a bug or a [`Capabilities`] entry.
//! **Reading order:** [`EventStore`], [`AppendError`], [`ReadError`], [`MemoryStore`].

mod backend;
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod consumers;
mod contract;
mod database_transaction;
#[cfg(feature = "engine")]
mod embedded;
mod error;
#[cfg(feature = "engine")]
mod full_disk;
pub mod keys;
mod memory;
#[cfg(feature = "engine")]
mod newer_tables;
pub mod restore;
mod retention;
#[cfg(feature = "engine")]
mod snapshot_file;
mod snapshots;
mod tenant;
mod unknown_outcomes;

pub use backend::{AppendTransaction, Backend, ErasedEvent, LogEntry, Truncation};
pub use contract::{
    Capabilities, DELETED_STREAM_TRUNCATE_BEFORE, Delete, Delivery, EventStore, ListStreams,
    METADATA_EVENT_TYPE, ReadBatch, Scavenge, ScavengeProgress, StoreStats, StreamInfo,
    StreamMetadata, StreamState, StreamStatus, Subscription, TOMBSTONE_EVENT_TYPE,
};
pub use database_transaction::{
    DatabaseRows, DatabaseTransaction, DatabaseValue, LogEnd, StatementError, TransactionAppender,
};
#[cfg(feature = "engine")]
pub use embedded::{EmbeddedBackend, EmbeddedStore};
pub use error::{AppendError, Cause, ReadError};
#[cfg(feature = "engine")]
pub use leftfold_log::{LogOptions, OpenError, disk::real::refuse_within_log};
pub use leftfold_model::ErrorChain;
pub use memory::{MemoryBackend, MemoryStore};
pub use retention::{BackendStore, append_in_transaction};
pub use snapshots::{MemorySnapshotStore, SavedSnapshot, SnapshotError, SnapshotStore};
pub use tenant::{InvalidTenantName, TenantName, TenantStore};
pub use unknown_outcomes::{AppendAttempt, UnknownOutcomes};
