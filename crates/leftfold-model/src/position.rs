//! Positions and revisions: places in the log and in a stream, and what an append expects of them.
//!
//! **Owns:** [`Position`], [`Revision`], [`ExpectedRevision`], [`ConflictToken`].
//! **Does not know:** how a store assigns them.
//! **Invariants:** positions start at 1 (0 is "before everything") and are dense; revisions start at 0 and are
//! dense; the order of positions is the order of commits.

use std::fmt;

/// The place of an event in the log of everything: dense, from 1, assigned at commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Position(u64);

impl Position {
    /// Before every event.
    pub const START: Position = Position(0);
    /// The place of the first event.
    pub const FIRST: Position = Position(1);
    /// Behind every event there can be.
    pub const MAX: Position = Position(u64::MAX);

    /// Creates the position with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Returns the next place; [`Self::MAX`] stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
    /// Returns the previous place; [`Self::START`] stays.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
    /// Returns the place `count` further on, at most [`Self::MAX`].
    #[must_use]
    pub const fn saturating_add(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

/// The place of an event in its stream: dense, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Revision(u64);

impl Revision {
    /// The place of a stream's first event.
    pub const FIRST: Revision = Revision(0);
    /// Behind every event a stream can have.
    pub const MAX: Revision = Revision(u64::MAX);

    /// Creates the revision with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }
    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Returns the next place; [`Self::MAX`] stays.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
    /// Returns the place `count` further on, at most [`Self::MAX`].
    #[must_use]
    pub const fn saturating_add(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a caller believes about a stream when it appends to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExpectedRevision {
    /// Nothing: append behind whatever is there.
    #[default]
    Any,
    /// The stream has no event.
    NoStream,
    /// The stream has at least one event.
    StreamExists,
    /// The stream's last event has exactly this revision.
    Exact(Revision),
}

impl ExpectedRevision {
    /// Returns whether a stream whose last revision is `current` (`None`: no event) is as expected.
    #[must_use]
    pub fn allows(self, current: CurrentRevision) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => current.0.is_none(),
            Self::StreamExists => current.0.is_some(),
            Self::Exact(revision) => current.0 == Some(revision),
        }
    }

    /// Returns the revision that the first appended event would get, if this expectation fixes it.
    #[must_use]
    pub fn next_revision(self) -> Option<Revision> {
        match self {
            Self::Any | Self::StreamExists => None,
            Self::NoStream => Some(Revision::FIRST),
            Self::Exact(revision) => Some(revision.next()),
        }
    }
}

impl fmt::Display for ExpectedRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any revision"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// The revision of a stream's last event; `None` if it has no event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CurrentRevision(pub Option<Revision>);

impl CurrentRevision {
    /// Returns the revision that the next appended event gets.
    #[must_use]
    pub fn next(self) -> Revision {
        self.0.map_or(Revision::FIRST, Revision::next)
    }
}

impl fmt::Display for CurrentRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("no stream"),
            Some(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// What a decision has seen, for use in an append condition. Opaque: only a store can tell what it means.
///
/// A read hands one out; giving it back in [`crate::AppendCondition`] asks "has anything matching been
/// committed that this read could not see?". It is not a place to read from: for that, use a [`Position`].
/// A position may be turned into a token: "I have dealt with everything up to here".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ConflictToken(u64);

impl ConflictToken {
    /// Nothing has been seen: every matching event is a conflict.
    pub const START: ConflictToken = ConflictToken(0);

    /// Returns the position up to which the holder of this token has seen everything. For stores.
    #[must_use]
    pub const fn seen_through(self) -> Position {
        Position(self.0)
    }
}
impl From<Position> for ConflictToken {
    fn from(position: Position) -> Self {
        Self(position.0)
    }
}
