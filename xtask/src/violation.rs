//! One broken rule, told so that it can be mended without reading the checker.
//!
//! **Owns:** [`Violation`] and its one printed form, `file:line: what, why, what to do`.
//! **Does not know:** the rules.

use std::fmt;

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path below the project's root, with `/`.
    pub(crate) path: String,
    /// Line in the file, from 1; 1 when the whole file is meant.
    pub(crate) line: usize,
    /// What is there.
    pub(crate) what: String,
    /// The reason for the rule.
    pub(crate) why: &'static str,
    /// How to mend it.
    pub(crate) fix: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            what,
            why,
            fix,
        } = self;
        write!(f, "{path}:{line}: {what}; why: {why}; to do: {fix}")
    }
}
