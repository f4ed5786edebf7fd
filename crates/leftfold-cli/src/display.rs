//! Events for people.
//!
//! **Owns:** the one-line form of an event; what a terminal gets of text and of JSON. **Does not know:** which command prints it.
//! **Invariants:** text from a store cannot move the cursor, break a line or reorder text on a terminal: control
//! characters and marks of writing direction are escaped.

use std::{
    borrow::Cow,
    io::{self, IsTerminal, Write, stdout},
};

use leftfold_model::{ContentType, RecordedEvent};

use leftfold_server::json::time_text;

/// Characters of data shown, at most.
const DATA_CHARS_MAX: usize = 160;

/// One event on one line.
pub(crate) fn event(event: &RecordedEvent) -> String {
    let tags: String = event
        .tags
        .iter()
        .map(|tag| format!(" #{}", escape(tag.as_str())))
        .collect();
    format!(
        "{:>8}  {}  {}@{}  {}  {}{tags}",
        event.position,
        time_text(event.time),
        escape(event.stream.as_str()),
        event.revision,
        escape(event.event_type.as_str()),
        data(event),
    )
}

fn data(event: &RecordedEvent) -> String {
    match std::str::from_utf8(&event.data) {
        Ok(text) if event.content_type == ContentType::Json => {
            let shown: String = text.chars().take(DATA_CHARS_MAX).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            format!("{}{more}", escape(&shown))
        }
        _ => format!(
            "<{} bytes of {}>",
            event.data.len(),
            event.content_type.media_type()
        ),
    }
}

/// Returns the text with control characters and marks of writing direction escaped.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Returns JSON as standard output takes it: unchanged, or with unsafe characters as JSON escapes if it is a terminal.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    if stdout().is_terminal() {
        escape_json(text)
    } else {
        Cow::Borrowed(text)
    }
}

/// Lines of JSON for standard output: unchanged, or with unsafe characters as JSON escapes if it is a terminal.
pub(crate) struct JsonLines<W> {
    out: W,
    is_terminal: bool,
    /// What was written of a line that is not whole.
    line: Vec<u8>,
}

impl<W> JsonLines<W> {
    /// Lines that go on to standard output through `out`.
    pub(crate) fn to_standard_output(out: W) -> Self {
        Self {
            out,
            is_terminal: stdout().is_terminal(),
            line: Vec::new(),
        }
    }
}

impl<W: Write> Write for JsonLines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.out.write(bytes);
        }
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&self.line);
                self.out.write_all(escape_json(&line).as_bytes())?;
                self.line.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Escapes unsafe characters as JSON does. Outside of strings JSON has none but white space, which stays.
fn escape_json(text: &str) -> Cow<'_, str> {
    let is_kept = |character: char| matches!(character, '\t' | '\n' | '\r');
    if !text.contains(|c: char| is_unsafe(c) && !is_kept(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unsafe(character) && !is_kept(character) {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                shown.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal acts on a character instead of printing it, or lets it reorder the text around it.
fn is_unsafe(character: char) -> bool {
    let reorders = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || reorders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped_and_stays_json() {
        let hostile = "{\"a\":\"\u{9b}2J\u{7f}\u{202e}\"}";
        assert_eq!(escape("\u{1b}[2J\u{202e}"), "\\u{1b}[2J\\u{202e}");
        let shown = escape_json(hostile);
        assert_eq!(shown, "{\"a\":\"\\u009b2J\\u007f\\u202e\"}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(hostile));
    }

    #[test]
    fn lines_of_json_are_escaped_for_a_terminal_however_they_are_written_and_for_no_file() {
        let hostile = "{\"a\":\"\u{9b}2J\"}\n{\"b\":\"\u{202e}\"}\n";
        for (is_terminal, expected) in [
            (true, "{\"a\":\"\\u009b2J\"}\n{\"b\":\"\\u202e\"}\n"),
            (false, hostile),
        ] {
            let (out, line) = (Vec::new(), Vec::new());
            let mut lines = JsonLines {
                out,
                is_terminal,
                line,
            };
            for byte in hostile.as_bytes().chunks(1) {
                lines.write_all(byte).unwrap();
            }
            assert_eq!(String::from_utf8(lines.out).unwrap(), expected);
        }
    }
}
