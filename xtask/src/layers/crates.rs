//! Which crate may depend on which.
//!
//! **Owns:** the table of crates. **Does not know:** modules; the modules of one crate are in `modules`.
//! **Invariants:** a crate that is not in the table fails the check, so that a new crate is a decision; what is
//! banned is banned for tests too, since a crate's tests show how it is meant to be used.

use crate::{metadata::Package, violation::Violation};

/// One crate, and what it may know.
#[derive(Debug)]
struct Row {
    name: &'static str,
    /// Crates of this workspace that it may use.
    may_know: &'static [&'static str],
    /// Crates of this workspace that only its tests may use, besides those.
    tests_may_know: &'static [&'static str],
    /// Crates from elsewhere that it must never use; a trailing `*` stands for any ending.
    never: &'static [&'static str],
}

/// Anything that waits, opens files, or talks to the world.
const ASYNC_AND_IO: &[&str] = &[
    "tokio*",
    "async-*",
    "futures*",
    "smol",
    "mio",
    "rustix",
    "libc",
    "tonic*",
    "axum*",
    "hyper*",
    "reqwest",
    "sqlx*",
    "event-listener",
];
const NETWORK: &[&str] = &[
    "tonic*",
    "axum*",
    "hyper*",
    "reqwest",
    "sqlx*",
    "tokio-postgres*",
    "mongodb*",
];

const TABLE: &[Row] = &[
    Row {
        name: "leftfold-model",
        may_know: &[],
        tests_may_know: &[],
        never: ASYNC_AND_IO,
    },
    Row {
        name: "leftfold-log",
        may_know: &["leftfold-model"],
        tests_may_know: &[],
        never: &["tokio*", "tonic*", "axum*", "hyper*", "reqwest", "sqlx*"],
    },
    Row {
        name: "leftfold-store",
        may_know: &["leftfold-model", "leftfold-log"],
        tests_may_know: &[],
        never: NETWORK,
    },
    Row {
        name: "leftfold-error-codes",
        may_know: &["leftfold-model", "leftfold-store"],
        tests_may_know: &[],
        never: ASYNC_AND_IO,
    },
    Row {
        name: "leftfold-mongodb",
        may_know: &["leftfold-model", "leftfold-store"],
        tests_may_know: &[],
        never: &["tonic*", "axum*", "hyper*", "reqwest"],
    },
    Row {
        name: "leftfold-postgres",
        may_know: &["leftfold-model", "leftfold-store"],
        tests_may_know: &[],
        never: &["tonic*", "axum*", "hyper*", "reqwest"],
    },
    Row {
        name: "leftfold",
        may_know: &[
            "leftfold-model",
            "leftfold-store",
            "leftfold-derive",
            "leftfold-client",
            "leftfold-mongodb",
            "leftfold-postgres",
        ],
        tests_may_know: &["leftfold-server"],
        // Views in SQL databases and outgoing messages are features of the framework.
        never: &["tonic*", "hyper*"],
    },
    Row {
        name: "leftfold-derive",
        may_know: &[],
        // What its tests use is built twice: for programs, and as what runs at compile time.
        tests_may_know: &[],
        never: NETWORK,
    },
    Row {
        name: "leftfold-derive-tests",
        may_know: &[],
        tests_may_know: &["leftfold"],
        never: NETWORK,
    },
    Row {
        name: "leftfold-proto",
        may_know: &[],
        tests_may_know: &[],
        never: &["axum*", "sqlx*"],
    },
    Row {
        name: "leftfold-client",
        may_know: &["leftfold-model", "leftfold-store", "leftfold-proto"],
        tests_may_know: &["leftfold-server"],
        never: &["axum*", "sqlx*"],
    },
    Row {
        name: "leftfold-server",
        may_know: &[
            "leftfold-error-codes",
            "leftfold-model",
            "leftfold-log",
            "leftfold-store",
            "leftfold-postgres",
            "leftfold-proto",
        ],
        tests_may_know: &["leftfold-client"],
        never: &["sqlx*"],
    },
    Row {
        name: "leftfold-cli",
        may_know: &[
            "leftfold-model",
            "leftfold-log",
            "leftfold-store",
            "leftfold-mongodb",
            "leftfold-postgres",
            "leftfold",
            "leftfold-client",
            "leftfold-server",
            "leftfold-error-codes",
        ],
        tests_may_know: &[],
        never: NETWORK,
    },
    Row {
        name: "leftfold-sim",
        may_know: &["leftfold-model", "leftfold-log", "leftfold-store"],
        tests_may_know: &[],
        never: NETWORK,
    },
    Row {
        name: "xtask",
        may_know: &[],
        tests_may_know: &[],
        never: ASYNC_AND_IO,
    },
];

/// Every dependency of one package that its row does not allow.
pub(crate) fn check(package: &Package, path: &str, manifest: &str) -> Vec<Violation> {
    let violation = |line, what| Violation {
        path: path.to_owned(),
        line,
        what,
        why: "a crate exists to keep something out; an edge that slips in undoes it",
        fix: "move the code to a crate that may know both, or change the table in xtask/src/layers/crates.rs \
              together with ARCHITECTURE.md",
    };
    let Some(row) = TABLE.iter().find(|row| row.name == package.name) else {
        return vec![violation(
            1,
            format!(
                "the crate {} has no row in the table of crates",
                package.name
            ),
        )];
    };
    let mut found = Vec::new();
    for dependency in &package.dependencies {
        let name = dependency.name.as_str();
        let ours = name == "leftfold" || name.starts_with("leftfold-") || name == "xtask";
        let allowed = row.may_know.contains(&name)
            || dependency.for_tests && (name == row.name || row.tests_may_know.contains(&name));
        if ours && !allowed {
            let who = if dependency.for_tests {
                "the tests of "
            } else {
                ""
            };
            let what = format!("{who}{} must not know {name}", row.name);
            found.push(violation(line_of(manifest, name), what));
        }
        if row.never.iter().any(|pattern| matches(pattern, name)) {
            let what = format!("{} must never use {name}", row.name);
            found.push(violation(line_of(manifest, name), what));
        }
    }
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

/// The line of a manifest that names a dependency.
fn line_of(manifest: &str, name: &str) -> usize {
    let names_it = |line: &str| {
        line.trim_start()
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([' ', '=', '.']))
    };
    manifest
        .lines()
        .position(names_it)
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use crate::metadata::Dependency;

    use super::*;

    fn found(name: &str, dependency: &str, for_tests: bool) -> Vec<Violation> {
        let package = Package {
            name: name.to_owned(),
            version: String::new(),
            manifest: None,
            license: None,
            dependencies: vec![Dependency {
                name: dependency.to_owned(),
                for_tests,
            }],
        };
        check(
            &package,
            "Cargo.toml",
            &format!("[dependencies]\n{dependency} = \"1\"\n"),
        )
    }

    #[test]
    fn the_table_allows_what_the_design_allows() {
        assert!(found("leftfold-store", "leftfold-log", false).is_empty());
        assert!(found("leftfold-store", "tokio", false).is_empty());
        assert!(found("leftfold-derive-tests", "leftfold", true).is_empty());
    }

    #[test]
    fn an_edge_upwards_is_found_at_its_line() {
        let lines: Vec<usize> = found("leftfold-log", "leftfold-store", false)
            .iter()
            .map(|v| v.line)
            .collect();
        assert_eq!(lines, [2]);
        assert_eq!(found("leftfold-derive", "leftfold", false).len(), 1);
    }

    #[test]
    fn a_banned_crate_is_found_in_tests_too() {
        assert_eq!(found("leftfold-log", "tokio", false).len(), 1);
        assert_eq!(found("leftfold-log", "tokio-stream", true).len(), 1);
        assert_eq!(found("leftfold", "tonic", false).len(), 1);
        assert_eq!(found("leftfold-model", "futures-core", false).len(), 1);
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        assert_eq!(found("leftfold-extra", "serde", false).len(), 1);
    }
}
