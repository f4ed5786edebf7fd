//! The documents that must name everything of a kind: crates and modules, and dependencies.
//!
//! **Owns:** what counts as naming one. **Does not know:** whether what a document says is true.
//! **Invariants:** a name counts only where it is marked as code, because `read` and `error` are also English.

use crate::{source::find_word, violation::Violation};

/// The map of the code.
pub(crate) const DOCUMENT: &str = "ARCHITECTURE.md";

/// The list of crates from elsewhere, with reasons.
pub(crate) const DEPENDENCIES: &str = "docs/dependencies.md";

/// The top-level modules that a crate's root declares.
pub(crate) fn modules(lib: &str) -> Vec<String> {
    let declared = lib.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?
            .strip_suffix(';')
            .map(str::to_owned)
    });
    let mut modules: Vec<String> = declared.collect();
    modules.sort();
    modules.dedup();
    modules
}

/// Every crate and module that the map leaves out.
pub(crate) fn check(
    document: Option<&str>,
    crates: &[String],
    modules: &[String],
) -> Vec<Violation> {
    let missing = |what: String| Violation {
        path: DOCUMENT.to_owned(),
        line: 1,
        what,
        why: "a newcomer finds the way by this map; what it leaves out is not found",
        fix: "say in one line what it is for and what it does not know",
    };
    let Some(document) = document else {
        return vec![missing("the map of the code does not exist".to_owned())];
    };
    let crates = unnamed(document, crates).map(|name| format!("the crate `{name}` is missing"));
    let modules = unnamed(document, modules).map(|name| format!("the module `{name}` is missing"));
    crates.chain(modules).map(missing).collect()
}

/// Every crate from elsewhere that the list of dependencies leaves out.
pub(crate) fn check_dependencies(document: &str, dependencies: &[String]) -> Vec<Violation> {
    unnamed(document, dependencies)
        .map(|name| Violation {
            path: DEPENDENCIES.to_owned(),
            line: 1,
            what: format!("the dependency `{name}` is missing"),
            why: "each crate is code that the project answers for, so each has a reason",
            fix: "say in one line what it is for, who uses it and how large it is",
        })
        .collect()
}

/// The names that a document does not mark as code anywhere.
fn unnamed<'a>(document: &str, names: &'a [String]) -> impl Iterator<Item = &'a String> {
    let code = marked_as_code(document);
    let joins = |c: Option<char>| c == Some('-');
    names.iter().filter(move |name| {
        !find_word(&code, name).any(|offset| {
            let (before, from) = code.split_at(offset);
            !joins(before.chars().next_back()) && !joins(from.chars().nth(name.len()))
        })
    })
}

/// Code spans and fenced blocks of a document.
fn marked_as_code(document: &str) -> String {
    let mut code = String::new();
    for (index, block) in document.split("```").enumerate() {
        if index % 2 == 1 {
            code.push_str(block);
            code.push('\n');
        } else {
            for span in block.split('`').skip(1).step_by(2) {
                code.push_str(span);
                code.push('\n');
            }
        }
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(document: Option<&str>) -> usize {
        check(document, &["leftfold-log".to_owned()], &["read".to_owned()]).len()
    }

    #[test]
    fn a_map_that_names_everything_as_code_passes() {
        assert_eq!(
            missing(Some("`leftfold-log` has\n```\nappend read\n```\n")),
            0
        );
        assert_eq!(missing(Some("`crates/leftfold-log/` and `read/`")), 0);
    }

    #[test]
    fn a_name_in_plain_prose_does_not_count() {
        assert_eq!(missing(Some("`leftfold-log`: we read a lot")), 1);
    }

    #[test]
    fn a_longer_name_does_not_stand_for_a_shorter_one() {
        assert_eq!(missing(Some("`leftfold-log-2` and `read`")), 1);
    }

    #[test]
    fn a_missing_map_is_a_violation() {
        assert_eq!(missing(None), 1);
    }

    #[test]
    fn every_dependency_needs_its_line() {
        let dependencies = ["bytes".to_owned()];
        assert!(check_dependencies("| `bytes` | shared data |", &dependencies).is_empty());
        assert_eq!(check_dependencies("counts bytes", &dependencies).len(), 1);
    }

    #[test]
    fn modules_of_the_root_are_found_once_each() {
        let lib = "mod read;\npub mod disk;\n#[cfg(a)]\npub mod planted;\n#[cfg(b)]\nmod planted;\nuse x;\n";
        assert_eq!(modules(lib), ["disk", "planted", "read"]);
    }
}
