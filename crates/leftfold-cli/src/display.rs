//! Events for people.
//!
//! **Owns:** the one-line form of an event. **Does not know:** where it is printed.
//! **Invariants:** text of events cannot move the cursor or break a line: control characters are escaped.

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

/// Text without control characters.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}
