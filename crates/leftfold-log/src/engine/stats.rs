//! Statistics of a log.
//!
//! **Owns:** [`LogStats`]. **Does not know:** how they are computed or displayed.
//! **Invariants:** plain data.

use leftfold_model::Position;

/// Sizes and counts of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LogStats {
    /// How many events were appended, erased ones included.
    pub events: u64,
    /// Of how many of them only the place is left.
    pub erased: u64,
    /// Position of the newest event.
    pub head: Position,
    /// How many segment files there are.
    pub segments: u64,
    /// Bytes of events in them, without what is reserved for more.
    pub log_bytes: u64,
    /// How many index files there are.
    pub index_files: u64,
    /// Bytes of the index files.
    pub index_bytes: u64,
    /// Appends acknowledged since the log was opened.
    pub appends: u64,
    /// Syncs done for them: appends that came at once share one.
    pub syncs: u64,
}
