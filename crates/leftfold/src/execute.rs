//! What comes of a command.
//!
//! **Owns:** [`Committed`], [`ExecuteError`]. **Does not know:** how often it was tried; it carries the count.
//! **Invariants:** the domain's own error comes through as it is, apart from everything infrastructure may do.

use leftfold_model::{Conflict, ModelError, Position, Revision, StreamName};
use leftfold_store::Cause;

use crate::{EncodeError, LoadError};

/// A command went through.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<E> {
    /// The events that were appended; none if there was nothing to do.
    pub events: Vec<E>,
    /// The revision of the stream's last event; `None` if it has none.
    pub revision: Option<Revision>,
    /// The position of the last appended event; `None` if nothing was appended.
    pub position: Option<Position>,
    /// How often the command decided: more than once if others were faster.
    pub attempts: u32,
    /// A command with this idempotency key went through before: these are its events. Of several at once whose answers
    /// were lost, more than one may think it was the first; the events are stored once.
    pub repeated: bool,
}

/// Why a command did not go through. `E` is the domain's own error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// The domain refused; nothing was written.
    #[error("command was rejected")]
    Rejected(E),
    /// Others were faster, every time; nothing was written.
    #[error("others were faster in each of {attempts} attempts")]
    Conflict {
        /// How often it was tried.
        attempts: u32,
        /// The last conflict.
        #[source]
        conflict: Conflict,
    },
    /// What should be created is there already; nothing was written.
    #[error("stream {stream} has events already, the last of revision {revision}")]
    Exists {
        /// The stream.
        stream: StreamName,
        /// The revision of its last event.
        revision: Revision,
    },
    /// What the command decides on could not be loaded; nothing was written.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What the command decided cannot be stored; nothing was written.
    #[error("decided events break a limit")]
    Invalid(#[from] ModelError),
    /// What the command decided cannot be encoded; nothing was written.
    #[error("decided events cannot be encoded")]
    Encode(#[from] EncodeError),
    /// The same aggregate takes part twice; nothing was written.
    #[error("stream {stream} takes part twice")]
    Twice {
        /// The stream.
        stream: StreamName,
    },
    /// The store takes no appends now; nothing was written.
    #[error("store is unavailable, nothing was written")]
    Unavailable {
        /// The store's own error.
        #[source]
        cause: Cause,
    },
    /// The store could not say whether the events were written, however often it was asked.
    #[error("outcome is unknown after {attempts} attempts")]
    OutcomeUnknown {
        /// How often it was asked.
        attempts: u32,
        /// The store's own error.
        #[source]
        cause: Cause,
    },
}
