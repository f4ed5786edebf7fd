//! Escaping of names for PostgreSQL's `text`, which cannot contain U+0000.
//!
//! **Owns:** the escape. **Does not know:** what the names mean.
//! **Invariants:** the escape is injective. It preserves byte order and prefixes, so listings under the collation "C" need
//! no decoding. Names without U+0000 and U+0001 are stored unchanged.

use std::borrow::Cow;

/// `\0` becomes `\1\1` and `\1` becomes `\1\2`: both stay below `\2`, and in their order.
const ESCAPE: char = '\u{1}';
const ESCAPED_0: char = '\u{1}';
const ESCAPED_1: char = '\u{2}';

/// Escapes a name.
pub(crate) fn escaped(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte > 1) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len() + 8);
    for character in name.chars() {
        match character {
            '\0' => text.extend([ESCAPE, ESCAPED_0]),
            '\u{1}' => text.extend([ESCAPE, ESCAPED_1]),
            other => text.push(other),
        }
    }
    Cow::Owned(text)
}

/// Unescapes a stored name; `None` if no name is stored like this.
pub(crate) fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(ESCAPE) {
        return Some(Cow::Borrowed(text));
    }
    let mut name = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        name.push(match character {
            ESCAPE => match characters.next()? {
                ESCAPED_0 => '\0',
                ESCAPED_1 => '\u{1}',
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
            assert!(!escaped(name).contains('\0'));
            assert_eq!(unescaped(&escaped(name)).unwrap(), name);
        }
    }

    #[test]
    fn order_and_prefixes_are_kept() {
        for a in NAMES {
            for b in NAMES {
                assert_eq!(
                    escaped(a).as_bytes().cmp(escaped(b).as_bytes()),
                    a.as_bytes().cmp(b.as_bytes())
                );
                assert_eq!(escaped(a).starts_with(&*escaped(b)), a.starts_with(b));
            }
        }
    }

    #[test]
    fn a_text_that_was_never_written_is_refused() {
        assert_eq!(unescaped("a\u{1}"), None);
        assert_eq!(unescaped("a\u{1}b"), None);
    }
}
