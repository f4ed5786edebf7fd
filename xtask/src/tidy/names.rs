//! The names of files and of tests.
//!
//! **Owns:** which names say nothing. **Does not know:** what is in a file besides its tests' names.

use crate::{
    source::{Source, line_at},
    violation::Violation,
};

/// File names that any code would fit into.
const EMPTY_NAMES: [&str; 8] = [
    "util", "utils", "common", "misc", "helper", "helpers", "types", "imp",
];
/// Fewest words in a test's name: less is a topic, not a statement.
const TEST_WORDS_MIN: usize = 3;

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let stems = source
        .path
        .split('/')
        .map(|part| part.strip_suffix(".rs").unwrap_or(part));
    for stem in stems.filter(|stem| EMPTY_NAMES.contains(stem)) {
        found.push(Violation {
            path: source.path.clone(),
            line: 1,
            what: format!("the name `{stem}`"),
            why: "a name that fits anything tells nothing, and such a file grows without end",
            fix: "name the noun that the file owns",
        });
    }
    for (line, name) in tests(source) {
        let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
        let what = if words.contains(&"test") {
            format!("the test `{name}` says that it is a test")
        } else if words.len() < TEST_WORDS_MIN {
            format!(
                "the test `{name}` has {} words, {TEST_WORDS_MIN} needed",
                words.len()
            )
        } else {
            continue;
        };
        found.push(Violation {
            path: source.path.clone(),
            line,
            what,
            why: "the list of tests is the list of what the code does",
            fix: "name it with a sentence that is true when it passes",
        });
    }
    found
}

/// The functions under a test attribute, each with its line.
fn tests(source: &Source) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (offset, _) in source.code.match_indices("#[") {
        let Some(attribute) = source.code.get(offset + 2..) else {
            continue;
        };
        let path = attribute
            .split([']', '('])
            .next()
            .unwrap_or_default()
            .trim();
        if path != "test" && !path.ends_with("::test") {
            continue;
        }
        let Some((_, rest)) = attribute.split_once("fn ") else {
            continue;
        };
        let name = rest
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default();
        if name.is_empty() {
            // A macro's pattern: the name is written where the macro is used.
            continue;
        }
        found.push((line_at(&source.code, source.code.len() - rest.len()), name));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text))
            .into_iter()
            .map(|v| v.what)
            .collect()
    }

    #[test]
    fn a_file_named_by_a_noun_passes_and_one_that_fits_anything_does_not() {
        assert!(whats("crates/x/src/record/frame.rs", "").is_empty());
        assert_eq!(whats("crates/x/src/utils.rs", "").len(), 1);
        assert_eq!(whats("crates/x/src/helpers/frame.rs", "").len(), 1);
    }

    #[test]
    fn names_that_are_sentences_pass() {
        let text = "#[test]\nfn recovery_drops_a_torn_tail() {}\n#[tokio::test(flavor = \"x\")]\nasync fn a_b_c() {}";
        assert!(whats("a.rs", text).is_empty());
    }

    #[test]
    fn names_that_say_what_they_are_are_found() {
        assert_eq!(whats("a.rs", "#[test]\nfn test_of_the_tail() {}").len(), 1);
        assert!(whats("a.rs", "#[test]\nfn the_latest_tail_wins() {}").is_empty());
    }

    #[test]
    fn names_of_two_words_are_found_with_their_line() {
        let found = check(&Source::new(
            "a.rs",
            "\n#[tokio::test]\n#[cfg(unix)]\nasync fn torn_tail() {}",
        ));
        assert_eq!(found.iter().map(|v| v.line).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn functions_that_are_no_tests_may_have_short_names() {
        assert!(whats("a.rs", "#[inline]\nfn len() {}\n// #[test]\nfn test() {}").is_empty());
    }
}
