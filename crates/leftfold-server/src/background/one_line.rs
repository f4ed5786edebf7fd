//! Log entries as one line of text each.
//!
//! **Owns:** [`OneLine`], a writer that escapes what would end a line or act on a terminal. **Does not know:** what is logged.
//! **Invariants:** an entry has one line break, its last byte. So a name that holds one cannot look like another entry.
//! Sequences that set colors pass where the formatter writes such itself: on a terminal.

use std::io::{self, Write};

/// A writer of entries, each in one call of `write_all`.
#[derive(Debug)]
pub(super) struct OneLine<W> {
    pub(super) writer: W,
    /// Whether sequences that set colors pass.
    pub(super) colors: bool,
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let entry_text = String::from_utf8_lossy(entry);
        let line = escaped(&entry_text, self.colors);
        self.writer.write_all(line.as_bytes())?;
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Returns an entry with every control character escaped but the line break at its end.
fn escaped(entry: &str, colors: bool) -> String {
    let (text, end) = match entry.strip_suffix('\n') {
        Some(text) => (text, "\n"),
        None => (entry, ""),
    };
    let mut line = String::with_capacity(entry.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let color = color_length(rest).filter(|_| colors);
        let (piece, after) = rest.split_at(color.unwrap_or(next.len_utf8()));
        if color.is_none() && is_unsafe(next) {
            line.extend(next.escape_default());
        } else {
            line.push_str(piece);
        }
        rest = after;
    }
    line + end
}

/// Whether a character would end the line, or change how a terminal shows what follows.
fn is_unsafe(character: char) -> bool {
    let directs = matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(character, '\u{2028}' | '\u{2029}');
    character.is_control() || directs || breaks
}

/// Returns the length of the sequence that sets a color at the beginning of a text, if there is one.
fn color_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    let is_color = parameters.get(end..)?.starts_with('m');
    is_color.then_some("\u{1b}[m".len() + end)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_name_with_line_breaks_does_not_look_like_another_entry() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || OneLine {
                writer: writer.clone(),
                colors: false,
            })
            .finish();
        let name = "a\n2026-01-01T00:00:00Z  WARN forged\r\u{1b}[31m\u{85}\u{2028}\u{202e}b";
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(stream = %name, "denied: {name}");
        });
        let bytes = written.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with('\n') && text.contains("forged"), "{text}");
        let line = text.trim_end_matches('\n');
        assert!(!line.chars().any(is_unsafe), "{line:?}");
    }

    #[test]
    fn colors_of_the_formatter_pass_and_other_sequences_do_not() {
        let escaped = |entry: &str| escaped(entry, true);
        assert_eq!(
            escaped("\u{1b}[1;32mok\u{1b}[0m\n"),
            "\u{1b}[1;32mok\u{1b}[0m\n"
        );
        assert_eq!(escaped("\u{1b}[2Jx"), "\\u{1b}[2Jx");
        assert_eq!(escaped("\u{1b}"), "\\u{1b}");
        assert_eq!(escaped("a\nb\tc\n"), "a\\nb\\tc\n");
    }
}
