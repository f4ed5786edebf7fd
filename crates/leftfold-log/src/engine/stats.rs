//! Statistics of a log.
//!
//! **Owns:** [`LogStats`]. **Does not know:** how they are computed or displayed.
//! **Invariants:** plain data.

use leftfold_model::Position;

/// Sizes and counts of a log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct LogStats {
    /// Number of appended events, including erased ones.
    pub events: u64,
    /// Number of erased events.
    pub erased: u64,
    /// Position of the newest event.
    pub head: Position,
    /// Number of segment files.
    pub segments: u64,
    /// Bytes of events in them, without reserved space.
    pub log_bytes: u64,
    /// Number of index files.
    pub index_files: u64,
    /// Bytes of the index files.
    pub index_bytes: u64,
    /// Appends acknowledged since the log was opened.
    pub appends: u64,
    /// Syncs of groups: concurrent appends share one.
    pub syncs: u64,
}
