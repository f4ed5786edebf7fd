//! Words that the glossary says not to use, in the names of the code.
//!
//! **Owns:** reading the words from the glossary, and which names they are looked for in.
//! **Does not know:** the words; docs/glossary.md has them.
//! **Invariants:** a word is banned if the third column marks it as code; a banned word is found as a whole name and as
//! a word within one: `door` in `Door`, `door.rs` and `open_door`, not in `indoors`. Names in tests are free, and so are
//! functions whose names are sentences.

use syn::visit::{self, Visit};

use crate::{CheckError, source::Source, violation::Violation};

/// Where the words are.
pub(crate) const DOCUMENT: &str = "docs/glossary.md";

/// The column of the words not to use, from 0.
const COLUMN: usize = 2;
/// A function's name of more words is a sentence, as those of tests and of the conformance rules are.
const NAME_WORDS_MAX: usize = 5;

/// A word not to use, and what to say instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Banned {
    word: Vec<String>,
    term: String,
}

/// The banned words of the glossary.
pub(crate) fn banned(document: &str) -> Vec<Banned> {
    let mut found = Vec::new();
    for row in document.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (Some(term), Some(words)) = (cells.first(), cells.get(COLUMN)) else {
            continue;
        };
        found.extend(words.split('`').skip(1).step_by(2).map(|word| Banned {
            word: words_of(word),
            term: term.replace('*', ""),
        }));
    }
    found
}

/// Every banned word in the names that a file declares, and in its path.
pub(crate) fn check(source: &Source, banned: &[Banned]) -> Result<Vec<Violation>, CheckError> {
    let in_crate = source.path.strip_prefix("crates/");
    let Some((_, below)) = in_crate.and_then(|path| path.split_once("/src/")) else {
        return Ok(Vec::new());
    };
    if source.is_test_file() {
        return Ok(Vec::new());
    }
    let syntax = syn::parse_file(&source.text)
        .map_err(|e| CheckError::new(format_args!("parse {}", source.path), e))?;
    let mut names = Names(Vec::new());
    names.visit_file(&syntax);
    names.0.retain(|(_, line)| !source.is_test_line(*line));
    let stems = below.trim_end_matches(".rs").split('/');
    names.0.extend(stems.map(|stem| (stem.to_owned(), 1)));
    let mut found = Vec::new();
    for (name, line) in names.0 {
        let words = words_of(&name);
        let holds = |banned: &&Banned| {
            words
                .windows(banned.word.len())
                .any(|part| part == banned.word)
        };
        found.extend(banned.iter().filter(holds).map(|banned| Violation {
            path: source.path.clone(),
            line,
            what: format!(
                "the name `{name}` uses `{}` for what the glossary calls {}",
                banned.word.join("_"),
                banned.term
            ),
            why: "readers search for the terms they know, and take two words for two things",
            fix: "use the glossary's term, or one that is as exact",
        }));
    }
    Ok(found)
}

/// The words of a name, in lower case: `snake_case`, `CamelCase` and `SCREAMING_CASE`.
fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = '_';
    for c in name.chars() {
        let starts = !previous.is_alphanumeric() || c.is_uppercase() && !previous.is_uppercase();
        if c.is_alphanumeric() {
            match words.last_mut().filter(|_| !starts) {
                Some(word) => word.extend(c.to_lowercase()),
                None => words.push(c.to_lowercase().collect()),
            }
        }
        previous = c;
    }
    words
}

/// The names that a file declares, each with its line.
#[derive(Debug)]
struct Names(Vec<(String, usize)>);

impl Names {
    fn add(&mut self, name: &syn::Ident) {
        self.0.push((name.to_string(), name.span().start().line));
    }

    fn add_function(&mut self, name: &syn::Ident) {
        if words_of(&name.to_string()).len() <= NAME_WORDS_MAX {
            self.add(name);
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_signature(&mut self, item: &'ast syn::Signature) {
        self.add_function(&item.ident);
    }
    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.add(&item.ident);
        visit::visit_item_struct(self, item);
    }
    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.add(&item.ident);
        visit::visit_item_enum(self, item);
    }
    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.add(&item.ident);
        visit::visit_item_trait(self, item);
    }
    fn visit_item_type(&mut self, item: &'ast syn::ItemType) {
        self.add(&item.ident);
    }
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.add(&item.ident);
    }
    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.add(&item.ident);
    }
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.add(&item.ident);
        visit::visit_item_mod(self, item);
    }
    fn visit_variant(&mut self, variant: &'ast syn::Variant) {
        self.add(&variant.ident);
        visit::visit_variant(self, variant);
    }
    fn visit_field(&mut self, field: &'ast syn::Field) {
        if let Some(name) = &field.ident {
            self.add(name);
        }
        visit::visit_field(self, field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLOSSARY: &str = "\
| term | definition | words not to use | who calls it that |
|---|---|---|---|
| **connection limit** | how many | `door`, gate | tower |
| **tombstone** | gone permanently | `for good` | KurrentDB |
";

    fn whats(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text), &banned(GLOSSARY))
            .unwrap()
            .into_iter()
            .map(|v| format!("{}: {}", v.line, v.what))
            .collect()
    }

    fn found(text: &str) -> usize {
        whats("crates/a/src/b.rs", text).len()
    }

    #[test]
    fn the_glossary_of_the_project_bans_words() {
        let document = include_str!("../../../docs/glossary.md");
        assert!(banned(document).len() > 20);
    }

    #[test]
    fn a_banned_word_is_found_in_every_kind_of_name() {
        for text in [
            "fn open_door() {}",
            "struct Door;",
            "enum E { DoorOpen }",
            "trait Doors { fn door(&self); }",
            "struct S { door: u8 }",
            "const DOOR_MAX: u8 = 1;",
            "mod door {}",
            "type ForGood = u8;",
            "impl S { fn delete_for_good(&self) {} }",
        ] {
            assert_eq!(found(text), 1, "{text}");
        }
        let expected =
            "2: the name `Door` uses `door` for what the glossary calls connection limit";
        assert_eq!(whats("crates/a/src/b.rs", "\nstruct Door;"), [expected]);
    }

    #[test]
    fn a_banned_word_is_found_as_the_stem_of_a_file_and_of_a_folder() {
        assert_eq!(whats("crates/a/src/door.rs", "").len(), 1);
        assert_eq!(whats("crates/a/src/door/part.rs", "").len(), 1);
        assert!(whats("crates/door/src/part.rs", "").is_empty());
    }

    #[test]
    fn advice_other_words_and_longer_words_pass() {
        assert_eq!(
            found("fn gate() {} fn indoors() {} fn good() {} fn f(door: u8) {}"),
            0
        );
    }

    #[test]
    fn tests_and_sentences_may_use_any_word() {
        assert_eq!(found("#[cfg(test)]\nmod tests {\n    fn door() {}\n}\n"), 0);
        assert_eq!(found("fn a_door_that_is_open_stays_so() {}"), 0);
        assert!(whats("crates/a/tests/it/b.rs", "struct Door;").is_empty());
    }
}
