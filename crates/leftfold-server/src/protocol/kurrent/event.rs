//! Events between the wire and the model.
//!
//! **Owns:** proposed events, ids and names in both directions. **Does not know:** requests; how events are encoded.
//! **Invariants:** data and metadata of proposed events are shared, not copied, unless they wait for further messages.

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventId, EventType, ModelError, NewEvent, Position, StreamName, limits,
};
use leftfold_proto::event_store::client::{
    StreamIdentifier, Uuid,
    streams::{
        MetadataEntry, ReadResp,
        read_resp::{self},
    },
    uuid::{Structured, Value},
};
use tonic::Status;

use super::{status, tags};
use crate::protocol::client_id;

const JSON: &str = "application/json";

/// The format of ids that a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UuidFormat {
    Text,
    Structured,
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

/// Decodes the stream that a request names.
pub(super) fn stream(identifier: Option<StreamIdentifier>) -> Result<StreamName, Status> {
    let name = identifier.ok_or_else(|| status::missing("stream identifier"))?;
    let stream =
        StreamName::from_bytes(&name.stream_name).map_err(|error| status::invalid(&error))?;
    if stream.as_str() == "$$" {
        return Err(Status::invalid_argument(
            "stream name \"$$\" describes no stream",
        ));
    }
    Ok(stream)
}

pub(super) fn id_to_wire(id: EventId, form: UuidFormat) -> Uuid {
    let value = match form {
        UuidFormat::Text => Value::String(id.to_string()),
        UuidFormat::Structured => {
            let (most, least) = uuid::Uuid::from_bytes(*id.as_bytes()).as_u64_pair();
            Value::Structured(Structured {
                most_significant_bits: most.cast_signed(),
                least_significant_bits: least.cast_signed(),
            })
        }
    };
    Uuid { value: Some(value) }
}

/// Decodes the id of an event that a client appends; the nil id is none.
pub(super) fn id_from_wire(id: Option<&Uuid>) -> Result<EventId, Status> {
    let id = match id.and_then(|id| id.value.as_ref()) {
        Some(Value::String(text)) => text.parse().map_err(|error| status::invalid(&error))?,
        Some(Value::Structured(halves)) => {
            let id = uuid::Uuid::from_u64_pair(
                halves.most_significant_bits.cast_unsigned(),
                halves.least_significant_bits.cast_unsigned(),
            );
            EventId::from_bytes(*id.as_bytes())
        }
        None => return Err(status::missing("event id")),
    };
    if id.is_nil() {
        return Err(Status::invalid_argument(format!(
            "event id is nil: {id}; expected a UUID with a bit set"
        )));
    }
    Ok(id)
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
    /// Returns its size towards the limit of an append.
    pub(super) fn size(&self) -> usize {
        let entries: usize = self
            .metadata
            .iter()
            .map(|entry| entry.key.len() + entry.value.len())
            .sum();
        self.data.len() + self.custom_metadata.len() + entries
    }

    /// Gives it bytes of its own, so that it keeps no more of its message than its own size.
    pub(super) fn owned(mut self) -> Self {
        self.data = Bytes::copy_from_slice(&self.data);
        self.custom_metadata = Bytes::copy_from_slice(&self.custom_metadata);
        self
    }

    pub(super) fn into_event(self) -> Result<NewEvent, Status> {
        let id = id_from_wire(self.id.as_ref())?;
        let value = |key: &str| {
            let found = self.metadata.iter().find(|entry| entry.key == key);
            found.map(|entry| &entry.value)
        };
        let (Some(name), Some(content_type)) = (value("type"), value("content-type")) else {
            return Err(status::required_metadata_missing());
        };
        // As these clients count it: a character of a type has two bytes.
        let size = self.data.len() + self.custom_metadata.len() + 2 * name.len();
        if size > limits::DATA_BYTES_MAX {
            let max = limits::DATA_BYTES_MAX;
            return Err(status::event_too_large(&id.to_string(), size, max));
        }
        // Before it is parsed for tags, which takes many times its bytes.
        let max = limits::METADATA_BYTES_MAX;
        let got = self.custom_metadata.len();
        if got > max {
            return Err(status::invalid(&ModelError::OutOfRange {
                thing: format!("metadata of event {id}"),
                unit: "bytes",
                got,
                min: 0,
                max,
                limit: "METADATA_BYTES_MAX",
            }));
        }
        let content_type = if content_type == JSON {
            ContentType::Json
        } else {
            ContentType::Binary
        };
        let event_type = EventType::from_bytes(name).map_err(|error| status::invalid(&error))?;
        let tags = tags::parse(&self.custom_metadata).map_err(|error| status::invalid(&error))?;
        let event = NewEvent::new_with_id(id, event_type, content_type, self.data);
        event
            .with_metadata(client_id::protect(self.custom_metadata, id))
            .with_tags(tags)
            .map_err(|error| status::invalid(&error))
    }
}

/// Encodes a position.
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
        for form in [UuidFormat::Text, UuidFormat::Structured] {
            assert_eq!(id_from_wire(Some(&id_to_wire(id, form))).unwrap(), id);
        }
        assert!(id_from_wire(None).is_err());
    }
}
