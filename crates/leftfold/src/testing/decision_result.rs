//! The result of a command under test, and its assertions.
//!
//! **Owns:** [`DecisionResult`] and the messages of failed assertions. **Does not know:** how the result came about.
//! **Invariants:** a failure shows both sides line by line, with the differences marked.

use std::fmt::Debug;

use similar::{ChangeTag, TextDiff};

/// The result of a command: events, or an error.
#[derive(Debug)]
pub struct DecisionResult<V, E> {
    pub(super) outcome: Result<Vec<V>, E>,
}

impl<V: Debug + PartialEq, E: Debug> DecisionResult<V, E> {
    /// Asserts exactly these events, in this order.
    ///
    /// # Panics
    /// If there were others, or an error.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = V>) -> Self {
        let expected: Vec<_> = expected.into_iter().collect();
        match &self.outcome {
            Ok(events) => same("events", &expected, events),
            Err(refusal) => fail(&format!(
                "expected {expected:#?}\nbut it was refused: {refusal:#?}"
            )),
        }
        self
    }

    /// Asserts no events and no error.
    ///
    /// # Panics
    /// If there were events, or an error.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        self.then([])
    }

    /// Asserts this error.
    ///
    /// # Panics
    /// If it was another one, or events.
    #[track_caller]
    pub fn then_err(self, expected: E) -> Self
    where
        E: PartialEq,
    {
        match &self.outcome {
            Err(refusal) => same("refusal", &expected, refusal),
            Ok(events) => fail(&format!(
                "expected the refusal {expected:#?}\nbut it was allowed, with {events:#?}"
            )),
        }
        self
    }
}

/// Fails unless both are equal, and shows where they differ.
#[track_caller]
pub(super) fn same<T: Debug + PartialEq>(what: &str, expected: &T, found: &T) {
    if expected == found {
        return;
    }
    let (expected, found) = (format!("{expected:#?}\n"), format!("{found:#?}\n"));
    let mut text = format!("{what} differ (- expected, + found)\n");
    for change in TextDiff::from_lines(&expected, &found).iter_all_changes() {
        let mark = match change.tag() {
            ChangeTag::Delete => "- ",
            ChangeTag::Insert => "+ ",
            ChangeTag::Equal => "  ",
        };
        text += mark;
        text += change.value();
    }
    fail(&text);
}

#[expect(clippy::panic, reason = "a failed expectation ends the test")]
#[track_caller]
pub(super) fn fail(text: &str) -> ! {
    panic!("{text}")
}
