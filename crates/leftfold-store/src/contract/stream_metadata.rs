//! The metadata of a stream: its retention, and keys of its users' own.
//!
//! **Owns:** [`StreamMetadata`] and its JSON form. **Does not know:** where it is stored, and what it does.
//! **Invariants:** unknown keys survive a change; a value of the wrong type counts as absent, so that a mistyped value cannot
//! make a stream unreadable. Text that is no JSON may have meant any access control list, so it counts as one that names nobody.

use std::{fmt, time::Duration};

use leftfold_model::{
    Append, Bytes, EventType, ExpectedRevision, ModelError, NewEvent, Revision, StreamName,
    limits::METADATA_BYTES_MAX,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

const TRUNCATE_BEFORE: &str = "$tb";
const MAX_COUNT: &str = "$maxCount";
const MAX_AGE: &str = "$maxAge";
const CACHE_CONTROL: &str = "$cacheControl";
const ACL: &str = "$acl";
/// The end of the stream when it was last deleted: set when it is recreated, and kept by later metadata.
const DELETED_BEFORE: &str = "$deletedBefore";

/// The value of `$tb` in the metadata of a deleted stream: 2^63 - 1, as KurrentDB writes it.
pub const DELETED_STREAM_TRUNCATE_BEFORE: u64 = i64::MAX.unsigned_abs();
/// The type of events that hold the metadata of a stream.
pub const METADATA_EVENT_TYPE: &str = "$metadata";
/// The type of the event that tombstones a stream.
pub const TOMBSTONE_EVENT_TYPE: &str = "$streamDeleted";

/// The metadata of a stream. The newest value replaces all earlier ones.
///
/// It is stored as an event of type `$metadata` in the stream `$$name`, so it has a history and takes part in appends
/// like any other event.
///
/// ```
/// use leftfold_store::StreamMetadata;
/// let last_hundred = StreamMetadata::default().with_max_count(100);
/// assert_eq!(last_hundred.max_count(), Some(100));
/// ```
///
/// The JSON text is kept: unchanged keys are written back byte for byte, including numbers and the order of keys.
#[derive(Clone, Debug, Default)]
pub struct StreamMetadata {
    /// The entries in the order of the text, keys as JSON too. Of two entries with one key the later one counts.
    entries: Vec<(Box<RawValue>, Box<RawValue>)>,
    /// The text that the entries were read from, until one of them is changed.
    text: Option<Bytes>,
    /// Whether it was read from a text that is no JSON.
    is_unreadable: bool,
}

impl PartialEq for StreamMetadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl StreamMetadata {
    /// Reads the JSON form. Any other JSON than an object, and no text at all, is metadata without keys. What is no JSON, such as
    /// an object with a `NaN`, is metadata whose access control list is no object: whatever it was meant to be, it names nobody.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Self {
        match serde_json::from_slice(json) {
            Ok(Entries(entries)) => Self {
                entries,
                text: Some(Bytes::copy_from_slice(json)),
                is_unreadable: false,
            },
            Err(_) if is_other_json(json) => Self::default(),
            Err(_) => Self {
                is_unreadable: true,
                ..Self::default().with_property(ACL, "")
            },
        }
    }

    /// Checks that the JSON form of a stream's metadata has at most [`METADATA_BYTES_MAX`] bytes: every read of the stream parses
    /// it.
    ///
    /// # Errors
    /// [`ModelError::OutOfRange`] with the stream and the limit.
    pub fn check_size(stream: &StreamName, json: &[u8]) -> Result<(), ModelError> {
        let got = json.len();
        if got <= METADATA_BYTES_MAX {
            return Ok(());
        }
        Err(ModelError::OutOfRange {
            thing: format!("metadata of stream {stream}"),
            unit: "bytes",
            got,
            min: 0,
            max: METADATA_BYTES_MAX,
            limit: "METADATA_BYTES_MAX",
        })
    }

    /// Returns the JSON form: the text it was read from, unless a key was set since.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        if let Some(text) = &self.text {
            return text.clone();
        }
        let entries = self.entries.iter();
        let entries: Vec<_> = entries
            .map(|(key, value)| format!("{key}:{value}"))
            .collect();
        format!("{{{}}}", entries.join(",")).into()
    }

    /// Returns the number of newest events that stay readable.
    #[must_use]
    pub fn max_count(&self) -> Option<u64> {
        self.number(MAX_COUNT).filter(|&count| count > 0)
    }

    /// Returns the age up to which events stay readable.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        let seconds = self.number(MAX_AGE).filter(|&seconds| seconds > 0);
        seconds.map(Duration::from_secs)
    }

    /// Returns the revision below which events are hidden: `$tb`, or else the end of the stream when it was last deleted.
    #[must_use]
    pub fn truncate_before(&self) -> Option<Revision> {
        let before = self.number(TRUNCATE_BEFORE);
        let before = before.or_else(|| self.number(DELETED_BEFORE));
        before.map(Revision::new)
    }

    /// Returns the revision below which events were deleted, if the stream was recreated after a deletion.
    #[must_use]
    pub fn deleted_before(&self) -> Option<Revision> {
        self.number(DELETED_BEFORE).map(Revision::new)
    }

    /// Returns the `$tb` that the metadata names. A value that is no revision, such as null, names none: many serializers
    /// write null for what was not set. Beside an equal `$deletedBefore` it is what a recreation stored, copied by a caller.
    fn named_truncation(&self) -> Option<Revision> {
        let named = self.number(TRUNCATE_BEFORE);
        let named = named.filter(|_| named != self.number(DELETED_BEFORE));
        named.map(Revision::new)
    }

    /// Returns what is stored if a caller sets this metadata for a stream with this point of deletion; `None`: its own text.
    ///
    /// The point is the store's, so that no copy of older metadata moves it. A `$tb` in front of it shows what it shows,
    /// and ends it.
    pub(crate) fn after_deletion(&self, deleted_before: Option<Revision>) -> Option<Self> {
        let own = self.deleted_before();
        let kept = match self.named_truncation() {
            // A truncation that shows nothing deleted leaves it deleted when a later one goes.
            Some(named) => deleted_before.filter(|before| named >= *before),
            None => deleted_before,
        };
        if kept == own {
            return None;
        }
        let copied = own.is_some() && own == self.number(TRUNCATE_BEFORE).map(Revision::new);
        Some(match kept {
            Some(before) if copied => self
                .clone()
                .with_truncate_before(before)
                .with_deleted_before(before),
            Some(before) => self.clone().with_deleted_before(before),
            None => self.clone().without(DELETED_BEFORE),
        })
    }

    /// Returns how long readers may cache the stream.
    #[must_use]
    pub fn cache_control(&self) -> Option<Duration> {
        self.number(CACHE_CONTROL).map(Duration::from_secs)
    }

    /// Returns the access control list as it was given. A store keeps it; a server that authenticates enforces it.
    #[must_use]
    pub fn acl(&self) -> Option<Value> {
        self.given(ACL)
    }

    /// Returns the value of a key as it was given. One that cannot be read as a value is its text: it must not count as none.
    /// Of what is no JSON each key may have been given, and is an empty text.
    #[must_use]
    pub fn given(&self, key: &str) -> Option<Value> {
        if self.is_unreadable {
            return Some(Value::String(String::new()));
        }
        let value = self.raw(key)?;
        Some(serde_json::from_str(value).unwrap_or_else(|_| value.into()))
    }

    /// Returns all keys with their values, those of users included. A key that is no text is as it stands in the JSON.
    #[must_use]
    pub fn entries(&self) -> Map<String, Value> {
        let key = |raw: &RawValue| text_of(raw).unwrap_or_else(|| raw.get().to_owned());
        let value = |raw: &RawValue| serde_json::from_str(raw.get()).unwrap_or_default();
        let entries = self.entries.iter();
        entries.map(|(name, raw)| (key(name), value(raw))).collect()
    }

    /// Returns whether this metadata marks the stream as deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.number(TRUNCATE_BEFORE)
            .is_some_and(|before| before >= DELETED_STREAM_TRUNCATE_BEFORE)
    }

    /// Keeps only the newest `count` events of the stream.
    #[must_use]
    pub fn with_max_count(self, count: u64) -> Self {
        self.with_property(MAX_COUNT, count)
    }
    /// Keeps only events younger than this; fractions of a second are dropped.
    #[must_use]
    pub fn with_max_age(self, age: Duration) -> Self {
        self.with_property(MAX_AGE, age.as_secs())
    }
    /// Truncates the stream before this revision.
    #[must_use]
    pub fn with_truncate_before(self, before: Revision) -> Self {
        self.with_property(TRUNCATE_BEFORE, before.get())
    }
    /// Sets a key of the caller's own.
    #[must_use]
    pub fn with_property(mut self, key: &str, value: impl Into<Value>) -> Self {
        // The text of a JSON value is JSON.
        let raw = |value: Value| RawValue::from_string(value.to_string());
        if let (Ok(name), Ok(value)) = (raw(key.into()), raw(value.into())) {
            (self.text, self.is_unreadable) = (None, false);
            match self.entries.iter_mut().rfind(|(known, _)| is(known, key)) {
                Some((_, known)) => *known = value,
                None => self.entries.push((name, value)),
            }
        }
        self
    }

    /// Marks the stream as deleted. The deletion point of an earlier deletion is superseded.
    pub(crate) fn deleted(self) -> Self {
        self.without(DELETED_BEFORE)
            .with_property(TRUNCATE_BEFORE, DELETED_STREAM_TRUNCATE_BEFORE)
    }

    /// Removes a key.
    fn without(mut self, key: &str) -> Self {
        (self.text, self.is_unreadable) = (None, false);
        self.entries.retain(|(known, _)| !is(known, key));
        self
    }

    /// Hides the events below `before` because they were deleted. Later metadata keeps this point unless it names `$tb`.
    pub(crate) fn with_deleted_before(self, before: Revision) -> Self {
        self.with_property(DELETED_BEFORE, before.get())
    }

    /// Creates the append that sets this metadata of `stream`; `expected` refers to the metadata, whose own revisions start
    /// at 0. Setting it recreates a deleted stream, without its old events.
    ///
    /// # Errors
    /// [`ModelError`] if the stream's name is too long for a metadata stream, or if the metadata is too long.
    pub fn append_for(
        &self,
        stream: &StreamName,
        expected: ExpectedRevision,
    ) -> Result<Append, ModelError> {
        let text = format!("$${stream}");
        Append::to(
            StreamName::new(text)?,
            expected,
            vec![NewEvent::json(metadata_type()?, self.to_json())],
        )
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.raw(key)?.parse().ok()
    }

    fn raw(&self, key: &str) -> Option<&str> {
        let found = self.entries.iter().rfind(|(known, _)| is(known, key));
        found.map(|(_, value)| value.get())
    }
}

/// Returns whether a text that is no JSON object is another JSON value, or nothing.
fn is_other_json(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    text.is_empty()
        || (!text.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(text).is_ok())
}

/// Returns a key as text; `None` for one that no text can be, such as half of a surrogate pair.
fn text_of(key: &RawValue) -> Option<String> {
    serde_json::from_str(key.get()).ok()
}

/// Whether a key is this text, however it is written.
fn is(key: &RawValue, text: &str) -> bool {
    let json = key.get();
    let plain = json.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
    plain == Some(text) || (json.contains('\\') && text_of(key).as_deref() == Some(text))
}

/// The entries of a JSON object, each key and each value as its text: a key that no text can be hides no other.
struct Entries(Vec<(Box<RawValue>, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Returns the type of events that hold metadata.
pub(crate) fn metadata_type() -> Result<EventType, ModelError> {
    EventType::new(METADATA_EVENT_TYPE)
}

/// Returns the type of the event that tombstones a stream.
pub(crate) fn tombstone_type() -> Result<EventType, ModelError> {
    EventType::new(TOMBSTONE_EVENT_TYPE)
}

pub(crate) fn is_metadata(event_type: &EventType) -> bool {
    event_type.as_str() == METADATA_EVENT_TYPE
}

pub(crate) fn is_tombstone(event_type: &EventType) -> bool {
    event_type.as_str() == TOMBSTONE_EVENT_TYPE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_users_survive_and_wrong_types_count_as_absent() {
        let metadata = StreamMetadata::from_json(br#"{"$maxCount":"ten","$tb":5,"owner":"till"}"#);
        assert_eq!(metadata.max_count(), None);
        assert_eq!(metadata.truncate_before(), Some(Revision::new(5)));
        let changed = metadata.with_max_age(Duration::from_secs(60));
        let again = StreamMetadata::from_json(&changed.to_json());
        assert_eq!(again, changed);
        assert_eq!(again.entries().get("owner"), Some(&"till".into()));
    }

    #[test]
    fn metadata_of_users_comes_out_byte_for_byte() {
        let json = br#"{ "z": 1.50, "a": 123456789012345678901234567890, "$maxCount": 7 }"#;
        let metadata = StreamMetadata::from_json(json);
        assert_eq!(&metadata.to_json()[..], json);
        let changed = metadata.with_max_count(8).to_json();
        let expected = r#"{"z":1.50,"a":123456789012345678901234567890,"$maxCount":8}"#;
        assert_eq!(&changed[..], expected.as_bytes());
    }

    #[test]
    fn what_is_not_an_object_is_metadata_without_keys() {
        for json in [&b"[1]"[..], b"", b" ", b"17", b"null"] {
            assert_eq!(StreamMetadata::from_json(json), StreamMetadata::default());
        }
    }

    #[test]
    fn what_is_no_json_has_a_list_that_names_nobody_also_when_it_is_changed() {
        for json in [
            &b"{\"$acl\":{\"$r\":\"ann\"},\"a\":NaN}"[..],
            b"\xef\xbb\xbf{\"$acl\":{\"$r\":\"ann\"}}",
            b"{\"$acl\":{\"$r\":\"ann\"},\"a\":\"\xff\"}",
            b"{\"$acl\":{\"$r\":\"ann\"},}",
            b"no json",
        ] {
            let metadata = StreamMetadata::from_json(json);
            assert_eq!(metadata.to_json(), r#"{"$acl":""}"#);
            let deleted = metadata.clone().deleted();
            assert!(deleted.is_deleted());
            let returned = deleted.with_deleted_before(Revision::new(3));
            for metadata in [metadata, StreamMetadata::from_json(&returned.to_json())] {
                assert_eq!(metadata.acl(), Some("".into()), "{metadata:?}");
            }
        }
    }

    #[test]
    fn a_list_that_is_given_counts_as_given_whatever_is_in_it() {
        for list in [r#"{"$r":"ann","a":1e999}"#, r#"{"$r":"\ud800"}"#] {
            let metadata = StreamMetadata::from_json(format!("{{\"$acl\":{list}}}").as_bytes());
            assert_eq!(metadata.acl(), Some(Value::String(list.to_owned())));
        }
        assert_eq!(StreamMetadata::from_json(b"{}").acl(), None);
    }

    #[test]
    fn a_key_that_is_no_text_hides_no_other_and_is_kept() {
        let json = br#"{"\ud800":1,"$acl":{"$r":"ann"},"\u0024maxCount":7}"#;
        let metadata = StreamMetadata::from_json(json);
        assert_eq!(metadata.acl(), Some(serde_json::json!({"$r":"ann"})));
        assert_eq!(metadata.max_count(), Some(7));
        assert_eq!(metadata.entries().len(), 3);
        let deleted = metadata.deleted();
        let expected =
            r#"{"\ud800":1,"$acl":{"$r":"ann"},"\u0024maxCount":7,"$tb":9223372036854775807}"#;
        assert_eq!(deleted.to_json(), expected);
        let counted = deleted.with_max_count(8);
        assert_eq!(counted.max_count(), Some(8));
        assert_eq!(counted.entries().len(), 4);
    }

    #[test]
    fn zero_and_negative_bounds_bound_nothing() {
        let metadata = StreamMetadata::from_json(br#"{"$maxCount":0,"$maxAge":-4,"$tb":-1}"#);
        assert_eq!(metadata.max_count(), None);
        assert_eq!(metadata.max_age(), None);
        assert_eq!(metadata.truncate_before(), None);
    }
}
