//! Encoding events for this wire, directly as bytes.
//!
//! **Owns:** [`EventEncoder`]: the format of an event, field by field. **Does not know:** requests.
//! **Invariants:** the bytes are a `ReadEvent` of the contract and contain nothing but the event; the memory of a response is
//! kept only as long as the response or one of its neighbours is.
//!
//! Building a value of the generated types for each event first took about two thirds more of the server's time.
//!
//! Source: the encoding of Protocol Buffers; numbers of fields as in `streams.proto` and `shared.proto`.

use bytes::{BufMut, Bytes};
use leftfold_model::{ContentType, EventId, RecordedEvent, StreamName};
use leftfold_proto::{
    event_store::client::streams::{ReadResp, read_resp::Content},
    prost::encoding::{WireType, encode_key, encode_varint},
};
use leftfold_store::TOMBSTONE_EVENT_TYPE;
use uuid::Uuid;

use super::{
    event::{self, UuidFormat},
    revision::TOMBSTONE_REVISION,
    tags,
};
use crate::protocol::{
    client_id,
    wire_format::{self, SharedBuffer},
};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";

/// Which id of an event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShownIds {
    /// The one that its client gave it.
    Clients,
    /// The one that it is stored under.
    Stored,
}

/// The encoder of responses.
#[derive(Debug)]
pub(super) struct EventEncoder {
    ids: UuidFormat,
    out: SharedBuffer,
    /// An event whose length has to be known before it is written.
    event: Vec<u8>,
    /// Its metadata with its tags.
    metadata: Vec<u8>,
}

impl EventEncoder {
    pub(super) fn new(ids: UuidFormat) -> Self {
        Self {
            ids,
            out: SharedBuffer::default(),
            event: Vec::new(),
            metadata: Vec::new(),
        }
    }

    /// The id that an event's client gave it.
    pub(super) fn client_id(event: &RecordedEvent) -> EventId {
        let noted = client_id::noted(&event.metadata);
        given(noted.and_then(|noted| noted.id)).unwrap_or(event.id)
    }

    /// Encodes an event with the link that led to it, or one of both alone.
    pub(super) fn answer(
        &mut self,
        event: Option<&RecordedEvent>,
        link: Option<&RecordedEvent>,
    ) -> ReadResp {
        self.write_both(event, link, ShownIds::Clients);
        event::content(Content::Event(self.out.take()))
    }

    /// Writes an event for a consumer of a group: `ids` is for what the consumer acknowledges, the link if there is one.
    pub(super) fn group_event(
        &mut self,
        event: Option<&RecordedEvent>,
        link: Option<&RecordedEvent>,
        (ids, retries): (ShownIds, u32),
    ) -> Bytes {
        self.write_both(event, link, ids);
        let out = self.out.with_room(0);
        // Part of a choice, so 0 is written too.
        encode_key(5, WireType::Varint, out);
        encode_varint(retries.into(), out);
        self.out.take()
    }

    fn write_both(
        &mut self,
        event: Option<&RecordedEvent>,
        link: Option<&RecordedEvent>,
        ids: ShownIds,
    ) {
        let large = [event, link].into_iter().flatten().map(size).sum::<usize>();
        let _ = self.out.with_room(large);
        for (field, event) in [(1, event), (2, link)] {
            if let Some(event) = event {
                let found = link.is_none() || field == 2;
                let ids = if found { ids } else { ShownIds::Clients };
                self.write(event, ids);
                wire_format::bytes(self.out.with_room(0), field, &self.event);
            }
        }
        if let Some(found) = link.or(event) {
            let out = self.out.with_room(0);
            encode_key(3, WireType::Varint, out);
            encode_varint(found.position.get(), out);
        }
    }

    /// Writes a `RecordedEvent`.
    fn write(&mut self, event: &RecordedEvent, ids: ShownIds) {
        let out = &mut self.event;
        out.clear();
        let (id, metadata) = match client_id::noted(&event.metadata) {
            Some(noted) if ids == ShownIds::Clients => {
                (given(noted.id).unwrap_or(event.id), noted.metadata)
            }
            Some(noted) => (event.id, noted.metadata),
            None => (event.id, event.metadata.clone()),
        };
        match self.ids {
            UuidFormat::Text => field_of_id(out, id),
            UuidFormat::Structured => {
                let id = event::id_to_wire(id, self.ids);
                wire_format::bytes(out, 1, &leftfold_proto::prost::Message::encode_to_vec(&id));
            }
        }
        let ended = tombstoned(event);
        let name = ended.as_ref().unwrap_or(&event.stream).as_str();
        encode_key(2, WireType::LengthDelimited, out);
        encode_varint(wire_format::length_of_bytes(name.len()), out);
        wire_format::bytes(out, 3, name.as_bytes());
        let revision = ended
            .as_ref()
            .map_or(event.revision.get(), |_| TOMBSTONE_REVISION.unsigned_abs());
        wire_format::number(out, 3, revision);
        wire_format::number(out, 4, event.position.get());
        wire_format::number(out, 5, event.position.get());
        let mut ticks = itoa(event.time.as_micros());
        ticks.push(b'0');
        let content_type = match event.content_type {
            ContentType::Json => JSON,
            _ => BYTES,
        };
        field_of_entry(out, "type", event.event_type.as_str().as_bytes());
        // Hundreds of nanoseconds since 1970.
        field_of_entry(out, "created", &ticks);
        field_of_entry(out, "content-type", content_type.as_bytes());
        let metadata = tags::shown(&metadata, &event.tags, &mut self.metadata);
        if !metadata.is_empty() {
            wire_format::bytes(out, 7, metadata);
        }
        if !event.data.is_empty() {
            wire_format::bytes(out, 8, &event.data);
        }
    }
}

/// Returns the id that a client gave, unless it is nil: that is none on this wire, and no client could acknowledge by it.
fn given(id: Option<EventId>) -> Option<EventId> {
    id.filter(|id| !id.is_nil())
}

/// Returns an upper bound of an event's encoded bytes.
fn size(event: &RecordedEvent) -> usize {
    let tags: usize = event
        .tags
        .iter()
        .map(|tag| 2 * tag.as_str().len() + 3)
        .sum();
    let names = event.stream.as_str().len() + event.event_type.as_str().len();
    256 + names + tags + event.metadata.len() + event.data.len()
}

/// Returns the stream that a tombstone ends; clients see the tombstone as an event of it, not of the metadata stream.
fn tombstoned(event: &RecordedEvent) -> Option<StreamName> {
    (event.event_type.as_str() == TOMBSTONE_EVENT_TYPE)
        .then(|| event.stream.described_stream())
        .flatten()
}

/// Returns the digits of a number.
fn itoa(number: u64) -> Vec<u8> {
    use std::io::Write;
    let mut digits = Vec::with_capacity(24);
    // Writing to memory does not fail.
    let _ = write!(digits, "{number}");
    digits
}

fn field_of_id(out: &mut impl BufMut, id: EventId) {
    encode_key(1, WireType::LengthDelimited, out);
    encode_varint(wire_format::length_of_bytes(wire_format::ID_BYTES), out);
    wire_format::bytes(out, 2, wire_format::id(id, &mut Uuid::encode_buffer()));
}

fn field_of_entry(out: &mut impl BufMut, key: &str, value: &[u8]) {
    encode_key(6, WireType::LengthDelimited, out);
    encode_varint(
        wire_format::length_of_bytes(key.len()) + wire_format::length_of_bytes(value.len()),
        out,
    );
    wire_format::bytes(out, 1, key.as_bytes());
    wire_format::bytes(out, 2, value);
}

#[cfg(test)]
mod tests {
    use leftfold_model::{EventType, Position, Revision, Tag, Timestamp};
    use leftfold_proto::{
        event_store::client::{
            streams::read_resp::{ReadEvent, read_event::Position as At},
            uuid::Value,
        },
        prost::Message,
    };

    use super::*;

    fn recorded(stream: &str, event_type: &str) -> RecordedEvent {
        RecordedEvent {
            id: EventId::fresh(),
            position: Position::new(7),
            stream: StreamName::new(stream).unwrap(),
            revision: Revision::new(0),
            event_type: EventType::new(event_type).unwrap(),
            content_type: ContentType::Json,
            data: Bytes::from_static(b"{}"),
            metadata: Bytes::new(),
            tags: vec![Tag::new("a").unwrap()],
            time: Timestamp::from_micros(1_700_000_000_123_456),
        }
    }

    fn read(answer: ReadResp) -> ReadEvent {
        match answer.content.unwrap() {
            Content::Event(bytes) => ReadEvent::decode(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read_as_the_event_it_was() {
        let event = recorded("cart-1", "Added");
        let mut writer = EventEncoder::new(UuidFormat::Text);
        // The second answer shares the memory of the first.
        for _ in 0..2 {
            let shown = read(writer.answer(Some(&event), None));
            assert_eq!(shown.position, Some(At::CommitPosition(7)));
            assert!(shown.link.is_none());
            let shown = shown.event.unwrap();
            let id = shown.id.unwrap().value.unwrap();
            assert_eq!(id, Value::String(event.id.to_string()));
            assert_eq!(shown.stream_identifier.unwrap().stream_name, "cart-1");
            assert_eq!((shown.stream_revision, shown.commit_position), (0, 7));
            let entries = shown
                .metadata
                .iter()
                .map(|entry| (&*entry.key, &*entry.value));
            let expected: [(&[u8], &[u8]); 3] = [
                (b"type", b"Added"),
                (b"created", b"17000000001234560"),
                (b"content-type", b"application/json"),
            ];
            assert!(entries.eq(expected));
            assert_eq!(shown.custom_metadata, r#"{"$tags":["a"]}"#);
            assert_eq!(shown.data, "{}");
        }
    }

    #[test]
    fn ids_in_halves_and_links_are_written_too() {
        let (event, link) = (recorded("a", "Added"), recorded("b", "$>"));
        let shown = read(EventEncoder::new(UuidFormat::Structured).answer(None, Some(&link)));
        assert!(shown.event.is_none());
        let id = shown.link.unwrap().id.unwrap();
        assert_eq!(event::id_from_wire(Some(&id)).unwrap(), link.id);
        let shown = read(EventEncoder::new(UuidFormat::Text).answer(Some(&event), Some(&link)));
        assert!(shown.event.is_some() && shown.link.is_some());
    }

    #[test]
    fn a_tombstone_is_shown_at_the_end_of_the_stream_it_ends() {
        let shown = read(
            EventEncoder::new(UuidFormat::Text)
                .answer(Some(&recorded("$$a", TOMBSTONE_EVENT_TYPE)), None),
        );
        let shown = shown.event.unwrap();
        assert_eq!(shown.stream_identifier.unwrap().stream_name, "a");
        assert_eq!(shown.stream_revision, TOMBSTONE_REVISION.unsigned_abs());
    }
}
