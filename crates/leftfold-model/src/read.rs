//! Read requests: which events, from where, in which direction, how many.
//!
//! **Owns:** [`Read`] and its parts. **Does not know:** how a store answers it.
//! **Invariants:** scope and query are both fulfilled by every event delivered; bounds are inclusive.

use crate::{Category, Position, Query, Revision, StreamName};

/// Which part of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Scope {
    /// Everything.
    #[default]
    All,
    /// One stream.
    Stream(StreamName),
    /// All streams of a category.
    Category(Category),
}

/// In which order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Direction {
    /// Oldest first.
    #[default]
    Forwards,
    /// Newest first.
    Backwards,
}

/// Where to begin; the named place is included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadFrom {
    /// At the end the direction comes from: the oldest event forwards, the newest backwards.
    #[default]
    End,
    /// At this position.
    Position(Position),
    /// At this revision; for reads of one stream only.
    Revision(Revision),
}

/// A request to read events. What is committed after the read began is not part of it.
///
/// ```
/// use leftfold_model::{Read, Revision, StreamName};
/// let last_ten = Read::stream(StreamName::new("account-1")?).backwards().limit(10);
/// let rest = Read::stream(StreamName::new("account-1")?).from_revision(Revision::new(20));
/// # let _ = (last_ten, rest);
/// # Ok::<(), leftfold_model::ModelError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// Which part of the log.
    pub scope: Scope,
    /// Which events of that part.
    pub query: Query,
    /// Where to begin.
    pub from: ReadFrom,
    /// In which order.
    pub direction: Direction,
    /// How many events at most; `None`: no bound. 0 delivers nothing.
    pub limit: Option<u64>,
}

impl Read {
    /// Selects everything, oldest first.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }
    /// Selects one stream, oldest first.
    #[must_use]
    pub fn stream(name: StreamName) -> Self {
        Self {
            scope: Scope::Stream(name),
            ..Self::default()
        }
    }
    /// Selects all streams of a category, oldest first.
    #[must_use]
    pub fn category(category: Category) -> Self {
        Self {
            scope: Scope::Category(category),
            ..Self::default()
        }
    }
    /// Selects the events that match a query, oldest first.
    #[must_use]
    pub fn query(query: Query) -> Self {
        Self {
            query,
            ..Self::default()
        }
    }
    /// Restricts the read to events that match `query`.
    #[must_use]
    pub fn matching(mut self, query: Query) -> Self {
        self.query = query;
        self
    }
    /// Begins the read at this position (inclusive).
    #[must_use]
    pub fn from_position(mut self, position: Position) -> Self {
        self.from = ReadFrom::Position(position);
        self
    }
    /// Begins the read at this revision (inclusive). For reads of one stream.
    #[must_use]
    pub fn from_revision(mut self, revision: Revision) -> Self {
        self.from = ReadFrom::Revision(revision);
        self
    }
    /// Reverses the order: newest first.
    #[must_use]
    pub fn backwards(mut self) -> Self {
        self.direction = Direction::Backwards;
        self
    }
    /// Limits the read to `count` events.
    #[must_use]
    pub fn limit(mut self, count: u64) -> Self {
        self.limit = Some(count);
        self
    }
}
