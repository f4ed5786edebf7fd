//! The text of one source file: its header, its size, its characters, what must not stand in it.
//!
//! **Owns:** the limits of a file. **Does not know:** names of files and tests (`names`), imports (`layers`).
//! **Invariants:** tests, examples and benchmarks need a first sentence but no list of what they own.

use crate::{
    source::{Source, find_word, line_at},
    violation::Violation,
};

/// Longest first sentence, so that a list of files with their sentences reads well.
const SENTENCE_CHARS_MAX: usize = 100;
/// Longest line. The formatter wraps code at 100; this is for comments and texts, which it leaves alone.
const LINE_CHARS_MAX: usize = 130;
/// Most lines outside tests: about what one reader holds in mind in one sitting.
const LINES_MAX: usize = 600;
/// Most lines with tests.
const LINES_WITH_TESTS_MAX: usize = 1_000;

/// Marks of unfinished work; they are looked for in comments too.
const MARKS: [&str; 4] = ["TODO", "FIXME", "XXX", "HACK"];
/// Code that must not be there, with the reason and the remedy.
const BANNED: [(&str, &str, &str); 5] = [
    (
        "#[ignore",
        "a test that does not run protects nothing",
        "make it run everywhere, or delete it",
    ),
    (
        "should_panic",
        "it passes for any panic, the wrong one too",
        "return the error and compare it",
    ),
    ("dbg!", "it prints into the user's terminal", "remove it"),
    (
        "todo!",
        "it panics when it is reached",
        "write the missing part",
    ),
    (
        "unimplemented!",
        "it panics when it is reached",
        "write the missing part",
    ),
];

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(header(source));
    found.extend(size(source));
    found.extend(lines(source));
    found.extend(banned(source));
    found
}

fn at(
    source: &Source,
    line: usize,
    what: impl Into<String>,
    why: &'static str,
    fix: &'static str,
) -> Violation {
    Violation {
        path: source.path.clone(),
        line,
        what: what.into(),
        why,
        fix,
    }
}

fn header(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let header: Vec<&str> = source
        .text
        .lines()
        .take_while(|l| l.starts_with("//!"))
        .collect();
    let Some(first) = header.first().and_then(|line| line.strip_prefix("//!")) else {
        return vec![at(
            source,
            1,
            "the file does not open with a `//!` header",
            "a reader must learn in one sentence what the file is for",
            "open it with one sentence after `//! `",
        )];
    };
    let sentence = first.trim();
    if !sentence.ends_with('.') || sentence.contains(". ") {
        found.push(at(
            source,
            1,
            "the header's first line is not one sentence that ends with a period",
            "the first lines of all files together are the project's table of contents",
            "write one sentence, and the rest below an empty `//!` line",
        ));
    }
    let length = sentence.chars().count();
    if length > SENTENCE_CHARS_MAX {
        found.push(at(
            source,
            1,
            format!(
                "the header's first line has {length} characters, {SENTENCE_CHARS_MAX} allowed"
            ),
            "the first lines of all files together are the project's table of contents",
            "say what the file is for, and leave how to the lines below",
        ));
    }
    let text = header.join("\n");
    if !source.is_test_file() {
        if !text.contains("**Owns:**") {
            found.push(at(
                source,
                1,
                "the header does not say what the file owns",
                "a rule with no owner is written twice",
                "add a line `//! **Owns:** ...`",
            ));
        }
        if !text.contains("**Does not know:**") && !text.contains("**Invariants:**") {
            found.push(at(
                source,
                1,
                "the header names neither what the file does not know nor its invariants",
                "what is deliberately absent cannot be read from code",
                "add a line `//! **Does not know:** ...` or `//! **Invariants:** ...`",
            ));
        }
    }
    found
}

fn size(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let (total, outside) = (source.text.lines().count(), source.lines_outside_tests());
    if !source.is_test_file() && outside > LINES_MAX {
        found.push(at(
            source,
            LINES_MAX,
            format!("{outside} lines outside tests, {LINES_MAX} allowed"),
            "a reader cannot keep a longer file in mind",
            "split it by concern, not by length",
        ));
    }
    if total > LINES_WITH_TESTS_MAX {
        found.push(at(
            source,
            LINES_WITH_TESTS_MAX,
            format!("{total} lines, {LINES_WITH_TESTS_MAX} allowed with tests"),
            "a reader cannot keep a longer file in mind",
            "move tests to a sibling `tests.rs`, or split the file by concern",
        ));
    }
    found
}

fn lines(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, text) in source
        .text
        .lines()
        .enumerate()
        .map(|(index, text)| (index + 1, text))
    {
        if let Some(c) = text.chars().find(|c| !c.is_ascii()) {
            found.push(at(
                source,
                line,
                format!("the character U+{:04X}", u32::from(c)),
                "look-alike and invisible characters hide bugs from reviewers",
                "use ASCII; in a literal write `\\u{...}`",
            ));
        }
        let length = text.chars().count();
        if length > LINE_CHARS_MAX {
            found.push(at(
                source,
                line,
                format!("{length} characters in a line, {LINE_CHARS_MAX} allowed"),
                "two files must fit side by side on a screen",
                "break the line",
            ));
        }
    }
    found
}

fn banned(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for mark in MARKS {
        found.extend(find_word(&source.words, mark).map(|offset| {
            at(
                source,
                line_at(&source.words, offset),
                format!("the mark {mark}"),
                "work that is left for later belongs where it is planned, not where it is forgotten",
                "do it, or take the remark out",
            )
        }));
    }
    for (text, why, fix) in BANNED {
        found.extend(find_word(&source.code, text).map(|offset| {
            at(
                source,
                line_at(&source.code, offset),
                format!("`{text}`"),
                why,
                fix,
            )
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "//! Keeps one thing.\n//!\n//! **Owns:** it. **Does not know:** more.\n";

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text))
            .into_iter()
            .map(|v| v.what)
            .collect()
    }

    fn broken(text: &str) -> usize {
        whats("src/thing.rs", text).len()
    }

    #[test]
    fn a_file_with_a_full_header_is_well_formed() {
        assert_eq!(broken(GOOD), 0);
    }

    #[test]
    fn a_file_without_a_header_is_found() {
        assert_eq!(broken("fn main() {}\n"), 1);
    }

    #[test]
    fn a_first_line_that_is_no_single_sentence_is_found() {
        assert_eq!(broken(&GOOD.replace("thing.", "thing")), 1);
        assert_eq!(broken(&GOOD.replace("thing.", "thing. And another.")), 1);
    }

    #[test]
    fn a_first_line_over_the_limit_is_found() {
        let sentence = |chars: usize| GOOD.replace("Keeps one thing", &"x".repeat(chars - 1));
        assert_eq!(broken(&sentence(SENTENCE_CHARS_MAX)), 0);
        assert_eq!(broken(&sentence(SENTENCE_CHARS_MAX + 1)), 1);
    }

    #[test]
    fn a_header_that_says_nothing_about_ownership_is_found_except_in_tests() {
        let bare = "//! Keeps one thing.\n";
        assert_eq!(broken(bare), 2);
        assert!(whats("crates/x/tests/it/main.rs", bare).is_empty());
        assert!(whats("crates/x/src/tests.rs", bare).is_empty());
    }

    #[test]
    fn file_sizes_are_limited_with_and_without_tests() {
        let code = |lines: usize| format!("{GOOD}{}", "a();\n".repeat(lines - 3));
        let with_tests = |lines: usize| {
            format!(
                "{GOOD}#[cfg(test)]\nmod tests {{\n{}}}\n",
                "    a();\n".repeat(lines - 6)
            )
        };
        assert_eq!(broken(&code(LINES_MAX)), 0);
        assert_eq!(broken(&code(LINES_MAX + 1)), 1);
        assert_eq!(broken(&with_tests(LINES_WITH_TESTS_MAX)), 0);
        assert_eq!(broken(&with_tests(LINES_WITH_TESTS_MAX + 1)), 1);
    }

    #[test]
    fn a_character_outside_ascii_is_found_in_comments_and_literals() {
        assert_eq!(broken(&format!("{GOOD}// na\u{ef}ve\n")), 1);
        assert_eq!(broken(&format!("{GOOD}const A: char = '\u{2013}';\n")), 1);
    }

    #[test]
    fn a_line_over_the_limit_is_found() {
        let comment = |chars: usize| format!("{GOOD}// {}\n", "x".repeat(chars - 3));
        assert_eq!(broken(&comment(LINE_CHARS_MAX)), 0);
        assert_eq!(broken(&comment(LINE_CHARS_MAX + 1)), 1);
    }

    #[test]
    fn marks_of_unfinished_work_are_found_in_comments_but_not_in_literals() {
        for mark in MARKS {
            assert_eq!(broken(&format!("{GOOD}// {mark}: later\n")), 1, "{mark}");
            assert_eq!(
                broken(&format!("{GOOD}const A: &str = \"{mark}\";\n")),
                0,
                "{mark}"
            );
        }
    }

    #[test]
    fn banned_code_is_found_in_code_only() {
        for (text, _, _) in BANNED {
            assert_eq!(broken(&format!("{GOOD}{text}\n")), 1, "{text}");
            assert_eq!(broken(&format!("{GOOD}// {text}\n")), 0, "{text}");
        }
    }
}
