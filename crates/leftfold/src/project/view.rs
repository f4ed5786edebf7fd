//! What a projection needs of the place where it writes.
//!
//! **Owns:** [`View`] and its values. **Does not know:** any kind of storage.
//! **Invariants:** one transaction at a time writes a version of a projection; what is read of its checkpoint holds until
//! that transaction ends; at most one version of a projection is active.

use std::{collections::BTreeSet, fmt, future::Future, sync::Arc};

use leftfold_model::{ErrorChain, EventId, Position};
use leftfold_store::consumers::ParkedEvent;

/// One version of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectionId {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: u32,
}

impl fmt::Display for ProjectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.name, self.version)
    }
}

impl ProjectionId {
    /// Returns the name of a table of this version.
    pub(super) fn table(&self, table: &str) -> String {
        format!("{table}_v{}", self.version)
    }
}

/// Where projections write: tables of a database, or values in memory.
///
/// A transaction holds a lock on the version of the projection, from [`Self::begin`] to its end. That makes several processes
/// take turns, and lets none write behind a checkpoint that another one moved.
pub trait View: Send + Sync + 'static {
    /// What a projection writes through.
    type Transaction: Send;

    /// Begins a transaction of a version, which is noted if it is not known yet.
    ///
    /// # Errors
    /// [`ViewError`]. It is tried again.
    fn begin(
        &self,
        of: ProjectionId,
    ) -> impl Future<Output = Result<(Self::Transaction, ViewCheckpoint), ViewError>> + Send;

    /// Commits a transaction and the changes of the checkpoint with it.
    ///
    /// # Errors
    /// [`ViewError`]. Whether anything was written is not known then; the next transaction tells.
    fn commit(
        &self,
        of: ProjectionId,
        transaction: Self::Transaction,
        changes: ViewChanges,
    ) -> impl Future<Output = Result<(), ViewError>> + Send;

    /// Takes back what a transaction wrote.
    fn roll_back(&self, transaction: Self::Transaction) -> impl Future<Output = ()> + Send;

    /// Looks up under the lock of a transaction whether an event is parked.
    ///
    /// # Errors
    /// [`ViewError`].
    fn is_parked(
        &self,
        of: ProjectionId,
        transaction: &mut Self::Transaction,
        position: Position,
    ) -> impl Future<Output = Result<bool, ViewError>> + Send;

    /// Lists the parked events of a version behind a position, the lowest first, at most
    /// [`LIST_MAX`](leftfold_store::consumers::LIST_MAX).
    ///
    /// # Errors
    /// [`ViewError`].
    fn parked(
        &self,
        of: ProjectionId,
        after: Position,
    ) -> impl Future<Output = Result<Vec<ParkedEvent>, ViewError>> + Send;

    /// Lists the known versions of a projection, the lowest first.
    ///
    /// # Errors
    /// [`ViewError`].
    fn versions(
        &self,
        name: &'static str,
    ) -> impl Future<Output = Result<Vec<VersionStatus>, ViewError>> + Send;

    /// Removes a version that is not active, with all it wrote. One that is not known is no error.
    ///
    /// # Errors
    /// [`ViewError`], for an active version too.
    fn remove(&self, of: ProjectionId) -> impl Future<Output = Result<(), ViewError>> + Send;
}

/// How far a version is, read under its lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewCheckpoint {
    /// Everything up to here is in the view, or parked.
    pub position: Position,
    /// The event at that position, as [`ViewChanges::event`] said.
    pub event: Option<EventId>,
    /// Whether this transaction noted the version, which has nothing yet.
    pub is_new: bool,
    /// Whether it has caught up with the log since it was noted.
    pub caught_up: bool,
    /// How many of its events are parked.
    pub parked: u64,
    /// A higher version that is active.
    pub superseded_by: Option<u32>,
}

/// What changes with a transaction, beside what the projection writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ViewChanges {
    /// The checkpoint.
    pub position: Position,
    /// The event at the checkpoint, which shows later that the log is still the one that was projected; `None`: not known.
    pub event: Option<EventId>,
    /// Events to park, or to replace what is known of parked ones.
    pub park: Vec<ParkedEvent>,
    /// Events that are parked no more.
    pub unpark: Vec<Position>,
    /// Makes this version the active one and every lower one inactive, and notes that it has caught up.
    pub activate: bool,
}

/// What a view knows of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VersionStatus {
    /// The version.
    pub version: u32,
    /// Everything up to here is in it, or parked.
    pub position: Position,
    /// Whether readers see it.
    pub active: bool,
    /// Whether it has caught up with the log since it was noted.
    pub caught_up: bool,
    /// The tables it wrote, by the names that the projection uses.
    pub tables: BTreeSet<String>,
}

/// A view could not be read or written. A projection tries again until it can.
#[derive(Debug, Clone, thiserror::Error)]
#[error("view of projection {projection} cannot be used: {}", ErrorChain(&**cause))]
pub struct ViewError {
    /// The projection's name.
    pub projection: &'static str,
    /// What the storage said.
    pub cause: Arc<dyn std::error::Error + Send + Sync>,
}

impl ViewError {
    /// An error of a projection's view.
    pub fn new(
        projection: &'static str,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            projection,
            cause: Arc::new(cause),
        }
    }
}

/// An active version is not removed.
#[derive(Debug, thiserror::Error)]
#[error("version {version} of a projection is active; expected one that readers do not see")]
pub(super) struct IsActive {
    pub(super) version: u32,
}
