//! Reading: events in order, in bounded memory, as of one moment.
//!
//! **Owns:** [`View`], [`Cursor`], [`Follower`], [`Streams`], [`CommitNotifier`]. **Does not know:** the writer.
//! **Invariants:** a reader sees only what is durable; what it sees does not change while it reads; it holds a lock that the
//! writer needs for at most one lookup.
//! **Reading order:** [`View`], [`Cursor`], [`Follower`].

mod cursor;
mod follower;
mod notify;
mod streams;
mod view;

pub use cursor::{Cursor, EventRefs, FirstBatch, LogEntry, ReadError};
pub use follower::{Delivery, Follower};
pub(crate) use notify::{CommitNotifier, TouchedTerms};
pub use streams::{StreamInfo, Streams};
pub(crate) use view::{View, ViewSource};
