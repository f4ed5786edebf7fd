//! The result of a command under test, and its assertions.
//!
//! **Owns:** [`Decided`] and the messages of failed assertions. **Does not know:** how the result came about.
//! **Invariants:** a failure shows both sides line by line, with the differences marked.

use std::fmt::Debug;

use similar::{ChangeTag, TextDiff};

/// What came of a command: events, or a refusal.
#[derive(Debug)]
pub struct Decided<V, E> {
    pub(super) outcome: Result<Vec<V>, E>,
}

impl<V: Debug + PartialEq, E: Debug> Decided<V, E> {
    /// Expects exactly these events, in this order.
    ///
    /// # Panics
    /// If there were others, or a refusal.
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

    /// Expects no events, and no refusal.
    ///
    /// # Panics
    /// If there were events, or a refusal.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        self.then([])
    }

    /// Expects this refusal.
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
