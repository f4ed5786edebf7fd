//! A commit as a document.
//!
//! **Owns:** [`CommitDocument`], its checksum, and the conversion to and from events. **Does not know:** collections.
//! **Invariants:** a document that decodes has a valid checksum, as many events as its positions say, and names within the
//! model's limits; only the fields of an erased event may differ from what was committed.

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventId, EventType, Position, RecordedEvent, Revision, StreamName, Tag, Timestamp,
};
use mongodb::bson::{Binary, Bson, spec::BinarySubtype};
use serde::{Deserialize, Serialize};

use crate::{error::Failure, keys::Keys};

/// The version of the documents that this program writes.
pub(crate) const FORMAT_VERSION: i64 = 2;

/// The identity of a commit: its writer and a number. Unique over all commits ever tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) writer: Binary,
    pub(crate) sequence: i64,
}

/// One commit: the appends of one group, written together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct CommitDocument {
    /// The number of the commit, from 1, dense. The unique key that makes each number one writer's.
    #[serde(rename = "_id")]
    pub(crate) number: i64,
    /// The position of the first event.
    pub(crate) first: i64,
    /// The position of the last event.
    pub(crate) last: i64,
    pub(crate) identity: Identity,
    /// The identity of the commit before it; none for the first.
    pub(crate) previous: Option<Identity>,
    /// How often a scavenge rewrote the document.
    pub(crate) generation: i64,
    pub(crate) checksum: i64,
    /// What the index finds the commit by; derived from the events.
    pub(crate) keys: Vec<String>,
    pub(crate) events: Vec<EventDocument>,
}

/// One event of a commit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct EventDocument {
    pub(crate) position: i64,
    pub(crate) stream: String,
    pub(crate) revision: i64,
    pub(crate) id: Binary,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) tags: Vec<String>,
    /// Microseconds since 1970.
    pub(crate) time: i64,
    /// The code of the content type, as in all formats of Leftfold.
    pub(crate) content_type: i32,
    pub(crate) data: Binary,
    #[serde(default = "no_bytes", skip_serializing_if = "is_empty")]
    pub(crate) metadata: Binary,
    /// A copy of the data, if it is JSON and the store's options say so: for people's own queries, never read by the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) json: Option<Bson>,
    /// Where data and metadata are, if they are too large to be inline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<PayloadReference>,
    /// Whether a scavenge removed data and metadata.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) erased: bool,
}

/// Where the data and metadata of an event are, if they are not inline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct PayloadReference {
    pub(crate) id: Binary,
    /// How many documents of the collection `payloads` it consists of.
    pub(crate) parts: i32,
    pub(crate) data_bytes: i64,
    pub(crate) metadata_bytes: i64,
    pub(crate) checksum: i64,
}

/// Converts a number to BSON's integer.
pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Converts BSON's integer to a number, which is never negative.
pub(crate) fn to_u64(number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::Damaged(format!("negative number {number}")))
}

/// Converts bytes to BSON.
pub(crate) fn binary(bytes: impl Into<Vec<u8>>) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes: bytes.into(),
    }
}

fn no_bytes() -> Binary {
    binary([])
}

fn is_empty(binary: &Binary) -> bool {
    binary.bytes.is_empty()
}

/// Converts an id to BSON, as other programs write UUIDs.
pub(crate) fn uuid(id: [u8; 16]) -> Binary {
    Binary {
        subtype: BinarySubtype::Uuid,
        bytes: id.to_vec(),
    }
}

/// Converts an id from BSON.
pub(crate) fn event_id(binary: &Binary) -> Result<EventId, Failure> {
    let bytes = binary.bytes.as_slice().try_into();
    let bytes = bytes.map_err(|_| Failure::Damaged("an id has not 16 bytes".to_owned()))?;
    Ok(EventId::from_bytes(bytes))
}

impl CommitDocument {
    /// Derives the keys from the events.
    pub(crate) fn derive_keys(&self) -> Result<Vec<String>, Failure> {
        let mut keys = Keys::default();
        for event in &self.events {
            let event = event.names().decode()?;
            keys.add(
                &event.stream,
                event.revision,
                event.id,
                &event.event_type,
                &event.tags,
            );
        }
        Ok(keys.into_vec())
    }

    /// Computes the checksum over everything but keys, the number of rewrites, and copies of data.
    pub(crate) fn checksum(&self) -> i64 {
        let mut sum = Checksum::default();
        sum.number(self.number);
        sum.number(self.first);
        sum.number(self.last);
        for identity in [Some(&self.identity), self.previous.as_ref()] {
            match identity {
                Some(identity) => {
                    sum.bytes(&identity.writer.bytes);
                    sum.number(identity.sequence);
                }
                None => sum.number(-1),
            }
        }
        for event in &self.events {
            event.add_to(&mut sum);
        }
        i64::from(sum.0)
    }

    /// Checks the invariants that every later use relies on.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let damaged = |what: &str| Failure::Damaged(format!("commit {}: {what}", self.number));
        if self.checksum() != self.checksum {
            return Err(damaged("the checksum does not hold"));
        }
        let positions = self.events.iter().map(|event| event.position);
        if self.events.is_empty() || !positions.eq(self.first..=self.last) {
            return Err(damaged("the positions of its events are not dense"));
        }
        Ok(())
    }
}

impl EventDocument {
    fn add_to(&self, sum: &mut Checksum) {
        sum.number(self.position);
        sum.bytes(self.stream.as_bytes());
        sum.number(self.revision);
        sum.bytes(&self.id.bytes);
        sum.bytes(self.event_type.as_bytes());
        sum.number(to_i64(self.tags.len() as u64));
        for tag in &self.tags {
            sum.bytes(tag.as_bytes());
        }
        sum.number(self.time);
        sum.number(i64::from(self.content_type));
        sum.bytes(&self.data.bytes);
        sum.bytes(&self.metadata.bytes);
        if let Some(payload) = &self.payload {
            sum.bytes(&payload.id.bytes);
            sum.number(payload.checksum);
        }
        sum.number(i64::from(self.erased));
    }

    /// Returns the event without data and metadata.
    pub(crate) fn names(&self) -> Self {
        Self {
            position: self.position,
            stream: self.stream.clone(),
            revision: self.revision,
            id: self.id.clone(),
            event_type: self.event_type.clone(),
            tags: self.tags.clone(),
            time: self.time,
            content_type: self.content_type,
            data: binary([]),
            metadata: binary([]),
            json: None,
            payload: None,
            erased: self.erased,
        }
    }

    /// Decodes the event; its data and metadata are empty if they are not inline.
    pub(crate) fn decode(self) -> Result<RecordedEvent, Failure> {
        let position = self.position;
        let damaged =
            |what: String| Failure::Damaged(format!("event at position {position}: {what}"));
        let name = |error: leftfold_model::ModelError| damaged(error.to_string());
        let content = u8::try_from(self.content_type)
            .ok()
            .and_then(ContentType::from_code);
        let tags: Result<Vec<_>, _> = self.tags.iter().map(|tag| Tag::new(tag.as_str())).collect();
        Ok(RecordedEvent {
            position: Position::new(to_u64(position)?),
            stream: StreamName::new(self.stream.as_str()).map_err(name)?,
            revision: Revision::new(to_u64(self.revision)?),
            id: event_id(&self.id)?,
            event_type: EventType::new(self.event_type.as_str()).map_err(name)?,
            content_type: content
                .ok_or_else(|| damaged(format!("unknown content type {}", self.content_type)))?,
            data: Bytes::from(self.data.bytes),
            metadata: Bytes::from(self.metadata.bytes),
            tags: tags.map_err(name)?,
            time: Timestamp::from_micros(to_u64(self.time)?),
        })
    }
}

/// CRC-32C over fields, each with its length, so that no two lists of fields give the same bytes.
#[derive(Default)]
struct Checksum(u32);

impl Checksum {
    fn number(&mut self, number: i64) {
        self.0 = crc32c::crc32c_append(self.0, &number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(to_i64(bytes.len() as u64));
        self.0 = crc32c::crc32c_append(self.0, bytes);
    }
}
