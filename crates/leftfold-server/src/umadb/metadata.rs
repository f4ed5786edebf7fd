//! An event's metadata: pairs of texts on this wire, a JSON object in the store.
//!
//! **Owns:** the way there and back. **Does not know:** what the pairs mean, but for the one under [`TRACKING`].
//! **Invariants:** pairs come back as they were given, in their order, doubles included; metadata that others wrote is shown
//! as far as pairs of texts can show it, and never an error.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::Bytes;
use leftfold_proto::umadb::v1::{MetadataEntry, TrackingInfo};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

/// The key under which an event tells of which progress it is part. Its value is an object, so no pair of a client is meant.
const TRACKING: &str = "$tracking";
/// The key under which metadata is shown that is no JSON object but text.
const TEXT: &str = "$metadata";
/// The key under which metadata is shown that is not even text.
const BINARY: &str = "$metadata.base64";

/// The JSON form; nothing if there is nothing to say.
pub(super) fn to_json(
    pairs: &[MetadataEntry],
    tracking: Option<&TrackingInfo>,
) -> Result<Bytes, serde_json::Error> {
    if pairs.is_empty() && tracking.is_none() {
        return Ok(Bytes::new());
    }
    serde_json::to_vec(&Told { pairs, tracking }).map(Bytes::from)
}

/// The pairs of an event's metadata, and of which progress it is part.
pub(super) fn from_json(metadata: &[u8]) -> (Vec<MetadataEntry>, Option<TrackingInfo>) {
    if metadata.is_empty() {
        return (Vec::new(), None);
    }
    let Ok(text) = std::str::from_utf8(metadata) else {
        return (vec![pair(BINARY, BASE64_STANDARD.encode(metadata))], None);
    };
    let Ok(Members(members)) = serde_json::from_str(text) else {
        return (vec![pair(TEXT, text)], None);
    };
    let mut tracking = None;
    let mut pairs = Vec::with_capacity(members.len());
    for (key, value) in members {
        if key == TRACKING
            && let Ok(Noted { source, position }) = serde_json::from_str(value.get())
        {
            tracking = Some(TrackingInfo { source, position });
        } else {
            pairs.push(pair(key, shown(value)));
        }
    }
    (pairs, tracking)
}

fn pair(key: impl Into<String>, value: impl Into<String>) -> MetadataEntry {
    MetadataEntry {
        key: key.into(),
        value: value.into(),
    }
}

/// A text as itself, any other value as JSON.
fn shown(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

struct Told<'a> {
    pairs: &'a [MetadataEntry],
    tracking: Option<&'a TrackingInfo>,
}

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for MetadataEntry { key, value } in self.pairs {
            map.serialize_entry(key, value)?;
        }
        if let Some(TrackingInfo { source, position }) = self.tracking {
            let (source, position) = (source.clone(), *position);
            map.serialize_entry(TRACKING, &Noted { source, position })?;
        }
        map.end()
    }
}

#[derive(Serialize, Deserialize)]
struct Noted {
    source: String,
    position: u64,
}

/// The members of a JSON object in their order, doubles included.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Gather;
        impl<'de> Visitor<'de> for Gather {
            type Value = Vec<(String, &'de RawValue)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Gather).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pairs: &[MetadataEntry]) -> Vec<(&str, &str)> {
        pairs
            .iter()
            .map(|pair| (&*pair.key, &*pair.value))
            .collect()
    }

    #[test]
    fn pairs_come_back_in_their_order_with_doubles_and_tracking() {
        let pairs = vec![pair("b", "1"), pair("a", "\"q\" \u{fc}"), pair("b", "2")];
        let tracking = TrackingInfo {
            source: "upstream".into(),
            position: u64::MAX,
        };
        let json = to_json(&pairs, Some(&tracking)).unwrap();
        assert_eq!(from_json(&json), (pairs.clone(), Some(tracking)));
        let json = to_json(&pairs, None).unwrap();
        assert_eq!(from_json(&json), (pairs, None));
        assert!(to_json(&[], None).unwrap().is_empty());
    }

    #[test]
    fn a_pair_under_the_key_of_tracking_stays_a_pair() {
        let pairs = vec![pair(TRACKING, "{\"source\":\"s\",\"position\":1}")];
        let json = to_json(&pairs, None).unwrap();
        assert_eq!(from_json(&json), (pairs, None));
    }

    #[test]
    fn metadata_of_others_is_shown_as_far_as_pairs_can() {
        let (pairs, _) = from_json(br#"{"text":"t","number":1.50,"list":[1, 2],"none":null}"#);
        let expected = [
            ("text", "t"),
            ("number", "1.50"),
            ("list", "[1, 2]"),
            ("none", "null"),
        ];
        assert_eq!(plain(&pairs), expected);
        assert_eq!(plain(&from_json(b"[1]").0), [("$metadata", "[1]")]);
        assert_eq!(
            plain(&from_json(b"\xff\0").0),
            [("$metadata.base64", "/wA=")]
        );
    }
}
