//! A Rust file split into code, comments and literals, without a full parser.
//!
//! **Owns:** telling code from comments and literals, and test code from the rest.
//! **Does not know:** any rule. Nothing here judges.
//! **Invariants:** [`Source::code`] and [`Source::words`] have exactly the lines of the file, and every kept
//! character stands in its own column, so a place found in them is a place in the file.

/// A Rust file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path below the root.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The file with comments and the insides of literals blanked.
    pub(crate) code: String,
    /// The file with only the insides of literals blanked: what people say, and code.
    pub(crate) words: String,
    /// For each line, whether it belongs to an item under `#[cfg(test)]`.
    test_lines: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let (code, words) = Split::of(&text);
        let test_lines = test_lines(&code);
        Self {
            path,
            text,
            code,
            words,
            test_lines,
        }
    }

    /// Whether the whole file is tests, an example or a benchmark, told by its path.
    pub(crate) fn is_test_file(&self) -> bool {
        let mut parts = self.path.split('/').rev();
        let name = parts.next().unwrap_or_default();
        matches!(name, "tests.rs" | "build.rs")
            || parts.any(|part| matches!(part, "tests" | "examples" | "benches"))
    }

    /// Whether a line, counted from 1, is test code.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test_file()
            || line
                .checked_sub(1)
                .and_then(|i| self.test_lines.get(i))
                .copied()
                .unwrap_or(false)
    }

    /// Number of lines that are not under `#[cfg(test)]`.
    pub(crate) fn lines_outside_tests(&self) -> usize {
        self.test_lines.iter().filter(|is_test| !**is_test).count()
    }
}

/// The line of a byte offset, from 1.
pub(crate) fn line_at(text: &str, offset: usize) -> usize {
    text.bytes()
        .take(offset)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1
}

/// Byte offsets of `word` in `text` where no identifier character touches it.
pub(crate) fn find_word<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .map(|(offset, _)| offset)
        .filter(move |offset| {
            let before = text.get(..*offset).and_then(|t| t.chars().next_back());
            let after = text
                .get(offset + word.len()..)
                .and_then(|t| t.chars().next());
            let open_start = !word.starts_with(joins) || !before.is_some_and(joins);
            let open_end = !word.ends_with(joins) || !after.is_some_and(joins);
            open_start && open_end
        })
}

/// Marks the lines of every item under `#[cfg(test)]`: to the line that ends it at the same indentation, which
/// is where the formatter puts the closing brace.
fn test_lines(code: &str) -> Vec<bool> {
    let mut marks = Vec::new();
    let mut inside: Option<(String, bool)> = None;
    for line in code.lines() {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        let rest = line.trim();
        if let Some((opening, started)) = &mut inside {
            marks.push(true);
            let at_opening = indent == *opening && !rest.is_empty();
            let ends_at_once = at_opening && !*started && !rest.starts_with("#[");
            if at_opening && rest.starts_with('}') {
                inside = None;
            } else if ends_at_once {
                if rest.ends_with(';') || rest.ends_with('}') {
                    inside = None;
                } else {
                    *started = true;
                }
            }
        } else if rest == "#[cfg(test)]" {
            inside = Some((indent, false));
            marks.push(true);
        } else {
            marks.push(false);
        }
    }
    marks
}

/// What a character belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// The splitter's place in the file.
#[derive(Debug)]
struct Split<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    code: String,
    words: String,
}

impl<'a> Split<'a> {
    fn of(text: &'a str) -> (String, String) {
        let size = text.len();
        let mut split = Self {
            rest: text.chars().peekable(),
            code: String::with_capacity(size),
            words: String::with_capacity(size),
        };
        let mut previous = ' ';
        while let Some(c) = split.rest.peek().copied() {
            match c {
                '/' => split.slash(),
                '"' => split.string(),
                '\'' => split.quote(),
                'r' if !is_word(previous) || previous == 'b' || previous == 'c' => {
                    split.maybe_raw()
                }
                _ => {
                    split.take(Part::Code);
                }
            }
            previous = split.code.chars().next_back().unwrap_or(' ');
        }
        (split.code, split.words)
    }

    /// Moves one character over, blanking it where it does not belong.
    fn take(&mut self, part: Part) -> Option<char> {
        let c = self.rest.next()?;
        let blank = if c == '\n' { '\n' } else { ' ' };
        self.code.push(if part == Part::Code { c } else { blank });
        self.words
            .push(if part == Part::Literal { blank } else { c });
        Some(c)
    }

    fn slash(&mut self) {
        let mut ahead = self.rest.clone();
        ahead.next();
        match ahead.next() {
            Some('/') => {
                while self.rest.peek().is_some_and(|c| *c != '\n') {
                    self.take(Part::Comment);
                }
            }
            Some('*') => self.block_comment(),
            _ => {
                self.take(Part::Code);
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        let mut previous = ' ';
        while let Some(c) = self.take(Part::Comment) {
            match (previous, c) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth = depth.saturating_sub(1),
                _ => {
                    previous = c;
                    continue;
                }
            }
            previous = ' ';
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.take(Part::Code);
        while let Some(c) = self.rest.peek().copied() {
            match c {
                '"' => {
                    self.take(Part::Code);
                    return;
                }
                '\\' => {
                    self.take(Part::Literal);
                    self.take(Part::Literal);
                }
                _ => {
                    self.take(Part::Literal);
                }
            }
        }
    }

    /// A character literal, or the start of a lifetime.
    fn quote(&mut self) {
        let mut ahead = self.rest.clone();
        ahead.next();
        let (first, second) = (ahead.next(), ahead.next());
        self.take(Part::Code);
        if first == Some('\\') {
            self.take(Part::Literal);
            self.take(Part::Literal);
            while self.rest.peek().is_some_and(|c| *c != '\'') {
                self.take(Part::Literal);
            }
            self.take(Part::Code);
        } else if second == Some('\'') {
            self.take(Part::Literal);
            self.take(Part::Code);
        }
    }

    /// A raw string, or a word that starts with `r`.
    fn maybe_raw(&mut self) {
        let mut ahead = self.rest.clone();
        ahead.next();
        let mut hashes = 0_usize;
        while ahead.peek() == Some(&'#') {
            ahead.next();
            hashes += 1;
        }
        if ahead.peek() != Some(&'"') {
            self.take(Part::Code);
            return;
        }
        for _ in 0..hashes + 2 {
            self.take(Part::Code);
        }
        while let Some(c) = self.rest.peek().copied() {
            let mut ahead = self.rest.clone();
            ahead.next();
            if c == '"' && ahead.take(hashes).filter(|c| *c == '#').count() == hashes {
                for _ in 0..=hashes {
                    self.take(Part::Code);
                }
                return;
            }
            self.take(Part::Literal);
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(text: &str) -> String {
        Source::new("src/sample.rs", text).code
    }

    #[test]
    fn comments_leave_the_code_in_its_columns() {
        assert_eq!(
            code_of("a // b\nc /* /* */ */ d"),
            "a     \nc             d"
        );
    }

    #[test]
    fn literals_keep_their_quotes_and_lose_their_insides() {
        assert_eq!(
            code_of(r#"let a = "b \" // c"; d"#),
            r#"let a = "         "; d"#
        );
        assert_eq!(code_of("br#\"x\"y\"#; z"), "br#\"   \"#; z");
        assert_eq!(
            code_of(r"['a', '\'', '\u{1}'] <'b>"),
            r"[' ', '  ', '     '] <'b>"
        );
    }

    #[test]
    fn words_keep_comments_and_lose_literals() {
        let source = Source::new("src/sample.rs", "// said\nlet a = \"b\";");
        assert_eq!(source.words, "// said\nlet a = \" \";");
    }

    #[test]
    fn items_for_tests_only_are_marked_and_nothing_after_them_is() {
        let text =
            "fn a() {}\n#[cfg(test)]\nmod tests;\nfn b() {}\n#[cfg(test)]\nmod t {\n    x\n}\nc";
        let source = Source::new("src/sample.rs", text);
        let marked: Vec<usize> = (1..=9).filter(|line| source.is_test_line(*line)).collect();
        assert_eq!(marked, [2, 3, 5, 6, 7, 8]);
        assert_eq!(source.lines_outside_tests(), 3);
    }

    #[test]
    fn words_are_found_only_where_nothing_touches_them() {
        let found: Vec<usize> = find_word("a ab a_ (a) #[a]", "a").collect();
        assert_eq!(found, [0, 9, 14]);
    }
}
