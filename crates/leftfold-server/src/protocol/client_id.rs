//! The id that a client gave an event, if the event is stored under another one.
//!
//! **Owns:** the member `$id` of an event's metadata: writing it, finding it, and the metadata without it.
//! **Does not know:** why an event needs another id; see the append of each protocol.
//! **Invariants:**
//! - The member is the last one of a JSON object: a list of the one id, or an empty list if the client gave none.
//! - Removing the member restores the original metadata byte for byte.

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::{Bytes, EventId};
use serde_json::value::RawValue;
use uuid::fmt::Hyphenated;

/// The name of the member.
pub(crate) const KEY: &str = "$id";
/// The member before its value.
const BEGINS: &[u8] = b"\"$id\":[";
/// The end of the member and of its object.
const ENDS: &[u8] = b"]}";
/// An object with metadata that is text, but no object.
const TEXT: &str = "{\"$metadata\":";
/// An object with metadata that is no text.
const BINARY: &str = "{\"$metadata.base64\":";

/// Metadata with the id that a client gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Noted {
    /// `None` if the client gave none.
    pub(crate) id: Option<EventId>,
    /// The metadata as the client gave it.
    pub(crate) metadata: Bytes,
}

/// Returns metadata with `id` after the members of `object`, which is a JSON object or empty.
pub(crate) fn note(object: &[u8], id: Option<EventId>) -> Vec<u8> {
    let members = object.strip_suffix(b"}").unwrap_or(b"{");
    let mut out = Vec::with_capacity(members.len() + BEGINS.len() + Hyphenated::LENGTH + 5);
    out.extend_from_slice(members);
    if members.trim_ascii_end() != b"{" {
        out.push(b',');
    }
    out.extend_from_slice(BEGINS);
    if let Some(id) = id {
        out.push(b'"');
        out.extend_from_slice(id.to_string().as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(ENDS);
    out
}

/// Returns metadata with `id` that wraps any other metadata.
pub(crate) fn note_over(metadata: &Bytes, id: EventId) -> Bytes {
    let is_object = metadata.starts_with(b"{")
        && metadata.ends_with(b"}")
        && !metadata.starts_with(b"{\"$metadata")
        && serde_json::from_slice::<&RawValue>(metadata).is_ok();
    let noted = if is_object {
        note(metadata, Some(id))
    } else {
        let value = match std::str::from_utf8(metadata) {
            Ok(text) => (TEXT, serde_json::Value::from(text)),
            Err(_) => (BINARY, BASE64_STANDARD.encode(metadata).into()),
        };
        let wrapped = format!("{}{}}}", value.0, value.1);
        note(wrapped.as_bytes(), Some(id))
    };
    noted.into()
}

/// Returns `metadata` as stored for an event that keeps its own `id`: unchanged, unless it looks like a client id itself.
pub(crate) fn protect(metadata: Bytes, id: EventId) -> Bytes {
    match noted(&metadata) {
        None => metadata,
        Some(_) => note_over(&metadata, id),
    }
}

/// Returns the client id in `metadata`, if it has one.
pub(crate) fn noted(metadata: &Bytes) -> Option<Noted> {
    let rest = metadata.strip_suffix(ENDS)?;
    let (rest, id) = match rest.strip_suffix(b"\"") {
        None => (rest, None),
        Some(rest) => {
            let (rest, id) = rest.split_at_checked(rest.len().checked_sub(Hyphenated::LENGTH)?)?;
            let id = std::str::from_utf8(id).ok()?.parse().ok()?;
            (rest.strip_suffix(b"\"")?, Some(id))
        }
    };
    let members = rest.strip_suffix(BEGINS)?;
    if !members.starts_with(b"{") {
        return None;
    }
    let object = match members.strip_suffix(b",") {
        Some(members) => [members, b"}"].concat(),
        None => [members, b"}"].concat(),
    };
    let metadata = unwrap(&object).unwrap_or_else(|| object.into());
    Some(Noted { id, metadata })
}

/// Unwraps metadata that is no object from the object that holds it.
fn unwrap(object: &[u8]) -> Option<Bytes> {
    let value = |begins: &str| {
        let value = object.strip_prefix(begins.as_bytes())?.strip_suffix(b"}")?;
        serde_json::from_slice::<String>(value).ok()
    };
    match value(TEXT) {
        Some(text) => Some(text.into()),
        None => BASE64_STANDARD.decode(value(BINARY)?).ok().map(Bytes::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_back_byte_for_byte_with_the_id_that_was_noted() {
        let id = EventId::fresh();
        for metadata in [
            &b""[..],
            b"{}",
            b"{ }",
            b"{\"a\": 1.50 }",
            b"{\"a\":1}\n",
            b"[1]",
            b"text",
            b"{broken}",
            b"\xff\0",
            b"{\"$metadata\":\"x\"}",
            b"{\"$metadata.base64\":\"AA==\"}",
        ] {
            let metadata = Bytes::copy_from_slice(metadata);
            assert_eq!(noted(&metadata), None, "{metadata:?}");
            assert_eq!(protect(metadata.clone(), id), metadata);
            let over = note_over(&metadata, id);
            serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&over).unwrap();
            let (id, metadata) = (Some(id), metadata.clone());
            assert_eq!(noted(&over), Some(Noted { id, metadata }));
        }
    }

    #[test]
    fn metadata_that_looks_like_a_note_is_protected_by_one() {
        let (given, id) = (EventId::fresh(), EventId::fresh());
        for looks in [note(b"{\"a\":1}", Some(given)), note(b"", None)] {
            let looks = Bytes::from(looks);
            let stored = protect(looks.clone(), id);
            let expected = Noted {
                id: Some(id),
                metadata: looks,
            };
            assert_eq!(noted(&stored), Some(expected));
        }
    }

    #[test]
    fn an_id_that_was_not_given_is_noted_too() {
        let stored = Bytes::from(note(b"{\"k\":\"v\"}", None));
        assert_eq!(stored, r#"{"k":"v","$id":[]}"#);
        let read = noted(&stored).unwrap();
        assert_eq!((read.id, &read.metadata[..]), (None, &b"{\"k\":\"v\"}"[..]));
        assert_eq!(note(b"", None), b"{\"$id\":[]}");
        for other in [
            "\"$id\":[]}",
            "{\"$id\":[7]}",
            "{\"$id\":\"x\"}",
            "]}",
            "\"]}",
        ] {
            assert_eq!(noted(&Bytes::from(other)), None, "{other}");
        }
    }
}
