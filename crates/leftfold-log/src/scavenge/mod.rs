//! Scavenging: erasing truncated events and freeing their space.
//!
//! **Owns:** which segments hold such events ([`TruncationSet::erasable_per_segment`]), and rewriting one without their data
//! ([`rewrite()`]). **Does not know:** why a stream is truncated, threads, views; when readers see the new file.
//! **Invariants:**
//! - An erased event keeps its position, revision, id, names and time, and loses data and metadata; nothing else changes.
//! - Only sealed segments are rewritten.
//! - The old file stays in place until the new one is synced, renamed and read back. A failure before that leaves the log
//!   unchanged.
//!
//! **Reading order:** [`Truncation`], [`TruncationSet`], [`rewrite()`].

mod rewrite;
mod truncations;

use std::sync::Arc;

use leftfold_model::{Position, Revision, StreamName};

pub(crate) use rewrite::{Throttle, install, rewrite};
pub(crate) use truncations::TruncationSet;

use crate::error::StorageError;

/// Events of `stream` with a revision below `before` are to be erased.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// The stream.
    pub stream: StreamName,
    /// The revision of the first event that stays. May lie behind the stream's end: then all its events go.
    pub before: Revision,
}

/// Options of a scavenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ScavengeOptions {
    /// Maximum bytes of the log read and written per second. Default: `None`, as fast as the disk allows.
    pub bytes_per_second: Option<u64>,
    /// Minimum bytes that rewriting a segment must free; segments that free less stay as they are. Default: 0.
    ///
    /// A larger value writes less, and leaves some truncated events on disk.
    pub segment_bytes_min: u64,
    /// Whether to seal the newest segment first if it holds events to erase. Default: `false`, which erases events in older
    /// segments only.
    pub seal_newest: bool,
}

impl ScavengeOptions {
    /// Sets the maximum number of bytes per second; 0 counts as 1. Default: unlimited.
    #[must_use]
    pub fn with_bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// Sets how many bytes rewriting a segment must free; other segments stay as they are. Default: 0.
    #[must_use]
    pub fn with_segment_bytes_min(mut self, bytes: u64) -> Self {
        self.segment_bytes_min = bytes;
        self
    }

    /// Lets the scavenge seal the newest segment first if it holds events to erase.
    #[must_use]
    pub fn with_seal_newest(mut self) -> Self {
        self.seal_newest = true;
        self
    }
}

/// How far scavenging has come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ScavengeProgress {
    /// Segments looked into by this run, rewritten or not.
    pub segments_done: u64,
    /// Segments that held something to erase when the run began.
    pub segments_total: u64,
    /// Events erased by this run.
    pub events_erased: u64,
    /// Bytes given back by this run.
    pub bytes_reclaimed: u64,
    /// The newest position this run could reach: when it is done, events under a cut up to here are erased, but for
    /// those in segments below [`ScavengeOptions::segment_bytes_min`].
    pub through: Position,
}

impl ScavengeProgress {
    /// Whether every segment was looked into.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.segments_done == self.segments_total
    }
}

/// Why scavenging ended early. What was done stays done; the log is as usable as before.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ScavengeError {
    /// The log was closed meanwhile.
    #[error("log is closed")]
    Closed,
    /// The log takes no changes since an earlier failure of the disk.
    #[error("log is read-only since a failure of the disk")]
    ReadOnly {
        /// What the disk reported then.
        #[source]
        cause: Arc<StorageError>,
    },
    /// A segment could not be read or rewritten, for example for want of room, or is damaged. It stays as it was.
    #[error("log could not be scavenged")]
    Storage {
        /// What went wrong.
        #[source]
        cause: Arc<StorageError>,
    },
}

impl From<StorageError> for ScavengeError {
    fn from(error: StorageError) -> Self {
        Self::Storage {
            cause: Arc::new(error),
        }
    }
}
