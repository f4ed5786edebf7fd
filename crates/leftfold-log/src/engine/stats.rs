//! Figures of a log, for people.
//!
//! **Owns:** [`LogStats`]. **Does not know:** how they are shown.
//! **Invariants:** taking them costs nothing that grows with the log's events.

use std::sync::atomic::Ordering;

use leftfold_model::Position;

use super::shared::EngineState;
use crate::read::ViewSource;

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

impl LogStats {
    pub(crate) fn of(shared: &EngineState) -> Self {
        let view = shared.view();
        let segments = view.segments.list.iter();
        let frozen = view.sources.frozen.iter();
        Self {
            events: view.head.get(),
            erased: view
                .segments
                .list
                .iter()
                .map(|segment| u64::from(segment.erased.events))
                .sum(),
            head: view.head,
            segments: view.segments.list.len() as u64,
            log_bytes: segments
                .map(|segment| u64::from(segment.locations.end()))
                .sum(),
            index_files: view.sources.frozen.len() as u64,
            index_bytes: frozen.map(|frozen| frozen.bytes()).sum(),
            appends: shared.appends.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
        }
    }
}
