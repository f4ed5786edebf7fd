//! The metadata of a stream: how much of it is kept, and what its users note about it.
//!
//! **Owns:** [`StreamMetadata`] and its JSON form. **Does not know:** where it is stored, and what it does.
//! **Invariants:** keys it does not know survive a change; a value of the wrong type counts as absent, so that a mistyped
//! value cannot make a stream unreadable.

use std::time::Duration;

use leftfold_model::{
    Append, Bytes, EventType, ExpectedRevision, ModelError, NewEvent, Revision, StreamName,
};
use serde_json::{Map, Value};

const TRUNCATE_BEFORE: &str = "$tb";
const MAX_COUNT: &str = "$maxCount";
const MAX_AGE: &str = "$maxAge";
const CACHE_CONTROL: &str = "$cacheControl";
const ACL: &str = "$acl";

/// The value of `$tb` in the metadata of a deleted stream: 2^63 - 1, as KurrentDB writes it.
pub const DELETED_STREAM_TRUNCATE_BEFORE: u64 = i64::MAX.unsigned_abs();
/// The type of events that hold the metadata of a stream.
pub const METADATA_EVENT_TYPE: &str = "$metadata";
/// The type of the event that tombstones a stream.
pub const TOMBSTONE_EVENT_TYPE: &str = "$streamDeleted";

/// What is known about a stream beside its events. The newest value counts as a whole.
///
/// It is stored as an event of type `$metadata` in the stream `$$name`, so it has a history and takes part in appends
/// like any other event.
///
/// ```
/// use leftfold_store::StreamMetadata;
/// let last_hundred = StreamMetadata::default().with_max_count(100);
/// assert_eq!(last_hundred.max_count(), Some(100));
/// ```
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StreamMetadata {
    keys: Map<String, Value>,
}

impl StreamMetadata {
    /// Reads the JSON form. Anything but a JSON object is metadata without keys.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Self {
        let keys = serde_json::from_slice(json).unwrap_or_default();
        Self { keys }
    }

    /// The JSON form.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        Value::Object(self.keys.clone()).to_string().into()
    }

    /// Only the newest so many events are kept.
    #[must_use]
    pub fn max_count(&self) -> Option<u64> {
        self.number(MAX_COUNT).filter(|&count| count > 0)
    }

    /// Only events younger than this are kept.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        let seconds = self.number(MAX_AGE).filter(|&seconds| seconds > 0);
        seconds.map(Duration::from_secs)
    }

    /// Events below this revision are not kept.
    #[must_use]
    pub fn truncate_before(&self) -> Option<Revision> {
        self.number(TRUNCATE_BEFORE).map(Revision::new)
    }

    /// For how long readers may keep answers about the stream.
    #[must_use]
    pub fn cache_control(&self) -> Option<Duration> {
        self.number(CACHE_CONTROL).map(Duration::from_secs)
    }

    /// Who may do what with the stream, as it was given.
    #[must_use]
    pub fn acl(&self) -> Option<&Value> {
        self.keys.get(ACL)
    }

    /// All keys, those of users included.
    #[must_use]
    pub fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// Whether this metadata says that the stream is deleted.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.number(TRUNCATE_BEFORE)
            .is_some_and(|before| before >= DELETED_STREAM_TRUNCATE_BEFORE)
    }

    /// Keeps only the newest `count` events of the stream.
    #[must_use]
    pub fn with_max_count(self, count: u64) -> Self {
        self.with_key(MAX_COUNT, count)
    }
    /// Keeps only events younger than this; fractions of a second are dropped.
    #[must_use]
    pub fn with_max_age(self, age: Duration) -> Self {
        self.with_key(MAX_AGE, age.as_secs())
    }
    /// Truncates the stream before this revision.
    #[must_use]
    pub fn with_truncate_before(self, before: Revision) -> Self {
        self.with_key(TRUNCATE_BEFORE, before.get())
    }
    /// Sets a key of the caller's own.
    #[must_use]
    pub fn with_key(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.keys.insert(key.to_owned(), value.into());
        self
    }

    /// Marks the stream as deleted.
    pub(crate) fn deleted(self) -> Self {
        self.with_key(TRUNCATE_BEFORE, DELETED_STREAM_TRUNCATE_BEFORE)
    }

    /// The append that makes this the metadata of `stream`; `expected` is about the metadata, whose own revisions start
    /// at 0. Setting it brings a deleted stream back, without its old events.
    ///
    /// # Errors
    /// [`ModelError`] if the stream's name leaves no room for that of its metadata, or if the metadata is too long.
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
        self.keys.get(key)?.as_u64()
    }
}

/// The type of events that hold metadata.
pub(crate) fn metadata_type() -> Result<EventType, ModelError> {
    EventType::new(METADATA_EVENT_TYPE)
}

/// The type of the event that deletes a stream for good.
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
        assert_eq!(again.keys().get("owner"), Some(&"till".into()));
    }

    #[test]
    fn what_is_not_an_object_is_metadata_without_keys() {
        for json in [&b"[1]"[..], b"", b"{\"$tb\":", b"17", b"null"] {
            assert_eq!(StreamMetadata::from_json(json), StreamMetadata::default());
        }
    }

    #[test]
    fn zero_and_negative_bounds_bound_nothing() {
        let metadata = StreamMetadata::from_json(br#"{"$maxCount":0,"$maxAge":-4,"$tb":-1}"#);
        assert_eq!(metadata.max_count(), None);
        assert_eq!(metadata.max_age(), None);
        assert_eq!(metadata.truncate_before(), None);
    }
}
