//! The steps that every change passes, in the order of how fast they fail.
//!
//! **Owns:** the list of steps, their times, and stopping at the first failure.
//! **Does not know:** where it runs; a developer and a build machine get the same steps.
//! **Invariants:** no step reads standard input; a step that cannot run is a failure, except `cargo deny`, whose
//! licence rule is also checked by `licences`.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::{CheckError, layers, licences, report, say, tidy, tree::Tree};

/// Whether to run the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tests {
    Run,
    LeaveOut,
}

/// One step: its name, and how to make it.
type Step = (&'static str, fn(&Tree) -> Result<bool, CheckError>);

const CHECKS: [Step; 7] = [
    ("format", |tree| cargo(tree, "fmt --all --check")),
    ("tidy", |tree| report("tidy", &tidy::check(tree)?)),
    ("layers", |tree| report("layers", &layers::check(tree)?)),
    ("licences", |tree| {
        report("licences", &licences::check(tree)?)
    }),
    ("deny", deny),
    ("lints", |tree| {
        cargo(
            tree,
            "clippy --workspace --all-targets --all-features --locked -- -D warnings",
        )
    }),
    ("documentation", |tree| {
        cargo(
            tree,
            "doc --workspace --all-features --no-deps --document-private-items --locked",
        )
    }),
];

const TESTS: [Step; 1] = [("tests", |tree| {
    cargo(tree, "test --workspace --all-features --locked")
})];

/// Runs all steps, or all up to the first that fails; answers whether all passed.
pub(crate) fn run(tree: &Tree, tests: Tests) -> Result<bool, CheckError> {
    let tests = match tests {
        Tests::Run => TESTS.as_slice(),
        Tests::LeaveOut => &[],
    };
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, make) in CHECKS.iter().chain(tests) {
        say(format_args!("ci: {name} ..."));
        #[expect(
            clippy::disallowed_methods,
            reason = "the time is for people to read, nothing depends on it"
        )]
        let start = Instant::now();
        let passed = make(tree)?;
        let seconds = start.elapsed();
        if !passed {
            say(format_args!(
                "ci: FAILED at step `{name}` after {:.1} s",
                seconds.as_secs_f64()
            ));
            return Ok(false);
        }
        times.push((name, seconds));
    }
    for (name, time) in &times {
        say(format_args!("ci: {name:<14} {:>7.1} s", time.as_secs_f64()));
    }
    say(format_args!("ci: all {} steps passed", times.len()));
    Ok(true)
}

/// Runs cargo with arguments that hold no spaces of their own.
fn cargo(tree: &Tree, arguments: &str) -> Result<bool, CheckError> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments.split(' '))
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(tree.root())
        .stdin(Stdio::null())
        .status()
        .map_err(|e| CheckError::new(format_args!("run `cargo {arguments}`"), e))?;
    Ok(status.success())
}

/// Runs `cargo deny` where it is installed; the project builds without it.
fn deny(tree: &Tree) -> Result<bool, CheckError> {
    let installed = Command::new("cargo-deny")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        say("SKIPPED: cargo-deny not installed");
        return Ok(true);
    }
    cargo(tree, "deny check bans licenses sources")
}
