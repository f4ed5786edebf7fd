//! Lines in one of two forms: for people, or as JSON.
//!
//! **Owns:** [`Printer`]. **Does not know:** what the lines say.

use std::io::{BufWriter, Stdout, Write};

use serde_json::Value;

use crate::display;

/// Prints lines in one of two forms.
pub(super) struct Printer {
    pub(super) json: bool,
    pub(super) out: BufWriter<Stdout>,
}

impl Printer {
    pub(super) fn print(
        &mut self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> std::io::Result<()> {
        if self.json {
            writeln!(self.out, "{}", display::json(&json().to_string()))
        } else {
            writeln!(self.out, "{}", text())
        }
    }
}
