//! Errors of appends, and of closing a log.
//!
//! **Owns:** [`AppendError`], [`CloseError`]. **Does not know:** stores and protocols.
//! **Invariants:** every variant says whether the append certainly did not happen.

use std::sync::Arc;

use leftfold_model::Conflict;

use crate::error::StorageError;

/// Why an append was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The append lost against what is stored; nothing was written. Reload and decide again.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The disk failed while this append was being written. **Outcome unknown** until the next open.
    #[error(
        "disk failed while the append was being written; the log takes no more appends until it is reopened"
    )]
    Poisoned {
        /// What the disk reported.
        #[source]
        cause: Arc<StorageError>,
    },
    /// The log accepts no appends since an earlier disk error; none of these events was written. Reads continue.
    #[error("log is read-only since a failure of the disk")]
    ReadOnly {
        /// What the disk reported then.
        #[source]
        cause: Arc<StorageError>,
    },
    /// The disk has no space for the segment that the append needs; nothing was written. Later appends may succeed.
    #[error("disk is full")]
    DiskFull {
        /// What the disk reported.
        #[source]
        cause: Arc<StorageError>,
    },
    /// The process has no descriptor or memory left for the segment the append needs; nothing was written. Later appends may
    /// succeed.
    #[error("next segment cannot be opened: the process is out of descriptors or memory")]
    OutOfDescriptors {
        /// What the system reported.
        #[source]
        cause: Arc<StorageError>,
    },
    /// Indexes of earlier events could not be written, and no memory is left for more of them; nothing was written. Later appends
    /// may succeed.
    #[error("indexes of earlier events could not be written, and appends wait for them")]
    IndexesBehind {
        /// What the disk reported.
        #[source]
        cause: Arc<StorageError>,
    },
    /// What the decision needs could not be read; nothing was written.
    #[error("log could not be read to decide the append")]
    Unreadable {
        /// What went wrong.
        #[source]
        cause: Arc<StorageError>,
    },
    /// The queue of appends is full; nothing was written. Retry after a moment.
    #[error("log is busy: its queue of appends is full")]
    Busy,
    /// The log was closed; nothing was written.
    #[error("log is closed")]
    Closed,
    /// The writer stopped while it had this append, or while it had one that this may be a retry of. **Outcome unknown.**
    #[error("writer of the log stopped; the outcome is unknown")]
    WriterLost,
}

impl AppendError {
    /// Returns whether certainly no event of the append is stored; `false` for an unknown outcome, and for a retry of an append
    /// of unknown outcome.
    #[must_use]
    pub fn is_definitely_not_written(&self) -> bool {
        !matches!(self, Self::Poisoned { .. } | Self::WriterLost)
    }

    /// Returns whether an unchanged call may succeed later on this open log.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::DiskFull { .. }
                | Self::OutOfDescriptors { .. }
                | Self::IndexesBehind { .. }
        )
    }
}

/// Why a log could not be closed cleanly. Acknowledged events are safe; the next open recovers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The log was read-only after a disk error.
    #[error("log was read-only since a failure of the disk")]
    ReadOnly {
        /// What the disk reported then.
        #[source]
        cause: Arc<StorageError>,
    },
    /// The writer had panicked.
    #[error("writer of the log panicked")]
    WriterPanicked,
    /// The clean-stop marker could not be written.
    #[error("clean stop could not be recorded")]
    Storage(#[from] StorageError),
}
