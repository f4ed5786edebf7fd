//! The values of listings and statistics.
//!
//! **Owns:** [`ListStreams`], [`StreamInfo`], [`StoreStats`]. **Does not know:** how a store finds streams.

use std::borrow::Cow;

use leftfold_model::{Position, Revision, StreamName, Timestamp};

/// A request to list streams.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListStreams {
    /// Only names that begin with this text.
    pub prefix: String,
    /// Only names after this one, in byte order; for paging.
    pub after: Option<StreamName>,
    /// The maximum number of streams; `None`: no limit.
    pub limit: Option<u64>,
}

/// One stream in a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamInfo {
    /// Its name.
    pub stream: StreamName,
    /// The number of its events.
    pub events: u64,
    /// The revision of its last event.
    pub revision: Revision,
    /// The position of its last event.
    pub position: Position,
    /// When its last event was committed.
    pub time: Timestamp,
}

/// Counts and sizes of a store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StoreStats {
    /// The number of events ever appended, including erased ones.
    pub events: u64,
    /// Position of the newest event.
    pub head: Position,
    /// Further values, each with its name and unit, in a fixed order: for display.
    pub details: Vec<(Cow<'static, str>, String)>,
}
