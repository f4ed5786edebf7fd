//! Errors of invalid values, found before they reach any store.
//!
//! **Owns:** [`ModelError`]; how errors and callers' texts are displayed: [`ErrorChain`], [`truncate_for_display`].
//! **Does not know:** appends that lose a race; those are [`crate::Conflict`].
//! **Invariants:** every message names the thing, the value and the limit; nothing was written.

use std::{borrow::Cow, error::Error, fmt};

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
    /// An event id has no bit set, which means no id; append the event under an id of its own.
    #[error("event id is nil: {id}; expected a UUID with a bit set, or no id")]
    NilEventId {
        /// The id given.
        id: EventId,
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

/// Characters of a caller's text that an error message shows.
const SHOWN_CHARS_MAX: usize = 32;

/// Returns the text as error messages show it: quoted, at most 32 characters, the rest replaced by `...`.
pub(crate) fn quote_for_display(text: &str) -> String {
    let head: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if head.len() < text.len() {
        format!("{head:?}...")
    } else {
        format!("{head:?}")
    }
}

/// Returns the text, or its beginning of at most `bytes_max` bytes followed by `...`.
///
/// ```
/// use leftfold_model::truncate_for_display;
/// assert_eq!(truncate_for_display("deposit", 3), "dep...");
/// assert_eq!(truncate_for_display("deposit", 7), "deposit");
/// ```
#[must_use]
pub fn truncate_for_display(text: &str, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return Cow::Borrowed(text);
    }
    let end = (0..=bytes_max)
        .rev()
        .find(|&end| text.is_char_boundary(end));
    let head = end.and_then(|end| text.get(..end)).unwrap_or_default();
    Cow::Owned(format!("{head}..."))
}

/// An error and its sources on one line, outermost first, separated by `: `.
///
/// A source whose text equals that of the error before it is left out.
///
/// ```
/// use leftfold_model::{ErrorChain, Tag};
/// let error = Tag::new("").unwrap_err();
/// assert_eq!(ErrorChain(&error).to_string(), error.to_string());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl<'a> ErrorChain<'a> {
    /// Returns the texts of the error and its sources, outermost first, without repetitions.
    pub fn texts(self) -> impl Iterator<Item = String> + 'a {
        let mut last = None;
        let chain = std::iter::successors(Some(self.0), |&error| error.source());
        chain.filter_map(move |error| {
            let text = error.to_string();
            let repeated = last.as_ref() == Some(&text);
            last = Some(text.clone());
            (!repeated).then_some(text)
        })
    }
}

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, text) in self.texts().enumerate() {
            if nth > 0 {
                f.write_str(": ")?;
            }
            f.write_str(&text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn a_chain_names_every_source_once() {
        let innermost = Link("disk full", None);
        let repeated = Link("disk full", Some(Box::new(innermost)));
        let error = Link("append failed", Some(Box::new(repeated)));
        assert_eq!(ErrorChain(&error).to_string(), "append failed: disk full");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(truncate_for_display("a\u{e4}b", 2), "a...");
        assert_eq!(truncate_for_display("\u{e4}", 0), "...");
    }
}
