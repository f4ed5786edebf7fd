//! The nouns of the event store, with their limits.
//!
//! **Owns:** what a stream name, a tag, an event, a query, an append and a read request are, and which values
//! they may hold. A value of one of these types is valid: its constructor checked it.
//! **Does not know:** files, networks, threads, time sources, serialisation formats.
//! **Invariants:** every bound stands in [`limits`]; every refusal is a [`ModelError`] that names the thing,
//! the value and the limit; one word per thing (docs/glossary.md).
//! **Reading order:** [`limits`], names ([`StreamName`], [`EventType`], [`Tag`]), places ([`Position`],
//! [`Revision`]), [`NewEvent`] and [`RecordedEvent`], [`Query`], [`Append`], [`Read`].

mod append;
mod error;
mod event;
mod id;
pub mod limits;
mod name;
mod position;
mod query;
mod read;
mod time;

pub use append::{Append, AppendCondition, Appended, Conflict, StreamCheck, StreamWrite};
pub use error::{ErrorChain, ModelError, truncate_for_display};
pub use event::{ContentType, NewEvent, RecordedEvent};
pub use id::EventId;
pub use name::{Category, EventType, StreamName, Tag};
pub use position::{ConflictToken, CurrentRevision, ExpectedRevision, Position, Revision};
pub use query::{Query, QueryItem};
pub use read::{Direction, Read, ReadFrom, Scope};
pub use time::Timestamp;

/// The bytes type of event data and metadata, re-exported so that callers need no dependency of their own.
pub use bytes::Bytes;
