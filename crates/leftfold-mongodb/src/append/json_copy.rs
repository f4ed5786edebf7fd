//! Copies of JSON data as sub-documents, for queries by MongoDB's own tools.
//!
//! **Owns:** which data gets a copy. **Does not know:** what is read of it; the store reads data alone.
//! **Invariants:** an append never fails for its copy: data that BSON cannot hold as it is, or for which the commit has no
//! room, has none.

use leftfold_model::ContentType;
use mongodb::bson::{Bson, Document, doc};
use serde_json::Value;

use crate::document::EventDocument;

/// Bytes of data that gets a copy, at most.
const DATA_BYTES_MAX: usize = 64 * 1024;
/// Levels of lists and objects within each other, at most; a commit adds four, and the server takes 100.
const DEPTH_MAX: usize = 64;

/// Adds copies to events, in their order, as long as they take `room` bytes together.
pub(super) fn add(events: &mut [EventDocument], mut room: usize) {
    for event in events {
        if event.content_type != i32::from(ContentType::Json.code())
            || event.payload.is_some()
            || event.data.bytes.len() > DATA_BYTES_MAX
        {
            continue;
        }
        let Ok(value) = serde_json::from_slice(&event.data.bytes) else {
            continue;
        };
        let Some((copy, bytes)) = copy(value) else {
            continue;
        };
        if bytes <= room {
            room -= bytes;
            event.json = Some(copy);
        }
    }
}

/// A value as BSON, and the bytes it takes there.
fn copy(value: Value) -> Option<(Bson, usize)> {
    let copy = bson(value, 0)?;
    let document = doc! { "json": copy };
    let bytes = document.to_vec().ok()?.len();
    Some((document.get("json").cloned()?, bytes))
}

fn bson(value: Value, depth: usize) -> Option<Bson> {
    if depth > DEPTH_MAX {
        return None;
    }
    Some(match value {
        Value::Null => Bson::Null,
        Value::Bool(is_true) => Bson::Boolean(is_true),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Bson::Int64(whole),
            // A whole number beyond 64 bits with a sign would lose digits.
            None if number.is_u64() => return None,
            None => Bson::Double(number.as_f64()?),
        },
        Value::String(text) => Bson::String(text),
        Value::Array(list) => {
            let items = list.into_iter().map(|item| bson(item, depth + 1));
            Bson::Array(items.collect::<Option<_>>()?)
        }
        Value::Object(object) => {
            let mut document = Document::new();
            for (key, value) in object {
                if !is_field_name(&key) {
                    return None;
                }
                document.insert(key, bson(value, depth + 1)?);
            }
            Bson::Document(document)
        }
    })
}

/// Whether every server takes a key as the name of a field.
fn is_field_name(key: &str) -> bool {
    !key.is_empty() && !key.starts_with('$') && !key.contains(['.', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(text: &str) -> Option<Bson> {
        Some(copy(serde_json::from_str(text).unwrap())?.0)
    }

    #[test]
    fn what_bson_can_hold_is_copied() {
        let copied = copied(r#"{"a":1,"b":[1.5,true,null,"x"],"c":{"d":-3}}"#).unwrap();
        let expected = doc! { "a": 1_i64, "b": [1.5, true, Bson::Null, "x"], "c": { "d": -3_i64 } };
        assert_eq!(copied, Bson::Document(expected));
    }

    #[test]
    fn what_bson_or_a_server_would_change_or_refuse_is_not_copied() {
        let deep = "[".repeat(80) + &"]".repeat(80);
        for text in [
            r#"{"a.b":1}"#,
            r#"{"$set":1}"#,
            r#"{"":1}"#,
            r#"{"a":{"b\u0000":1}}"#,
            "18446744073709551615",
            &deep,
        ] {
            assert_eq!(copied(text), None, "{text}");
        }
    }
}
