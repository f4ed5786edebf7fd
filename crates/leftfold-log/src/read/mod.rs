//! Reading: one event after the other, bounded in memory, as of one moment.
//!
//! **Owns:** [`View`], [`Cursor`], [`Follower`], [`Streams`], [`CommitNotifier`]. **Does not know:** who writes.
//! **Invariants:** a reader sees only what is durable; what it sees does not change while it reads; it takes no lock
//! the writer holds for longer than one lookup.
//! **Reading order:** [`View`], [`Cursor`], [`Follower`].

mod cursor;
mod follower;
mod notify;
mod streams;

use std::sync::Arc;

use leftfold_model::Position;

pub use cursor::{Cursor, EventRefs, FirstBatch, ReadError};
pub use follower::{Delivery, Follower};
pub(crate) use notify::{CommitNotifier, TouchedTerms};
pub use streams::{StreamInfo, Streams};

use crate::{index::IndexSnapshot, segment::Segments};

/// What there is to read at one moment.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Position of the newest durable event.
    pub(crate) head: Position,
    pub(crate) segments: Segments,
    pub(crate) sources: IndexSnapshot,
}

/// Where readers get the newest view, and learn of newer ones.
pub(crate) trait ViewSource: std::fmt::Debug + Send + Sync {
    /// The newest view.
    fn view(&self) -> Arc<View>;
    /// Who tells of newer views, and of the end of the log.
    fn wakes(&self) -> &Arc<CommitNotifier>;
    /// Whether the log was closed.
    fn is_closed(&self) -> bool;
}
