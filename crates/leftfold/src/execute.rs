//! The results of commands.
//!
//! **Owns:** [`Committed`], [`ExecuteError`]. **Does not know:** how commands are retried; it carries the number of attempts.
//! **Invariants:** the domain's own error is a variant of its own, unchanged; the text of an error contains those of all its
//! sources.

use std::fmt::{self, Debug, Display};

use leftfold_model::{Conflict, ErrorChain, ModelError, Position, Revision, StreamName};
use leftfold_store::Cause;

use crate::{EncodeError, LoadError};

/// The result of a committed command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed<E> {
    /// The events that were appended; none if there was nothing to do.
    pub events: Vec<E>,
    /// The revision of the stream's last event; `None` if it has none.
    pub revision: Option<Revision>,
    /// The position of the last appended event; `None` if nothing was appended.
    pub position: Option<Position>,
    /// How often the command decided: more than once after conflicts.
    pub attempts: u32,
    /// A command with this idempotency key was committed before: these are its events. Of concurrent ones whose responses
    /// were lost, more than one may report to be the first; the events are stored once.
    pub repeated: bool,
}

/// Why a command was not committed. `E` is the domain's own error.
///
/// Both [`Display`] and [`Debug`] print one line with all sources, so that `main` can return it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<E> {
    /// The domain rejected the command; nothing was written.
    #[error("command was rejected: {0:?}")]
    Rejected(E),
    /// Every attempt conflicted with a concurrent append; nothing was written.
    #[error("command lost to others in each of {attempts} attempts: {conflict}")]
    Conflict {
        /// The number of attempts.
        attempts: u32,
        /// The last conflict.
        conflict: Conflict,
    },
    /// A command with this idempotency key was committed before, and its events cannot be read any more: they were scavenged.
    /// Nothing was written.
    #[error(
        "command with this idempotency key was committed before, at position {position}, and its events cannot be read \
         any more; expected another key for another command"
    )]
    KeyUsed {
        /// The position of one of its events.
        position: Position,
    },
    /// The aggregate to create exists already; nothing was written.
    #[error("stream {stream} has events already, the last of revision {revision}")]
    Exists {
        /// The stream.
        stream: StreamName,
        /// The revision of its last event.
        revision: Revision,
    },
    /// The states that the command decides on could not be loaded; nothing was written.
    #[error("{}", ErrorChain(.0))]
    Load(LoadError),
    /// The decided events cannot be stored; nothing was written.
    #[error("decided events break a limit: {0}")]
    Invalid(ModelError),
    /// The decided events cannot be encoded; nothing was written.
    #[error("{}", ErrorChain(.0))]
    Encode(EncodeError),
    /// One aggregate takes part twice; nothing was written.
    #[error("stream {stream} takes part twice")]
    Twice {
        /// The stream.
        stream: StreamName,
    },
    /// The store accepts no appends now; nothing was written.
    #[error("store is unavailable, nothing was written: {}", ErrorChain(&**cause))]
    Unavailable {
        /// The store's own error.
        cause: Cause,
    },
    /// The store rejects this append, and would again; nothing was written.
    #[error("store refuses the append, nothing was written: {}", ErrorChain(&**cause))]
    Refused {
        /// The store's own error.
        cause: Cause,
    },
    /// The outcome is unknown after all attempts: the events may have been written.
    #[error("outcome is unknown after {attempts} attempts: {}", ErrorChain(&**cause))]
    OutcomeUnknown {
        /// The number of attempts.
        attempts: u32,
        /// The store's own error.
        cause: Cause,
    },
}

impl<E: Debug> Debug for ExecuteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl<E> From<LoadError> for ExecuteError<E> {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}
impl<E> From<ModelError> for ExecuteError<E> {
    fn from(error: ModelError) -> Self {
        Self::Invalid(error)
    }
}
impl<E> From<EncodeError> for ExecuteError<E> {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}
