//! Errors of the store contract.
//!
//! **Owns:** [`AppendError`], [`ReadError`]. **Does not know:** the errors of any one store; it carries them
//! as sources.
//! **Invariants:** every append error says whether the append certainly did not happen; an error never looks
//! like the end of a stream.

use std::{error::Error, sync::Arc};

use leftfold_model::{Conflict, StreamName};

/// The store's own error, as the source of the contract's.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why an append was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The append conflicts with stored events; nothing was written. Reload and decide again.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The append breaks a rule that only a store can check. Nothing was written, and repeating it cannot help.
    #[error("append is not valid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller's rights do not allow the append. Nothing was written, and repeating it cannot help until they change.
    #[error("access denied: {reason}")]
    AccessDenied {
        /// Which right is missing, and for what.
        reason: String,
    },
    /// The store cannot accept the append now; nothing was written. A later retry may succeed.
    #[error("store is unavailable, nothing was written")]
    Unavailable {
        /// The store's own error.
        #[source]
        cause: Cause,
    },
    /// The append may or may not have happened. Repeat it with the same event ids to find out.
    #[error("outcome of the append is unknown")]
    OutcomeUnknown {
        /// The store's own error.
        #[source]
        cause: Cause,
    },
}

impl AppendError {
    /// Returns whether the append certainly did not happen; `false` for an unknown outcome.
    #[must_use]
    pub fn is_definitely_not_written(&self) -> bool {
        !matches!(self, Self::OutcomeUnknown { .. })
    }

    /// Returns whether an unchanged call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::OutcomeUnknown { .. })
    }
}

/// Why a read or a subscription ended early.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The request contradicts itself, for example a revision without a stream.
    #[error("read is not valid: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The caller's rights do not allow the read, or no longer allow the subscription.
    #[error("access denied: {reason}")]
    AccessDenied {
        /// Which right is missing, and for what.
        reason: String,
    },
    /// The stream has a tombstone.
    #[error("stream {stream} is deleted")]
    StreamDeleted {
        /// The stream.
        stream: StreamName,
    },
    /// Stored data is damaged. No damaged event was delivered; reads of other parts may still work.
    #[error("stored data is damaged")]
    Corrupt {
        /// The store's own error: which file, at which byte.
        #[source]
        cause: Cause,
    },
    /// The store cannot be read now.
    #[error("store is unavailable")]
    Unavailable {
        /// The store's own error.
        #[source]
        cause: Cause,
    },
}
