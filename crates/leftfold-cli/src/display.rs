//! Events for people.
//!
//! **Owns:** the one-line form of an event. **Does not know:** where it is printed.
//! **Invariants:** text from a store cannot move the cursor, break a line or reorder text on a terminal: control
//! characters and marks of writing direction are escaped.

use std::{
    borrow::Cow,
    io::{IsTerminal, stdout},
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
}
