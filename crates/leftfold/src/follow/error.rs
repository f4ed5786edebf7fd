//! Errors that end a listener.
//!
//! **Owns:** [`FollowError`]. **Does not know:** how a listener runs.
//! **Invariants:** every error names the consumer, and the event if there is one.

use leftfold_model::{Position, Revision, StreamName};
use leftfold_store::{ReadError, consumers::ConsumerError};

use crate::LoadError;

/// The error of a handler: any error, by `?`, or a text, by `.into()`.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Why a listener ended, other than by being stopped. It continues at its checkpoint when it is spawned again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// An event failed, and the listener stops instead of parking.
    #[error(
        "listener {consumer} failed on event {revision} of stream {stream}, at position {position}, \
         after {attempts} attempts: {reason}"
    )]
    Failed {
        /// The consumer.
        consumer: String,
        /// The event's stream.
        stream: StreamName,
        /// The event's place in it.
        revision: Revision,
        /// The event's place in the log.
        position: Position,
        /// How often it was tried.
        attempts: u32,
        /// The error of the last attempt.
        reason: String,
    },
    /// The maximum of parked keys is reached. The events are hardly the cause of so many failures.
    #[error(
        "listener {consumer} has {keys} parked keys and stops at position {position}, which failed: {reason}; \
         retry or skip parked events"
    )]
    TooManyParked {
        /// The consumer.
        consumer: String,
        /// How many keys are parked.
        keys: usize,
        /// The event that failed.
        position: Position,
        /// The error of its last attempt.
        reason: String,
    },
    /// The consumer cannot be claimed or moved.
    #[error("consumer of a listener cannot be used")]
    Consumer(#[from] ConsumerError),
    /// The log cannot be followed from the checkpoint. A checkpoint beyond the end of the log is that of another log, or of
    /// one that was restored to an earlier state: reset the consumer.
    #[error("listener {consumer} cannot follow the log from checkpoint {checkpoint}")]
    CannotResume {
        /// The consumer.
        consumer: String,
        /// Its checkpoint.
        checkpoint: Position,
        /// The store's error.
        #[source]
        source: ReadError,
    },
    /// The listener's events cannot be selected.
    #[error("events of a listener cannot be selected")]
    Selection(#[from] LoadError),
    /// The store was closed.
    #[error("store of listener {consumer} is closed")]
    Closed {
        /// The consumer.
        consumer: String,
    },
}

impl FollowError {
    /// Returns whether the listener may restart by itself later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Consumer(error) => {
                matches!(
                    error,
                    ConsumerError::Unavailable { .. }
                        | ConsumerError::Lost { .. }
                        | ConsumerError::Moved { .. }
                )
            }
            Self::CannotResume { source, .. } => matches!(source, ReadError::Unavailable { .. }),
            _ => false,
        }
    }
}
