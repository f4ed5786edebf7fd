//! The built command, run as a person or a script would.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and make files of their own"
)]

mod bad_input;
mod commands;
mod compressed;
mod consumers;
#[cfg(unix)]
mod doctor;
mod groups;
mod import;
mod invalid_settings;
mod mongodb;
mod postgres;
mod salvage;
#[cfg(unix)]
mod security;
#[cfg(unix)]
mod security_page;
mod serve;
mod served;
mod stalled;
mod store_directory;
mod traces;
mod url;

use std::path::Path;

use assert_cmd::{Command, assert::Assert};

/// The command with these arguments, run on the store in `data`.
fn leftfold(data: &Path, arguments: &[&str]) -> Assert {
    let (command, rest) = arguments.split_first().unwrap();
    Command::cargo_bin("leftfold")
        .unwrap()
        .arg(command)
        .arg("--data")
        .arg(data)
        .args(rest)
        .assert()
}

/// What a successful run prints.
#[track_caller]
fn printed(assert: Assert) -> String {
    String::from_utf8(assert.success().get_output().stdout.clone()).unwrap()
}

/// What a failed run says, after the check of its exit code.
#[track_caller]
fn said(assert: Assert, code: i32) -> String {
    String::from_utf8(assert.code(code).get_output().stderr.clone()).unwrap()
}
