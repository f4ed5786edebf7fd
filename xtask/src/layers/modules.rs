//! Which module of the engine may know which.
//!
//! **Owns:** the layers of `leftfold-log`. **Does not know:** crates; they are in `crates`.
//! **Invariants:** a module imports only from layers below its own, so the modules can be read, and tested, from the
//! ground up; a module that is in no layer fails the check; tests may look anywhere.

use crate::{
    source::{Source, find_word, line_at},
    violation::Violation,
};

use super::paths;

/// Where the engine's files are.
pub(crate) const ROOT: &str = "crates/leftfold-log/src/";

/// The layers, from the top.
const LAYERS: &[&[&str]] = &[
    &["engine"],                        // threads, channels, the public interface
    &["scavenge", "verify"],            // whole-log procedures on what recovery understands
    &["recover"],                       // makes an open log of files
    &["append", "read", "maintenance"], // one operation each
    &["segment", "index"],              // structures that fill a file
    &["record"],                        // bytes to structs and back
    &["cache"],                         // blocks that were read and checked
    &["nowait"],                        // whether this thread may wait for the disk
    &["error"], // names the file that failed, so it stands on the disk's names
    &["disk"],
    &["limits", "clock", "planted"],
];

/// A part of the standard library that only one place may use.
#[derive(Debug)]
struct RestrictedApi {
    path: &'static str,
    only: &'static str,
    why: &'static str,
    fix: &'static str,
}

const RESTRICTED_APIS: [RestrictedApi; 2] = [
    RestrictedApi {
        path: "std::fs",
        only: "crates/leftfold-log/src/disk/real.rs",
        why: "what goes past the Disk trait is never torn, lost or failed by the simulation",
        fix: "take a `&dyn Disk`",
    },
    RestrictedApi {
        path: "std::thread",
        only: "crates/leftfold-log/src/engine/",
        why: "the simulation steps the engine without threads; a hidden one makes runs differ",
        fix: "return the work to the engine, which spawns",
    },
];

/// Every import that does not go down, and every use of a restricted API.
pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    let exported = sources
        .iter()
        .find(|source| is_root(source))
        .map_or(Vec::new(), exports);
    let mut found = Vec::new();
    for source in sources
        .iter()
        .filter(|source| !is_root(source) && !source.is_test_file())
    {
        found.extend(imports(source, &exported));
        found.extend(restricted_apis(source));
    }
    found
}

fn is_root(source: &Source) -> bool {
    source.path.strip_prefix(ROOT) == Some("lib.rs")
}

/// The names that the root re-exports, each with the module it comes from.
fn exports(root: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for statement in root.code.split(';') {
        let Some((_, path)) = statement.split_once("pub use ") else {
            continue;
        };
        let Some((module, names)) = path.split_once("::") else {
            continue;
        };
        let names = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        found.extend(
            names
                .filter(|n| !n.is_empty())
                .map(|n| (n.to_owned(), module.trim().to_owned())),
        );
    }
    found
}

/// The layer of a module, 0 at the top.
fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn imports(source: &Source, exported: &[(String, String)]) -> Vec<Violation> {
    let below_root = source.path.strip_prefix(ROOT).unwrap_or_default();
    let module = below_root.split('/').next().unwrap_or_default();
    let module = module.strip_suffix(".rs").unwrap_or(module);
    let violation = |line, what| Violation {
        path: source.path.clone(),
        line,
        what,
        why: "imports go down only, so that a module can be understood without those above it",
        fix: "move the shared part to a lower module, or pass it in as an argument; the layers are in \
              xtask/src/layers/modules.rs",
    };
    let Some(own) = layer(module) else {
        return vec![violation(
            1,
            format!("the module `{module}` is in no layer"),
        )];
    };
    let depth = below_root
        .split('/')
        .filter(|part| *part != "mod.rs")
        .count();
    let mut found = Vec::new();
    for (offset, name) in paths::from_root(&source.code, depth) {
        let line = line_at(&source.code, offset);
        let from = exported
            .iter()
            .find(|(n, _)| n == name)
            .map_or(name, |(_, module)| module);
        let goes_down = match layer(from) {
            Some(other) => other > own || from == module,
            // Not a module: a macro, or a name that the compiler will refuse.
            None => true,
        };
        if !goes_down && !source.is_test_line(line) {
            found.push(violation(
                line,
                format!("`{module}` must not import from `{from}`"),
            ));
        }
    }
    found.sort_by_key(|violation| violation.line);
    found
}

fn restricted_apis(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for api in RESTRICTED_APIS
        .iter()
        .filter(|api| !source.path.starts_with(api.only))
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
                    what: format!("`{}` outside {}", api.path, api.only),
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

    fn found(file: &str, text: &str) -> Vec<String> {
        let sources = [
            Source::new(
                format!("{ROOT}lib.rs"),
                "mod engine;\npub use engine::{Core, Log};\n",
            ),
            Source::new(format!("{ROOT}{file}"), text),
        ];
        check(&sources)
            .into_iter()
            .map(|v| format!("{}: {}", v.line, v.what))
            .collect()
    }

    #[test]
    fn imports_that_go_down_pass() {
        let text = "use crate::{disk::Disk, error::StorageError, record::{LogId, frame}};";
        assert!(found("recover/mod.rs", text).is_empty());
        assert!(
            found(
                "recover/active.rs",
                "use crate::recover::Marker;\nuse super::inventory;"
            )
            .is_empty()
        );
    }

    #[test]
    fn imports_that_go_up_or_sideways_are_found_with_their_line() {
        assert_eq!(
            found("record/frame.rs", "\nuse crate::segment::Segment;"),
            ["2: `record` must not import from `segment`"],
        );
        assert_eq!(
            found(
                "index/mod.rs",
                "use crate::{\n    disk::Disk,\n    segment::Segment,\n};"
            )
            .len(),
            1
        );
    }

    #[test]
    fn climbing_to_another_room_is_an_import() {
        assert_eq!(
            found("read/cursor.rs", "use super::super::engine::Core;").len(),
            1
        );
        assert_eq!(found("upkeep.rs", "use super::engine::Core;").len(), 1);
    }

    #[test]
    fn a_name_re_exported_at_the_root_counts_as_its_room() {
        assert_eq!(
            found("read/mod.rs", "use crate::Log;"),
            ["1: `read` must not import from `engine`"]
        );
    }

    #[test]
    fn tests_may_look_anywhere() {
        let text = "#[cfg(test)]\nmod tests {\n    use crate::engine::Core;\n    use std::fs;\n}\n";
        assert!(found("record/mod.rs", text).is_empty());
        assert!(found("record/tests.rs", "use crate::engine::Core;").is_empty());
    }

    #[test]
    fn a_room_that_stands_on_no_floor_is_found() {
        assert_eq!(found("attic/mod.rs", "").len(), 1);
    }

    #[test]
    fn files_are_touched_by_the_real_disk_only() {
        assert!(found("disk/real.rs", "use std::{fs::File, io};").is_empty());
        assert_eq!(found("disk/mod.rs", "use std::{fs::File, io};").len(), 1);
        assert_eq!(
            found("segment/mod.rs", "fn f() { std::fs::read(p); }").len(),
            1
        );
        assert!(found("segment/mod.rs", "// std::fs is for others").is_empty());
    }

    #[test]
    fn threads_are_touched_by_the_engine_only() {
        assert!(found("engine/log.rs", "use std::{sync::Arc, thread};").is_empty());
        assert_eq!(
            found("read/mod.rs", "use std::{sync::Arc, thread};").len(),
            1
        );
    }
}
