//! Encoding events for this wire, directly as bytes.
//!
//! **Owns:** [`EventEncoder`]: the format of an event, field by field. **Does not know:** messages.
//! **Invariants:** the bytes are a `SequencedEvent` of the contract; the memory of an event is kept only as long as the
//! event or one of its neighbours is.
//!
//! Numbers of fields as in `umadb.proto`.

use bytes::Bytes;
use leftfold_model::{RecordedEvent, Tag};
use leftfold_proto::prost::encoding::{WireType, encode_key, encode_varint};
use uuid::Uuid;

use super::metadata::{ClientId, EventMetadata};
use crate::protocol::wire_format::{self, SharedBuffer};

/// The encoder of events.
#[derive(Debug, Default)]
pub(super) struct EventEncoder {
    out: SharedBuffer,
    /// An event whose length has to be known before it is written.
    event: Vec<u8>,
}

impl EventEncoder {
    /// Encodes a `SequencedEvent`.
    pub(super) fn write(&mut self, event: &RecordedEvent) -> Bytes {
        let kept = EventMetadata::from_json(&event.metadata);
        write_event(&mut self.event, event, &kept);
        let source = kept.tracking.as_ref().map_or(0, |it| it.source.len());
        let out = self.out.with_room(self.event.len() + source + 64);
        wire_format::number(out, 1, event.position.get());
        wire_format::bytes(out, 2, &self.event);
        if let Some(tracking) = &kept.tracking {
            encode_key(3, WireType::LengthDelimited, out);
            encode_varint(
                leftfold_proto::prost::Message::encoded_len(tracking) as u64,
                out,
            );
            wire_format::text(out, 1, &tracking.source);
            wire_format::number(out, 2, tracking.position);
        }
        self.out.take()
    }
}

/// Writes an `Event`.
fn write_event(out: &mut Vec<u8>, event: &RecordedEvent, kept: &EventMetadata) {
    out.clear();
    wire_format::text(out, 1, event.event_type.as_str());
    match in_order(&event.tags, kept.tags.as_deref()) {
        // Empty tags count too.
        Some(given) => given
            .iter()
            .for_each(|tag| wire_format::bytes(out, 2, tag.as_bytes())),
        None => {
            (event.tags.iter()).for_each(|tag| wire_format::bytes(out, 2, tag.as_str().as_bytes()))
        }
    }
    if !event.data.is_empty() {
        wire_format::bytes(out, 3, &event.data);
    }
    let id = match kept.id {
        ClientId::Stored => Some(event.id),
        ClientId::Given(id) => Some(id),
        ClientId::Missing => None,
    };
    if let Some(id) = id {
        let text = &mut Uuid::encode_buffer();
        wire_format::bytes(out, 4, wire_format::id(id, text));
    }
    for pair in &kept.pairs {
        let length = [&pair.key, &pair.value]
            .iter()
            .filter(|text| !text.is_empty())
            .map(|text| wire_format::length_of_bytes(text.len()))
            .sum();
        encode_key(5, WireType::LengthDelimited, out);
        encode_varint(length, out);
        wire_format::text(out, 1, &pair.key);
        wire_format::text(out, 2, &pair.value);
    }
}

/// Returns the given order of an event's tags, if it is stored and agrees with them.
fn in_order<'a>(tags: &[Tag], given: Option<&'a [String]>) -> Option<&'a [String]> {
    let given = given?;
    let mut set: Vec<_> = given.iter().map(String::as_str).collect();
    set.sort_unstable();
    set.dedup();
    set.into_iter()
        .eq(tags.iter().map(Tag::as_str))
        .then_some(given)
}

#[cfg(test)]
mod tests {
    use leftfold_model::{
        ContentType, EventId, EventType, Position, Revision, StreamName, Timestamp,
    };
    use leftfold_proto::{prost::Message, umadb::v1 as wire};

    use super::*;

    fn recorded(tags: &[&str], metadata: &'static str) -> RecordedEvent {
        RecordedEvent {
            id: EventId::fresh(),
            position: Position::new(300),
            stream: StreamName::default_stream(),
            revision: Revision::new(0),
            event_type: EventType::new("Added").unwrap(),
            content_type: ContentType::Binary,
            data: Bytes::from_static(b"data"),
            metadata: Bytes::from_static(metadata.as_bytes()),
            tags: tags.iter().map(|&tag| Tag::new(tag).unwrap()).collect(),
            time: Timestamp::from_micros(0),
        }
    }

    fn read(bytes: Bytes) -> wire::SequencedEvent {
        wire::SequencedEvent::decode(bytes).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_the_event_it_was() {
        let metadata = r#"{"a":"1","":"2","b":"","$tracking":{"source":"s","position":9}}"#;
        let event = recorded(&["x", "y"], metadata);
        let mut writer = EventEncoder::default();
        // The second shares the memory of the first.
        for _ in 0..2 {
            let shown = read(writer.write(&event));
            assert_eq!(shown.position, 300);
            let tracking = shown.tracking_info.unwrap();
            assert_eq!((&*tracking.source, tracking.position), ("s", 9));
            let shown = shown.event.unwrap();
            assert_eq!(shown.event_type, "Added");
            assert_eq!(shown.tags, ["x", "y"]);
            assert_eq!(shown.data, "data");
            assert_eq!(shown.uuid, event.id.to_string());
            let pairs = shown.metadata.iter().map(|pair| (&*pair.key, &*pair.value));
            assert!(pairs.eq([("a", "1"), ("", "2"), ("b", "")]));
        }
    }

    #[test]
    fn an_event_with_nothing_but_a_type_is_written_too() {
        let mut event = recorded(&[], "");
        event.data = Bytes::new();
        let shown = read(EventEncoder::default().write(&event));
        assert!(shown.tracking_info.is_none());
        let shown = shown.event.unwrap();
        assert!(shown.tags.is_empty() && shown.data.is_empty() && shown.metadata.is_empty());
    }

    #[test]
    fn an_event_larger_than_what_is_shared_is_written_whole() {
        let mut event = recorded(&[], "");
        event.data = vec![7; 3 * wire_format::SHARED_BYTES].into();
        let shown = read(EventEncoder::default().write(&event)).event.unwrap();
        assert_eq!(shown.data, event.data);
    }

    #[test]
    fn tags_come_in_the_order_given_only_if_they_are_the_tags() {
        let tags = |metadata| {
            let event = recorded(&["x", "y"], metadata);
            read(EventEncoder::default().write(&event))
                .event
                .unwrap()
                .tags
        };
        assert_eq!(tags(r#"{"$tags":["y","x","y"]}"#), ["y", "x", "y"]);
        assert_eq!(tags(r#"{"$tags":["y","z"]}"#), ["x", "y"]);
        assert_eq!(tags(r#"{"$tags":[]}"#), ["x", "y"]);
        assert_eq!(tags(""), ["x", "y"]);
    }
}
