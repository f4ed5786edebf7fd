//! What a check found.
//!
//! **Owns:** [`Finding`], [`Verdict`], and how they are printed. **Does not know:** any check.
//! **Invariants:** whatever is not as it should be names what to do.

use std::io::{self, Write};

use serde::Serialize;

use crate::display;

/// Whether something is to be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Nothing.
    Ok,
    /// It works, and may not be meant.
    Warning,
    /// Something must be done.
    Problem,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The name of the check, which stays.
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    /// What was found.
    pub(super) found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    pub(super) fn warning(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Warning,
            remedy: Some(remedy.into()),
            ..Self::ok(check, found)
        }
    }

    pub(super) fn problem(
        check: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict: Verdict::Problem,
            ..Self::warning(check, found, remedy)
        }
    }

    /// Prints it, for people or as a line of JSON.
    pub(super) fn print(&self, out: &mut impl Write, json: bool) -> io::Result<()> {
        if json {
            return writeln!(out, "{}", display::json(&serde_json::to_string(self)?));
        }
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Problem => "PROBLEM",
        };
        let found = display::escape(&self.found);
        writeln!(out, "{verdict:<8} {:<14} {found}", self.check)?;
        match &self.remedy {
            Some(remedy) => writeln!(out, "{:<23} to do: {}", "", display::escape(remedy)),
            None => Ok(()),
        }
    }
}
