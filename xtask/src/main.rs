//! Runs the project's own checks: `cargo xtask <command>`.
//!
//! **Owns:** the command line of the checks, and the exit code: 0 all is well, 1 a check failed, 2 wrong usage.
//! **Does not know:** what any rule says; each rule lives in the module that checks it.
//! **Reading order:** [`violation`], [`source`], then [`tidy`], [`layers`], [`licences`] and [`ci`].

mod ci;
mod layers;
mod licences;
mod metadata;
mod source;
mod tidy;
mod tree;
mod violation;

use std::{
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use tree::Tree;
use violation::Violation;

const USAGE: &str = "\
The project's own checks.

Usage: cargo xtask <command>

Commands:
  tidy       the form of source files and documents: headers, names, sizes, links
  layers     which crate, and which module of each crate, may know which; import cycles
  licences   every dependency's licence is on the allow list
  ci         all of the above, formatting, lints, documentation and tests
             --fast leaves the tests out
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["tidy"] => Tree::here().and_then(|tree| report("tidy", &tidy::check(&tree)?)),
        ["layers"] => Tree::here().and_then(|tree| report("layers", &layers::check(&tree)?)),
        ["licences"] => Tree::here().and_then(|tree| report("licences", &licences::check(&tree)?)),
        ["ci"] => Tree::here().and_then(|tree| ci::run(&tree, ci::Tests::Run)),
        ["ci", "--fast"] => Tree::here().and_then(|tree| ci::run(&tree, ci::Tests::LeaveOut)),
        [] | ["help" | "--help" | "-h"] => {
            say(USAGE);
            return ExitCode::SUCCESS;
        }
        _ => {
            complain(USAGE);
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(format!("xtask: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints what a check found; answers whether it found nothing.
fn report(check: &str, violations: &[Violation]) -> Result<bool, CheckError> {
    for violation in violations {
        say(violation);
    }
    match violations.len() {
        0 => say(format_args!("{check}: ok")),
        1 => say(format_args!("{check}: 1 violation")),
        many => say(format_args!("{check}: {many} violations")),
    }
    Ok(violations.is_empty())
}

/// Prints one line for the reader. A closed pipe is no reason to fail a check, so errors are dropped.
fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints one line about a failure of the checks themselves.
fn complain(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Why a check could not be made at all, as opposed to finding something.
#[derive(Debug)]
struct CheckError(String);

impl CheckError {
    fn new(doing: impl Display, cause: impl Display) -> Self {
        Self(format!("failed to {doing}: {cause}"))
    }
}

impl Display for CheckError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CheckError {}
