//! Metadata: why an event was written, by whom, and in which shape.
//!
//! **Owns:** [`Metadata`] and its JSON. **Does not know:** events.
//! **Invariants:** an event without metadata and of version 1 stores none; keys of our own begin with `$` or are those of
//! a standard; metadata of other programs is read as far as it is a JSON object, and never an error.

use std::{borrow::Cow, fmt, sync::LazyLock};

use leftfold_model::{EventId, RecordedEvent};
use memchr::memmem::Finder;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::EncodeError;

/// The key of the version of an event's shape.
const VERSION: &str = "$version";
static FINDER_OF_VERSION: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(VERSION));
const RESERVED: &[&str] = &[
    VERSION,
    "$correlationId",
    "$causationId",
    "$actor",
    "$tenant",
    "traceparent",
];

/// Why an event was written, by whom, for whom.
///
/// ```
/// use leftfold::Metadata;
/// let metadata = Metadata::new().correlation("order-17").actor("ann").with("channel", "web");
/// assert_eq!(metadata.correlation.as_deref(), Some("order-17"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metadata {
    /// What belongs together: the same for everything that one request sets off. `$correlationId`.
    #[serde(rename = "$correlationId", skip_serializing_if = "Option::is_none")]
    pub correlation: Option<String>,
    /// What directly led to this: a command's id or an event's id. `$causationId`.
    #[serde(rename = "$causationId", skip_serializing_if = "Option::is_none")]
    pub causation: Option<String>,
    /// Who did it. `$actor`.
    #[serde(rename = "$actor", skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// For which tenant. `$tenant`.
    #[serde(rename = "$tenant", skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The trace it belongs to, as W3C Trace Context writes it. `traceparent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Whatever else.
    #[serde(flatten)]
    pub custom: Map<String, Value>,
}

/// The name of an entry, as it stands in the JSON.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

struct MetadataVisitor;

impl<'de> Visitor<'de> for MetadataVisitor {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Metadata, A::Error> {
        let mut metadata = Metadata::default();
        while let Some(Name(name)) = map.next_key()? {
            let field = match &*name {
                "$correlationId" => &mut metadata.correlation,
                "$causationId" => &mut metadata.causation,
                "$actor" => &mut metadata.actor,
                "$tenant" => &mut metadata.tenant,
                "traceparent" => &mut metadata.traceparent,
                _ => {
                    let value = map.next_value()?;
                    metadata.custom.insert(name.into_owned(), value);
                    continue;
                }
            };
            *field = map.next_value()?;
        }
        Ok(metadata)
    }
}

/// Written by hand, because derived code copies all entries before it looks at one.
impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MetadataVisitor)
    }
}

impl Metadata {
    /// Creates empty metadata.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates metadata for what `event` causes: its correlation (its own id if it has none), tenant and trace; the event
    /// is the cause.
    #[must_use]
    pub fn caused_by(event: &RecordedEvent) -> Self {
        Self::of(event).of_effect(event.id)
    }

    /// Creates metadata for what the event of this id and metadata causes: see [`Self::caused_by`].
    pub(crate) fn of_effect(&self, id: EventId) -> Self {
        let correlation = self.correlation.clone();
        Self {
            correlation: correlation.or_else(|| Some(id.to_string())),
            causation: Some(id.to_string()),
            actor: None,
            tenant: self.tenant.clone(),
            traceparent: self.traceparent.clone(),
            custom: Map::new(),
        }
    }

    /// Reads the metadata of a stored event; empty if it is not a JSON object of these fields.
    #[must_use]
    pub fn of(event: &RecordedEvent) -> Self {
        Self::parse(&event.metadata)
    }

    pub(crate) fn parse(stored: &[u8]) -> Self {
        let mut metadata: Self = serde_json::from_slice(stored).unwrap_or_default();
        metadata.custom.remove(VERSION);
        metadata
    }

    /// Sets the correlation.
    #[must_use]
    pub fn correlation(mut self, id: impl Into<String>) -> Self {
        self.correlation = Some(id.into());
        self
    }
    /// Sets the id of the causing event or command.
    #[must_use]
    pub fn causation(mut self, id: impl Into<String>) -> Self {
        self.causation = Some(id.into());
        self
    }
    /// Sets the actor.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }
    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }
    /// Sets the trace: a `traceparent` of W3C Trace Context.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
    /// Sets a custom field. A key with a meaning of its own is refused when events are written.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.custom.insert(key.into(), value.into());
        self
    }

    /// The bytes stored with an event whose shape has this version.
    pub(crate) fn encode(&self, event_type: &str, version: u32) -> Result<Vec<u8>, EncodeError> {
        let taken = self
            .custom
            .keys()
            .find(|key| RESERVED.contains(&key.as_str()));
        if let Some(key) = taken {
            return Err(EncodeError::ReservedKey {
                key: key.clone(),
                reserved: RESERVED,
            });
        }
        if version == 1 && *self == Self::default() {
            return Ok(Vec::new());
        }
        let stored = Stored {
            version: (version != 1).then_some(version),
            metadata: self,
        };
        serde_json::to_vec(&stored).map_err(|source| EncodeError::Data {
            event_type: event_type.to_owned(),
            source: source.into(),
        })
    }
}

#[derive(Serialize)]
struct Stored<'a> {
    #[serde(rename = "$version", skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(flatten)]
    metadata: &'a Metadata,
}

/// Only the version, as it may stand there.
#[derive(Deserialize)]
struct Version {
    #[serde(rename = "$version")]
    version: Option<Value>,
}

/// The version of an event's shape, from its metadata; 1 if that names none. `Err` with what stands there instead.
pub(crate) fn version(metadata: &[u8]) -> Result<u32, String> {
    if FINDER_OF_VERSION.find(metadata).is_none() {
        return Ok(1);
    }
    match serde_json::from_slice(metadata) {
        Ok(Version {
            version: Some(found),
        }) => {
            let number = found.as_u64().and_then(|number| u32::try_from(number).ok());
            number.filter(|&n| n > 0).ok_or_else(|| found.to_string())
        }
        // Another program's text, in which the word only occurs.
        _ => Ok(1),
    }
}

/// Derives the id of a command from the parts of its idempotency key.
pub(crate) fn derived_id(parts: &[&str]) -> EventId {
    let namespace = EventId::from_bytes(*b"leftfold-key-2\0\0");
    let mut name = Vec::new();
    for part in parts {
        name.extend((part.len() as u64).to_le_bytes());
        name.extend(part.as_bytes());
    }
    EventId::derived(namespace, &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_comes_back_as_it_went_in_and_the_version_beside_it() {
        let metadata = Metadata::new()
            .correlation("c")
            .causation("b")
            .actor("a")
            .tenant("t")
            .traceparent("00-1-2-01")
            .with("n", 7);
        let bytes = metadata.encode("T", 3).unwrap();
        assert_eq!(version(&bytes), Ok(3));
        let mut back: Metadata = serde_json::from_slice(&bytes).unwrap();
        back.custom.remove(VERSION);
        assert_eq!(back, metadata);
        assert!(Metadata::new().encode("T", 1).unwrap().is_empty());
    }

    #[test]
    fn a_key_with_a_meaning_of_its_own_is_refused() {
        for &key in RESERVED {
            let error = Metadata::new().with(key, 1).encode("T", 1).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn metadata_of_other_programs_means_version_one() {
        for bytes in [
            &b""[..],
            b"\xff\xfe",
            b"[1]",
            b"{\"a\":\"$version\"}",
            b"$version",
        ] {
            assert_eq!(version(bytes), Ok(1));
        }
        for bytes in [
            &b"{\"$version\":0}"[..],
            b"{\"$version\":\"2\"}",
            b"{\"$version\":5000000000}",
        ] {
            assert!(version(bytes).is_err());
        }
    }
}
