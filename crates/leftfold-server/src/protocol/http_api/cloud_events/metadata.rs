//! The attributes of a `CloudEvent` within the metadata of its event.
//!
//! **Owns:** their format, and when metadata is read as attributes. **Does not know:** requests and responses.
//! **Invariants:** metadata written by another protocol never becomes attributes that contradict the event or are invalid.

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::RecordedEvent;
use serde_json::{Map, Value};

use super::{POSITION, REVISION, STREAM, content_type, tag_list};
use crate::json;

/// The key of the attributes.
const KEY: &str = "cloudevents";
/// Attributes with a field in an event, or of its position: none of them is stored here.
const RESERVED: [&str; 6] = ["specversion", "type", "data", POSITION, REVISION, STREAM];

/// Encodes the attributes as metadata.
pub(super) fn metadata(attributes: Map<String, Value>) -> Vec<u8> {
    let under_key = [(KEY.to_owned(), Value::Object(attributes))];
    let metadata: Map<String, Value> = under_key.into_iter().collect();
    Value::Object(metadata).to_string().into_bytes()
}

/// Decodes the attributes in an event's metadata, if it has them.
pub(super) fn attributes(event: &RecordedEvent) -> Option<Map<String, Value>> {
    let mut keys: Map<String, Value> = serde_json::from_slice(&event.metadata).ok()?;
    let (1, Some(Value::Object(kept))) = (keys.len(), keys.get_mut(KEY)) else {
        return None;
    };
    let fits = kept.iter().all(|(name, value)| {
        is_name(name) && is_value(value) && !RESERVED.contains(&name.as_str())
    });
    let kept = std::mem::take(kept);
    (fits && agrees(&kept, event)).then_some(kept)
}

/// Returns whether the stored attributes agree with the fields of the event.
fn agrees(kept: &Map<String, Value>, event: &RecordedEvent) -> bool {
    let holds = |name: &str, of_text: &dyn Fn(&str) -> bool| match kept.get(name) {
        None => true,
        Some(Value::String(text)) => of_text(text),
        Some(_) => false,
    };
    kept.contains_key("source")
        && holds("source", &|source| !source.is_empty())
        && holds("id", &|id| !id.is_empty())
        && holds("time", &|time| json::time(time) == Some(event.time))
        && holds("datacontenttype", &|given| {
            content_type(given) == event.content_type
        })
        && holds("tags", &|text| {
            let same = tag_list(text).map(|mut tags| {
                tags.sort();
                tags.dedup();
                tags == event.tags
            });
            same.unwrap_or_default()
        })
}

/// Returns metadata of other protocols as an attribute of its own.
pub(super) fn foreign_metadata(metadata: &[u8]) -> Map<String, Value> {
    let attribute = match std::str::from_utf8(metadata) {
        Ok("") => None,
        Ok(text) => Some(("metadata", text.to_owned())),
        Err(_) => Some(("metadatabase64", BASE64_STANDARD.encode(metadata))),
    };
    let attribute = attribute.map(|(name, text)| (name.to_owned(), text.into()));
    attribute.into_iter().collect()
}

/// Returns whether a name is a valid attribute name: short and plain.
pub(super) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(is_plain)
}

/// Returns whether a value is a valid attribute value: a plain one.
pub(super) fn is_value(value: &Value) -> bool {
    match value {
        Value::String(_) | Value::Bool(_) => true,
        Value::Number(number) => number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
