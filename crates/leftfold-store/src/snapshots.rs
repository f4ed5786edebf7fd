//! Snapshots: a saved state per stream, to begin loads with.
//!
//! **Owns:** the contract [`SnapshotStore`], and storing snapshots in memory. **Does not know:** what a state is.
//! **Invariants:** a snapshot is derived from the log, so losing one costs time only; of two for one stream and fingerprint the
//! newer one stays; each stream has one, so their number is bounded by that of the streams.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use leftfold_model::{EventId, Position, Revision, StreamName};

use crate::Cause;

/// A state as it was after an event of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SavedSnapshot {
    /// The revision of the last event in it.
    pub revision: Revision,
    /// The position of that event.
    pub position: Position,
    /// The id of that event. A load verifies that the stream holds this event at that revision.
    pub last_event: EventId,
    /// What kind of state this is, down to its fields: a program believes only its own.
    pub fingerprint: [u8; 16],
    /// The state.
    pub state: Bytes,
}

impl SavedSnapshot {
    /// Whether this one may take the place of `other`.
    pub(crate) fn replaces(&self, other: &Self) -> bool {
        self.fingerprint != other.fingerprint || self.revision > other.revision
    }
}

/// Keeps one snapshot per stream. Every store has one of these: [`crate::EventStore::snapshots`].
pub trait SnapshotStore: Debug + Send + Sync + 'static {
    /// The snapshot of a stream.
    ///
    /// # Errors
    /// [`SnapshotError`]; the caller does without.
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>>;

    /// Keeps a snapshot, unless there is one of the same fingerprint that is as new. May be lost in a crash.
    ///
    /// # Errors
    /// [`SnapshotError`]; the snapshot before it, if any, is still there.
    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>>;

    /// Forgets the snapshot of a stream, if there is one.
    ///
    /// # Errors
    /// [`SnapshotError`].
    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>>;
}

/// A snapshot could not be read or kept. The log is not affected.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// What was kept is damaged.
    #[error("snapshot of stream {stream} is damaged")]
    Damaged {
        /// The stream.
        stream: StreamName,
    },
    /// The caller's rights do not allow it.
    #[error("access denied: {reason}")]
    AccessDenied {
        /// Which right is missing, and for what.
        reason: String,
    },
    /// Snapshots cannot be read or kept now.
    #[error("snapshots are unavailable")]
    Unavailable {
        /// The store's own error.
        #[source]
        cause: Cause,
    },
}

/// Snapshots in memory.
#[derive(Debug, Default)]
pub struct MemorySnapshotStore {
    snapshots: Mutex<HashMap<StreamName, SavedSnapshot>>,
}

impl MemorySnapshotStore {
    fn snapshots(&self) -> MutexGuard<'_, HashMap<StreamName, SavedSnapshot>> {
        self.snapshots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotStore for MemorySnapshotStore {
    fn load<'a>(
        &'a self,
        stream: &'a StreamName,
    ) -> BoxFuture<'a, Result<Option<SavedSnapshot>, SnapshotError>> {
        Box::pin(async { Ok(self.snapshots().get(stream).cloned()) })
    }

    fn save<'a>(
        &'a self,
        stream: &'a StreamName,
        snapshot: SavedSnapshot,
    ) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async move {
            let mut snapshots = self.snapshots();
            let newer = snapshots
                .get(stream)
                .is_none_or(|before| snapshot.replaces(before));
            if newer {
                snapshots.insert(stream.clone(), snapshot);
            }
            Ok(())
        })
    }

    fn remove<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, Result<(), SnapshotError>> {
        Box::pin(async {
            self.snapshots().remove(stream);
            Ok(())
        })
    }
}
