//! An event's metadata: pairs of texts on this wire, a JSON object in the store.
//!
//! **Owns:** the conversion in both directions; what else is stored with an event for this wire: its progress, the order of
//! its tags. **Does not know:** what the pairs mean.
//! **Invariants:** reads return pairs as they were given, in their order; metadata of other protocols is converted as far as
//! pairs of texts can express it, and never an error.

use std::{collections::HashSet, fmt};

use base64::{Engine, prelude::BASE64_STANDARD};
use leftfold_model::{Bytes, EventId};
use leftfold_proto::umadb::v1::{MetadataEntry, TrackingInfo};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use crate::protocol::client_id;

/// The key of the progress that an event is part of. Its value is an object, unlike a client's pair.
const TRACKING: &str = "$tracking";
/// The key of the tags in their given order, if that is not ascending. Its value is a list.
const TAGS: &str = "$tags";
/// Metadata that says only that the client gave no id.
const MISSING_ID: &[u8] = b"{\"$id\":[]}";
/// The key of metadata that is text and no JSON object.
const TEXT: &str = "$metadata";
/// The key of metadata that is not text.
const BINARY: &str = "$metadata.base64";

/// The id that a client gave an event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientId {
    /// The event is stored under it.
    #[default]
    Stored,
    /// The client gave none.
    Missing,
    /// The event is stored under another one.
    Given(EventId),
}

/// The metadata of an event on this wire.
#[derive(Debug, Default, PartialEq)]
pub(super) struct EventMetadata {
    pub(super) pairs: Vec<MetadataEntry>,
    pub(super) tracking: Option<TrackingInfo>,
    /// The tags in their given order, if that is stored.
    pub(super) tags: Option<Vec<String>>,
    pub(super) id: ClientId,
}

impl EventMetadata {
    /// Encodes the metadata as JSON; empty if there is none. The error says which pair is invalid.
    pub(super) fn to_json(&self) -> Result<Bytes, String> {
        if *self == Self::default() {
            return Ok(Bytes::new());
        }
        let mut keys = HashSet::with_capacity(self.pairs.len());
        if let Some(twice) = self.pairs.iter().find(|pair| !keys.insert(&pair.key)) {
            return Err(format!("metadata contains duplicate keys: {:?}", twice.key));
        }
        let json = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        Ok(json.into())
    }

    /// Decodes metadata that says only that the client gave no id: most events of many clients.
    fn nothing_but_missing_id(metadata: &[u8]) -> Option<Self> {
        (metadata == MISSING_ID).then(|| Self {
            id: ClientId::Missing,
            ..Self::default()
        })
    }

    /// Decodes an event's metadata.
    pub(super) fn from_json(metadata: &[u8]) -> Self {
        let mut kept = Self::default();
        if metadata.is_empty() {
            return kept;
        }
        if let Some(kept) = Self::nothing_but_missing_id(metadata) {
            return kept;
        }
        let Ok(text) = std::str::from_utf8(metadata) else {
            kept.pairs = vec![pair(BINARY, BASE64_STANDARD.encode(metadata))];
            return kept;
        };
        let Ok(Members(members)) = serde_json::from_str(text) else {
            kept.pairs = vec![pair(TEXT, text)];
            return kept;
        };
        for (key, value) in members {
            kept.take_in(key, value);
        }
        kept
    }

    fn take_in(&mut self, key: String, value: &RawValue) {
        let json = value.get();
        if key == TRACKING
            && let Ok(TrackingRecord { source, position }) = serde_json::from_str(json)
        {
            self.tracking = Some(TrackingInfo { source, position });
        } else if key == client_id::KEY
            && let Some(id) = client_id_of(json)
        {
            self.id = id;
        } else if key == TAGS
            && let Ok(tags) = serde_json::from_str(json)
        {
            self.tags = Some(tags);
        } else {
            self.pairs.push(pair(key, shown(value)));
        }
    }
}

fn pair(key: impl Into<String>, value: impl Into<String>) -> MetadataEntry {
    MetadataEntry {
        key: key.into(),
        value: value.into(),
    }
}

/// Returns a text as itself, any other value as JSON.
fn shown(value: &RawValue) -> String {
    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned())
}

impl Serialize for EventMetadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for MetadataEntry { key, value } in &self.pairs {
            map.serialize_entry(key, value)?;
        }
        if let Some(TrackingInfo { source, position }) = &self.tracking {
            let (source, position) = (source.clone(), *position);
            map.serialize_entry(TRACKING, &TrackingRecord { source, position })?;
        }
        if let Some(tags) = &self.tags {
            map.serialize_entry(TAGS, tags)?;
        }
        // The last member, as other protocols look for it.
        match self.id {
            ClientId::Stored => {}
            ClientId::Missing => map.serialize_entry(client_id::KEY, &[(); 0])?,
            ClientId::Given(id) => map.serialize_entry(client_id::KEY, &[id.to_string()])?,
        }
        map.end()
    }
}

/// Decodes the client's id: a list of the one id, or of none.
fn client_id_of(json: &str) -> Option<ClientId> {
    match serde_json::from_str::<Vec<&str>>(json).ok()?.as_slice() {
        [] => Some(ClientId::Missing),
        [id] => id.parse().ok().map(ClientId::Given),
        _ => None,
    }
}

#[derive(Serialize, Deserialize)]
struct TrackingRecord {
    source: String,
    position: u64,
}

/// The members of a JSON object in their order, including duplicates.
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

    fn of(pairs: Vec<MetadataEntry>) -> EventMetadata {
        EventMetadata {
            pairs,
            ..EventMetadata::default()
        }
    }

    #[test]
    fn what_is_kept_comes_back_in_its_order() {
        let tracking = TrackingInfo {
            source: "upstream".into(),
            position: u64::MAX,
        };
        let kept = EventMetadata {
            pairs: vec![pair("b", "1"), pair("a", "\"q\" \u{fc}"), pair("", "")],
            tracking: Some(tracking),
            tags: Some(vec!["y".into(), "x".into(), "y".into()]),
            id: ClientId::Given(EventId::fresh()),
        };
        assert_eq!(EventMetadata::from_json(&kept.to_json().unwrap()), kept);
        assert!(EventMetadata::default().to_json().unwrap().is_empty());
        assert_eq!(EventMetadata::from_json(b""), EventMetadata::default());
    }

    #[test]
    fn pairs_under_the_keys_of_the_server_stay_pairs() {
        let progress = "{\"source\":\"s\",\"position\":1}";
        let kept = of(vec![pair(TRACKING, progress), pair(TAGS, "[\"x\"]")]);
        assert_eq!(EventMetadata::from_json(&kept.to_json().unwrap()), kept);
    }

    #[test]
    fn an_event_without_an_id_is_noted_as_such_and_pairs_of_that_name_stay_pairs() {
        let missing = EventMetadata {
            id: ClientId::Missing,
            ..EventMetadata::default()
        };
        let json = missing.to_json().unwrap();
        assert_eq!(json, MISSING_ID);
        assert_eq!(EventMetadata::from_json(&json), missing);
        let kept = of(vec![pair(client_id::KEY, "[]"), pair("k", "v")]);
        assert_eq!(EventMetadata::from_json(&kept.to_json().unwrap()), kept);
    }

    #[test]
    fn a_key_that_comes_twice_is_refused() {
        let refused = of(vec![pair("a", "1"), pair("b", ""), pair("a", "1")]).to_json();
        let refused = refused.unwrap_err();
        assert!(
            refused.contains("metadata contains duplicate keys: \"a\""),
            "{refused}"
        );
    }

    #[test]
    fn metadata_of_others_is_shown_as_far_as_pairs_can() {
        let shown = |json: &[u8]| EventMetadata::from_json(json).pairs;
        let pairs = shown(br#"{"text":"t","number":1.50,"list":[1, 2],"none":null}"#);
        let expected = [
            ("text", "t"),
            ("number", "1.50"),
            ("list", "[1, 2]"),
            ("none", "null"),
        ];
        assert_eq!(plain(&pairs), expected);
        assert_eq!(plain(&shown(b"[1]")), [("$metadata", "[1]")]);
        assert_eq!(plain(&shown(b"\xff\0")), [("$metadata.base64", "/wA=")]);
        let odd = shown(br#"{"$tracking":7,"$tags":[7],"$id":[7]}"#);
        let expected = [("$tracking", "7"), ("$tags", "[7]"), ("$id", "[7]")];
        assert_eq!(plain(&odd), expected);
    }
}
