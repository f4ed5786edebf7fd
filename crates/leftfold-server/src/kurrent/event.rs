//! Events between the wire and the model.
//!
//! **Owns:** both directions, ids and names included. **Does not know:** requests.
//! **Invariants:** data and metadata are shared, not copied; what is shown of an event depends on nothing but the event and
//! the form of ids that was asked for.

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventId, EventType, NewEvent, Position, RecordedEvent, StreamName, limits,
};
use leftfold_proto::event_store::client::{
    StreamIdentifier, Uuid,
    streams::{
        MetadataEntry, ReadResp,
        read_resp::{
            self, ReadEvent,
            read_event::{self, RecordedEvent as Shown},
        },
    },
    uuid::{Structured, Value},
};
use tonic::Status;

use super::{errors, tags};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
/// The type of the event that says that a stream is deleted for good.
const TOMBSTONE: &str = "$streamDeleted";
/// The revision that stands for the end of a stream for good.
const TOMBSTONE_REVISION: u64 = i64::MAX.unsigned_abs();

/// How a client wants ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdForm {
    Text,
    Halves,
}

/// An event as this wire shows it, and at which position.
pub(super) fn shown(event: RecordedEvent, ids: IdForm) -> Shown {
    let (stream, revision) = place(&event);
    let content_type = match event.content_type {
        ContentType::Json => JSON,
        _ => BYTES,
    };
    Shown {
        id: Some(id_to_wire(event.id, ids)),
        stream_identifier: Some(identifier(&stream)),
        stream_revision: revision,
        prepare_position: event.position.get(),
        commit_position: event.position.get(),
        metadata: vec![
            entry(
                "type",
                Bytes::copy_from_slice(event.event_type.as_str().as_bytes()),
            ),
            entry("created", ticks(event.time.as_micros())),
            entry("content-type", Bytes::from_static(content_type.as_bytes())),
        ],
        custom_metadata: tags::shown(event.metadata, &event.tags),
        data: event.data,
    }
}

/// A tombstone is told of the stream it ends, not of that which holds it.
fn place(event: &RecordedEvent) -> (StreamName, u64) {
    if event.event_type.as_str() == TOMBSTONE
        && let Some(ended) = event.stream.described_stream()
    {
        return (ended, TOMBSTONE_REVISION);
    }
    (event.stream.clone(), event.revision.get())
}

fn entry(key: &'static str, value: Bytes) -> MetadataEntry {
    MetadataEntry {
        key: Bytes::from_static(key.as_bytes()),
        value,
    }
}

/// Hundreds of nanoseconds since 1970, as text.
fn ticks(micros: u64) -> Bytes {
    let mut text = micros.to_string();
    text.push('0');
    text.into()
}

/// An event with the link that led to it, or alone, as an answer.
pub(super) fn answer(
    event: Option<RecordedEvent>,
    link: Option<RecordedEvent>,
    ids: IdForm,
) -> ReadResp {
    let position = link
        .as_ref()
        .or(event.as_ref())
        .map(|event| event.position.get());
    let event = ReadEvent {
        event: event.map(|event| shown(event, ids)),
        link: link.map(|link| shown(link, ids)),
        position: position.map(read_event::Position::CommitPosition),
    };
    content(read_resp::Content::Event(event))
}

pub(super) fn content(content: read_resp::Content) -> ReadResp {
    ReadResp {
        content: Some(content),
    }
}

pub(super) fn identifier(stream: &StreamName) -> StreamIdentifier {
    StreamIdentifier {
        stream_name: Bytes::copy_from_slice(stream.as_str().as_bytes()),
    }
}

/// The stream that a request names.
pub(super) fn stream(identifier: Option<StreamIdentifier>) -> Result<StreamName, Status> {
    let name = identifier.ok_or_else(|| errors::missing("stream identifier"))?;
    let stream =
        StreamName::from_bytes(&name.stream_name).map_err(|error| errors::invalid(&error))?;
    if stream.as_str() == "$$" {
        return Err(Status::invalid_argument(
            "stream name \"$$\" describes no stream",
        ));
    }
    Ok(stream)
}

pub(super) fn id_to_wire(id: EventId, form: IdForm) -> Uuid {
    let value = match form {
        IdForm::Text => Value::String(id.to_string()),
        IdForm::Halves => {
            let (most, least) = uuid::Uuid::from_bytes(*id.as_bytes()).as_u64_pair();
            Value::Structured(Structured {
                most_significant_bits: most.cast_signed(),
                least_significant_bits: least.cast_signed(),
            })
        }
    };
    Uuid { value: Some(value) }
}

pub(super) fn id_from_wire(id: Option<&Uuid>) -> Result<EventId, Status> {
    match id.and_then(|id| id.value.as_ref()) {
        Some(Value::String(text)) => text.parse().map_err(|error| errors::invalid(&error)),
        Some(Value::Structured(halves)) => {
            let id = uuid::Uuid::from_u64_pair(
                halves.most_significant_bits.cast_unsigned(),
                halves.least_significant_bits.cast_unsigned(),
            );
            Ok(EventId::from_bytes(*id.as_bytes()))
        }
        None => Err(errors::missing("id")),
    }
}

/// An event that a client proposes.
#[derive(Debug)]
pub(super) struct Proposed {
    pub(super) id: Option<Uuid>,
    pub(super) metadata: Vec<MetadataEntry>,
    pub(super) custom_metadata: Bytes,
    pub(super) data: Bytes,
}

impl Proposed {
    /// What it counts for the size of an append.
    pub(super) fn size(&self) -> usize {
        let entries: usize = self
            .metadata
            .iter()
            .map(|entry| entry.key.len() + entry.value.len())
            .sum();
        self.data.len() + self.custom_metadata.len() + entries
    }

    pub(super) fn into_event(self) -> Result<NewEvent, Status> {
        let id = id_from_wire(self.id.as_ref())?;
        let size = self.data.len();
        if size > limits::DATA_BYTES_MAX {
            return Err(errors::event_too_large(
                &id.to_string(),
                size,
                limits::DATA_BYTES_MAX,
            ));
        }
        let value = |key: &str| {
            let found = self.metadata.iter().find(|entry| entry.key == key);
            found.map(|entry| &entry.value)
        };
        let (Some(name), Some(content_type)) = (value("type"), value("content-type")) else {
            return Err(errors::required_metadata_missing());
        };
        let content_type = if content_type == JSON {
            ContentType::Json
        } else {
            ContentType::Binary
        };
        let event_type = EventType::from_bytes(name).map_err(|error| errors::invalid(&error))?;
        let tags =
            tags::named_in(&self.custom_metadata).map_err(|error| errors::invalid(&error))?;
        let event = NewEvent::new(event_type, content_type, self.data).with_id(id);
        event
            .with_metadata(self.custom_metadata)
            .with_tags(tags)
            .map_err(|error| errors::invalid(&error))
    }
}

/// A position on this wire.
pub(super) fn read_position(position: Position) -> read_resp::Position {
    read_resp::Position {
        commit_position: position.get(),
        prepare_position: position.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_in_both_forms() {
        let id = EventId::fresh();
        for form in [IdForm::Text, IdForm::Halves] {
            assert_eq!(id_from_wire(Some(&id_to_wire(id, form))).unwrap(), id);
        }
        assert!(id_from_wire(None).is_err());
    }

    #[test]
    fn times_are_told_in_hundreds_of_nanoseconds() {
        assert_eq!(ticks(1_700_000_000_123_456), "17000000001234560");
    }
}
