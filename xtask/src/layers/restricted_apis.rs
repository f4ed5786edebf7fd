//! Parts of the standard library that only one place of the engine may use.
//!
//! **Owns:** the table of those parts. **Does not know:** imports between modules; those are in `modules`.
//! **Invariants:** tests may use anything.

use crate::{
    source::{Source, find_word, line_at},
    violation::Violation,
};

/// Where the engine's files are.
const ENGINE: &str = "crates/leftfold-log/src/";

/// A part of the standard library that only one place may use.
#[derive(Debug)]
struct RestrictedApi {
    path: &'static str,
    only: &'static [&'static str],
    why: &'static str,
    fix: &'static str,
}

const RESTRICTED_APIS: [RestrictedApi; 2] = [
    RestrictedApi {
        path: "std::fs",
        only: &[
            "crates/leftfold-log/src/disk/directory.rs",
            "crates/leftfold-log/src/disk/read_only.rs",
            "crates/leftfold-log/src/disk/real.rs",
        ],
        why: "what goes past the Disk trait is never torn, lost or failed by the simulation",
        fix: "take a `&dyn Disk`",
    },
    RestrictedApi {
        path: "std::thread",
        only: &[
            "crates/leftfold-log/src/engine/",
            "crates/leftfold-log/src/simulated/",
            "crates/leftfold-log/src/sync.rs",
        ],
        why: "the simulation steps the engine without threads; a hidden one makes runs differ",
        fix: "return the work to the engine, which spawns",
    },
];

/// Every use of a restricted API outside its place.
pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    let engine = sources
        .iter()
        .filter(|source| source.path.starts_with(ENGINE) && !source.is_test_file());
    engine.flat_map(uses).collect()
}

fn uses(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for api in RESTRICTED_APIS
        .iter()
        .filter(|api| !api.only.iter().any(|only| source.path.starts_with(only)))
    {
        let module = api.path.trim_start_matches("std::");
        let direct = find_word(&source.code, api.path).collect::<Vec<usize>>();
        let in_braces = source
            .code
            .match_indices("use std::{")
            .flat_map(|(offset, _)| {
                let list = source
                    .code
                    .get(offset..)
                    .and_then(|rest| rest.split(';').next());
                let list = list.unwrap_or_default();
                find_word(list, module)
                    .map(move |at| offset + at)
                    .collect::<Vec<usize>>()
            });
        for offset in direct.into_iter().chain(in_braces) {
            let line = line_at(&source.code, offset);
            if !source.is_test_line(line) {
                found.push(Violation {
                    path: source.path.clone(),
                    line,
                    what: format!("`{}` outside {}", api.path, api.only.join(", ")),
                    why: api.why,
                    fix: api.fix,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: &str, text: &str) -> usize {
        check(&[Source::new(format!("{ENGINE}{file}"), text)]).len()
    }

    #[test]
    fn files_are_touched_by_the_real_disk_only() {
        assert_eq!(found("disk/real.rs", "use std::{fs::File, io};"), 0);
        assert_eq!(found("disk/mod.rs", "use std::{fs::File, io};"), 1);
        assert_eq!(found("segment/mod.rs", "fn f() { std::fs::read(p); }"), 1);
        assert_eq!(found("segment/mod.rs", "// std::fs is for others"), 0);
    }

    #[test]
    fn threads_are_touched_by_the_engine_only() {
        assert_eq!(found("engine/log.rs", "use std::{sync::Arc, thread};"), 0);
        assert_eq!(found("read/mod.rs", "use std::{sync::Arc, thread};"), 1);
    }

    #[test]
    fn tests_may_use_anything() {
        let text = "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(found("record/mod.rs", text), 0);
        assert_eq!(found("record/tests.rs", "use std::fs;"), 0);
    }
}
