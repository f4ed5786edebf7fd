//! Why a group cannot be as it was asked for.
//!
//! **Owns:** [`InvalidGroup`]. **Does not know:** which limits there are.

use std::fmt;

/// Why a group cannot be as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not valid: {value}; expected {expected}")]
pub struct InvalidGroup {
    what: &'static str,
    value: String,
    expected: String,
}

impl InvalidGroup {
    pub(crate) fn new(
        what: &'static str,
        value: impl fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            what,
            value: value.to_string(),
            expected: expected.into(),
        }
    }
}
