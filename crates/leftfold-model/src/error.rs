//! Why a value was refused before it reached any store.
//!
//! **Owns:** [`ModelError`]. **Does not know:** appends that lose a race; those are [`crate::Conflict`].
//! **Invariants:** every message names the thing, the value and the limit; nothing was written.

use crate::EventId;

/// A value breaks a rule of the model. Nothing was written, and retrying the same value cannot help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A name, a list or a body is too short or too long.
    #[error("{thing} has {got} {unit}; allowed are {min} to {max} ({limit})")]
    OutOfRange {
        /// What was measured, for example `stream name "cart-..."`.
        thing: String,
        /// What was counted: `bytes`, `events`, `tags`.
        unit: &'static str,
        /// The measured value.
        got: usize,
        /// The smallest allowed value.
        min: usize,
        /// The largest allowed value.
        max: usize,
        /// The name of the limit in [`crate::limits`].
        limit: &'static str,
    },
    /// A name is not UTF-8.
    #[error("{thing} is not UTF-8: byte {at} cannot be decoded")]
    NotUtf8 {
        /// What was decoded.
        thing: &'static str,
        /// Offset of the first bad byte.
        at: usize,
    },
    /// An event id is not a UUID.
    #[error("event id {value} is not a UUID")]
    NotAnEventId {
        /// The text given, quoted and shortened.
        value: String,
    },
    /// A query item without types and tags would match everything; `Query::All` says that explicitly.
    #[error(
        "query item {index} names neither a type nor a tag; use a query for everything instead"
    )]
    EmptyQueryItem {
        /// Index of the item in the query.
        index: usize,
    },
    /// Two events of one append have the same id.
    #[error("append holds event id {id} twice")]
    DuplicateEventId {
        /// The id given twice.
        id: EventId,
    },
}

/// Checks a measured length against a limit.
pub(crate) fn in_range(
    thing: impl FnOnce() -> String,
    unit: &'static str,
    got: usize,
    (min, max): (usize, usize),
    limit: &'static str,
) -> Result<(), ModelError> {
    if (min..=max).contains(&got) {
        Ok(())
    } else {
        Err(ModelError::OutOfRange {
            thing: thing(),
            unit,
            got,
            min,
            max,
            limit,
        })
    }
}

/// A value as error messages show it: quoted, at most 32 characters, the rest cut.
pub(crate) fn truncate_for_display(value: &str) -> String {
    let head: String = value.chars().take(32).collect();
    if head.len() < value.len() {
        format!("{head:?}...")
    } else {
        format!("{head:?}")
    }
}
