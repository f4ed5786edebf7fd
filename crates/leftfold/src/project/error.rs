//! Why a projection ended, or is not where it was waited for.
//!
//! **Owns:** [`ProjectionError`]. **Does not know:** how a projection is run.
//! **Invariants:** every reason names the projection or the event, and where it stands.

use std::time::Duration;

use leftfold_model::{EventId, Position, Revision, StreamName};
use leftfold_store::ReadError;

use crate::LoadError;

/// Why a projection ended, or is not where it was waited for. What it wrote is kept; it goes on there when it is spawned again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// It did not get there in time. It goes on.
    #[error("projection is at position {reached}; expected {expected} within {timeout:?}")]
    TimedOut {
        /// Where it is.
        reached: Position,
        /// Where it should be.
        expected: Position,
        /// How long was waited.
        timeout: Duration,
    },
    /// A live projection met an event that cannot be decoded, or projecting it panicked. The model has everything before it.
    #[error("projection stopped behind position {position}")]
    Faulted {
        /// Where it stopped.
        position: Position,
        /// Which event, and what is wrong with it.
        #[source]
        source: LoadError,
    },
    /// All attempts of an event failed, and the projection stops instead of parking.
    #[error(
        "projection {projection} failed on event {revision} of stream {stream}, at position {position}, \
         after {attempts} attempts: {reason}"
    )]
    Failed {
        /// The projection.
        projection: &'static str,
        /// The event's stream.
        stream: StreamName,
        /// The event's place in it.
        revision: Revision,
        /// The event's place in the log.
        position: Position,
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt said.
        reason: String,
    },
    /// One more key would have to be parked. So many failures at a time are hardly the events' fault.
    #[error(
        "projection {projection} has {keys} parked keys and stops at position {position}, which failed: {reason}"
    )]
    TooManyParked {
        /// The projection.
        projection: &'static str,
        /// How many keys are parked.
        keys: usize,
        /// The event that failed.
        position: Position,
        /// What its last attempt said.
        reason: String,
    },
    /// The view could not be prepared for this version.
    #[error("projection {projection} version {version} cannot be set up: {reason}")]
    NotSetUp {
        /// The projection.
        projection: &'static str,
        /// Its version.
        version: u32,
        /// What `set_up` said.
        reason: String,
    },
    /// A higher version is active: this program is older than the view.
    #[error("projection {projection} version {version} is superseded by version {by}")]
    Superseded {
        /// The projection.
        projection: &'static str,
        /// Its version in this program.
        version: u32,
        /// The version that is active.
        by: u32,
    },
    /// The log cannot be followed from the checkpoint. A checkpoint behind the end of the log is that of another log, or of
    /// one that was restored to an earlier state: raise the version to build the view anew.
    #[error("projection {projection} cannot follow the log from checkpoint {checkpoint}")]
    CannotResume {
        /// The projection.
        projection: &'static str,
        /// Where it is.
        checkpoint: Position,
        /// The store's answer.
        #[source]
        source: ReadError,
    },
    /// The log has another event at the checkpoint than the view was filled from: it was restored to an earlier state, and other
    /// events were appended since, or the view is that of another store. What the view has is not what the log says: raise the
    /// version to build the view from this log.
    #[error(
        "projection {projection} was filled from another log: event {found} at checkpoint {checkpoint}; expected {expected}"
    )]
    OtherLog {
        /// The projection.
        projection: &'static str,
        /// Where it is.
        checkpoint: Position,
        /// The event that the view was filled up to.
        expected: EventId,
        /// The event that the log has there.
        found: EventId,
    },
    /// The projection's events cannot be selected.
    #[error("events of a projection cannot be selected")]
    Selection(#[from] LoadError),
    /// The store was closed, or the projection was stopped. The model has everything up to its position.
    #[error("projection is stopped, or its store is closed")]
    Closed,
}
