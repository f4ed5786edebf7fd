//! The tests that the ledger of defects names.
//!
//! **Owns:** which cell of a row names tests, and what counts as a name. **Does not know:** files; the caller hands over the
//! functions and paths of the project.
//! **Invariants:** a row that names no test passes, because it says in words why there is none; a row that names one keeps its
//! promise only while that function exists.

use std::collections::{BTreeMap, BTreeSet};

use crate::violation::Violation;

/// The ledger.
pub(crate) const DOCUMENT: &str = "docs/bugs.md";

/// Cells of a row: the defect, how it was found, why it could happen, what prevents its kind, and the test.
const CELLS: usize = 5;

/// What a name in the ledger can lead to.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Each function, with the paths of the files that define one of that name.
    functions: BTreeMap<String, BTreeSet<String>>,
    paths: BTreeSet<String>,
}

impl Known {
    /// Adds a source file: its path, and the functions that it defines.
    pub(crate) fn add(&mut self, path: &str, text: &str) {
        self.paths.insert(path.to_owned());
        for (offset, keyword) in text.match_indices("fn ") {
            let before = text.get(..offset).and_then(|text| text.chars().next_back());
            if before.is_some_and(is_of_name) {
                continue;
            }
            let rest = text.get(offset + keyword.len()..).unwrap_or_default();
            let name: String = rest.chars().take_while(|&c| is_of_name(c)).collect();
            let files = self.functions.entry(name).or_default();
            files.insert(path.to_owned());
        }
    }

    /// Whether a file has this stem, or stands in a folder of this name.
    fn has_module(path: &str, module: &str) -> bool {
        let path = path.strip_suffix(".rs").unwrap_or(path);
        path.split('/').any(|part| part == module)
    }

    /// Whether a name such as `module::function` leads to a function, or a plain one to a file of that stem.
    fn has(&self, name: &str) -> bool {
        let mut parts: Vec<&str> = name.split("::").collect();
        let Some(function) = parts.pop() else {
            return false;
        };
        match self.functions.get(function) {
            Some(files) => files.iter().any(|path| {
                let mut modules = parts.iter();
                modules.all(|module| Self::has_module(path, module))
            }),
            None => parts.is_empty() && self.paths.iter().any(|path| is_file(path, function)),
        }
    }

    /// Whether `cargo test -p crate --test target` names a target that exists.
    fn has_target(&self, command: &str) -> bool {
        let words: Vec<&str> = command.split(' ').collect();
        let after = |flag: &str| {
            let at = words.iter().position(|&word| word == flag)?;
            words.get(at + 1).copied()
        };
        let Some(package) = after("-p") else {
            return false;
        };
        let folder = format!("crates/{package}/");
        let target = after("--test").map(|target| format!("{folder}tests/{target}"));
        self.paths.iter().any(|path| match &target {
            Some(target) => {
                let rest = path.strip_prefix(target.as_str());
                rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
            }
            None => path.starts_with(&folder),
        })
    }
}

/// Whether a path ends in a file of this stem.
fn is_file(path: &str, stem: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".rs") == Some(stem)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every test that a row names and that does not exist, and every row without the five cells.
pub(crate) fn check(text: &str, known: &Known) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut fail = |line, what| {
        found.push(Violation {
            path: DOCUMENT.to_owned(),
            line,
            what,
            why: "a row keeps its promise only while its test exists",
            fix: "name the test that fails when the defect comes back, as `function` or `module::function`",
        });
    };
    for (index, row) in text.lines().enumerate() {
        let Some(row) = row
            .strip_prefix("| ")
            .and_then(|row| row.strip_suffix(" |"))
        else {
            continue;
        };
        let cells: Vec<&str> = row.split(" | ").collect();
        if cells.len() != CELLS {
            let what = format!("a row has {} cells instead of {CELLS}", cells.len());
            fail(index + 1, what);
            continue;
        }
        let tests = cells.last().copied().unwrap_or_default();
        for name in tests.split('`').skip(1).step_by(2) {
            let is_known = match name.starts_with("cargo test ") {
                true => known.has_target(name),
                false => !is_test(name) || known.has(name),
            };
            if !is_known {
                fail(index + 1, format!("the test `{name}` does not exist"));
            }
        }
    }
    found
}

/// Whether a name is one of a test: a function whose name is a sentence. Others are types, settings and commands.
fn is_test(name: &str) -> bool {
    let function = name.rsplit("::").next().unwrap_or(name);
    let is_path = name.chars().all(|c| is_of_name(c) || c == ':');
    is_path && function.contains('_') && !function.contains(char::is_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(cell: &str) -> Vec<String> {
        let mut known = Known::default();
        known.add(
            "crates/store/src/conformance/reads.rs",
            "/// Rule.\npub async fn a_read_ends(x: u8) {}\nfn other_fn () {}",
        );
        known.add("crates/store/tests/it/main.rs", "");
        known.add("crates/derive/tests/ui/skipped_variant.rs", "fn main() {}");
        let row = format!("| a | b | c | d | {cell} |");
        let found = check(&row, &known).into_iter();
        found.map(|violation| violation.what).collect()
    }

    #[test]
    fn tests_are_found_by_function_and_module() {
        assert_eq!(broken("`a_read_ends` and `reads::a_read_ends`"), [""; 0]);
        assert_eq!(broken("unit test `other_fn` (store)"), [""; 0]);
        assert_eq!(
            broken("`a_read_begins`"),
            ["the test `a_read_begins` does not exist"]
        );
        assert_eq!(
            broken("`writes::a_read_ends`"),
            ["the test `writes::a_read_ends` does not exist"]
        );
    }

    #[test]
    fn files_and_targets_count_as_tests() {
        assert_eq!(
            broken("(`skipped_variant`), `cargo test -p store --test it`"),
            [""; 0]
        );
        assert_eq!(broken("`cargo test -p store --test gone`").len(), 1);
        assert_eq!(broken("`cargo test -p gone`").len(), 1);
    }

    #[test]
    fn words_types_and_commands_are_no_tests() {
        assert_eq!(
            broken("none: by construction, `LogRestore`, `telemetry::span`"),
            [""; 0]
        );
        assert_eq!(
            broken("`scripts/interop.sh python` with `LEFTFOLD_SEED`"),
            [""; 0]
        );
    }

    #[test]
    fn a_row_has_five_cells() {
        assert_eq!(check("| a | b |", &Known::default()).len(), 1);
        assert_eq!(check("|---|---|---|---|---|", &Known::default()), []);
    }
}
