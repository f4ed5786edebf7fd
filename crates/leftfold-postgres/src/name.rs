//! Names as PostgreSQL's text can hold them.
//!
//! **Owns:** the escape of the character U+0000, which text of PostgreSQL cannot hold and names can.
//! **Does not know:** what is named.
//! **Invariants:** no two names are stored alike; the byte order of stored names is that of the names, and a prefix stays a
//! prefix, so listings by the collation "C" need no decoding; names without U+0000 and U+0001 are stored as they are.

use std::borrow::Cow;

/// `\0` becomes `\1\1` and `\1` becomes `\1\2`: both stay below `\2`, and in their order.
const MARK: char = '\u{1}';
const ZERO: char = '\u{1}';
const ONE: char = '\u{2}';

/// The text that stands for a name in the database.
pub(crate) fn stored(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte > 1) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 8);
    for character in name.chars() {
        match character {
            '\0' => text.extend([MARK, ZERO]),
            '\u{1}' => text.extend([MARK, ONE]),
            other => text.push(other),
        }
    }
    Cow::Owned(text)
}

/// The name that a text of the database stands for; `None` if this program cannot have written it.
pub(crate) fn restored(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(MARK) {
        return Some(Cow::Borrowed(text));
    }
    let mut name = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        name.push(match character {
            MARK => match characters.next()? {
                ZERO => '\0',
                ONE => '\u{1}',
                _ => return None,
            },
            other => other,
        });
    }
    Some(Cow::Owned(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 12] = [
        "",
        "a",
        "\0",
        "\u{1}",
        "\0\0",
        "\0\u{1}",
        "\u{1}\0",
        "\u{2}",
        "a\0",
        "a\u{1}b",
        "a\u{2}",
        "\u{e9}\0z",
    ];

    #[test]
    fn every_name_comes_back_and_holds_no_zero() {
        for name in NAMES {
            assert!(!stored(name).contains('\0'));
            assert_eq!(restored(&stored(name)).unwrap(), name);
        }
    }

    #[test]
    fn order_and_prefixes_are_kept() {
        for a in NAMES {
            for b in NAMES {
                assert_eq!(
                    stored(a).as_bytes().cmp(stored(b).as_bytes()),
                    a.as_bytes().cmp(b.as_bytes())
                );
                assert_eq!(stored(a).starts_with(&*stored(b)), a.starts_with(b));
            }
        }
    }

    #[test]
    fn a_text_that_was_never_written_is_refused() {
        assert_eq!(restored("a\u{1}"), None);
        assert_eq!(restored("a\u{1}b"), None);
    }
}
