//! One value of a JSON object.
//!
//! **Owns:** [`member`], [`text_member`]. **Does not know:** what the value means.
//! **Invariants:** what else the object holds hides nothing: numbers and keys that no type here can hold, keys that come
//! twice.

use std::fmt;

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Returns the value of a key as it stands in the object, of two the later one; `None` if the object does not have the key.
///
/// # Errors
/// The text is no JSON object.
pub(crate) fn member<'a>(
    object: &'a [u8],
    key: &str,
) -> Result<Option<&'a RawValue>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(object);
    let found = json.deserialize_map(MemberVisitor(key))?;
    json.end()?;
    Ok(found)
}

/// Returns the text of a key; `None` if the object does not have the key, or its value is no text, or there is no object.
pub(crate) fn text_member(object: &[u8], key: &str) -> Option<String> {
    serde_json::from_str(member(object, key).ok()??.get()).ok()
}

struct MemberVisitor<'k>(&'k str);

impl<'de> Visitor<'de> for MemberVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
            if is(key.get(), self.0) {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// Whether a key is this text, however it is written.
fn is(key: &str, text: &str) -> bool {
    let plain = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    let escaped = || serde_json::from_str::<String>(key).is_ok_and(|key| key == text);
    plain == Some(text) || (key.contains('\\') && escaped())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_whatever_stands_beside_it() {
        let found = |json: &str| {
            let value = member(json.as_bytes(), "$k").map_err(|_| ());
            value.map(|value| value.map(|value| value.get().to_owned()))
        };
        for (json, value) in [
            (r#"{"$k":1}"#, Some("1")),
            (r#" { "a" : 1e999 , "$k" : [ "x" ] } "#, Some(r#"[ "x" ]"#)),
            (r#"{"\ud800":"\ud800","\u0024k":null}"#, Some("null")),
            (r#"{"$k":1,"$k":2}"#, Some("2")),
            (r#"{"a":{"$k":1},"b":"$k"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(found(json), Ok(value.map(str::to_owned)), "{json}");
        }
        for no_object in ["", "[]", r#""$k""#, r#"{"$k":1"#, r#"{"$k":1}x"#] {
            assert_eq!(found(no_object), Err(()), "{no_object}");
        }
    }
}
