//! The request for a page.
//!
//! **Owns:** [`PageRequest`], [`Bounds`], [`Place`]. **Does not know:** SQL.
//! **Invariants:** a request describes one page completely, so it can be repeated on another connection.

use leftfold_model::{Direction, EventId, Position, Query, Scope};

use crate::value::to_bigint;

/// A range of positions and revisions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) positions: (i64, i64),
    /// Applies to a scope of one stream only.
    pub(crate) revisions: (i64, i64),
}

impl Bounds {
    pub(crate) const ALL: Self = Self {
        positions: (1, i64::MAX),
        revisions: (0, i64::MAX),
    };
}

/// A position, and the event that was read there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) id: EventId,
}

/// A request for a page.
#[derive(Debug, Clone)]
pub(crate) struct PageRequest {
    pub(crate) scope: Scope,
    pub(crate) query: Query,
    pub(crate) direction: Direction,
    pub(crate) bounds: Bounds,
    pub(crate) limit: i64,
    /// Whether to read the head of the log, too.
    pub(crate) with_head: bool,
    /// An event that was read before, and must still be there. Checked if the head is read.
    pub(crate) last: Option<Place>,
}

impl PageRequest {
    /// A request for the events after a position, oldest first, without the head.
    pub(crate) fn after(after: Position, scope: Scope, query: Query, limit: i64) -> Self {
        let mut bounds = Bounds::ALL;
        bounds.positions.0 = to_bigint(after.next().get());
        Self {
            scope,
            query,
            direction: Direction::Forwards,
            bounds,
            limit,
            with_head: false,
            last: None,
        }
    }
}
