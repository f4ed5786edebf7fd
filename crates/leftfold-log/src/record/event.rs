//! One event as bytes: the record.
//!
//! **Owns:** the record's layout (docs/format.md section 4). **Does not know:** frames and segments.
//! **Invariants:** a record stands for itself: with the log's id and its position it decodes to the whole event,
//! whatever lies around it; `decode(encode(e)) == e`; a record that decodes obeys every limit of the model.
//!
//! Layout: `crc u32 | length varint | content u8 | time u64 | id [16] | revision varint | stream | type |
//! tag count varint, tags | metadata | data`, where stream, type, each tag and metadata are a varint length and
//! bytes, and data is what remains. The checksum covers everything behind itself.

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventId, EventType, NewEvent, Position, RecordedEvent, Revision, StreamName, Tag,
    Timestamp, limits,
};

use super::{Malformed, Seal, malformed, take, take_array, varint};

/// Bytes of the checksum in front of a record.
const CRC_BYTES: usize = 4;
/// Bytes of a record's longest possible length field.
const LENGTH_BYTES_MAX: usize = 4;
/// Bytes from which the size of any record can be told.
pub(crate) const PREFIX_BYTES: usize = CRC_BYTES + LENGTH_BYTES_MAX;
/// Bytes of a whole record, at most.
pub(crate) const RECORD_BYTES_MAX: usize = PREFIX_BYTES
    + 64
    + limits::DATA_BYTES_MAX
    + limits::METADATA_BYTES_MAX
    + limits::STREAM_NAME_BYTES_MAX
    + limits::EVENT_TYPE_BYTES_MAX
    + limits::TAGS_PER_EVENT_MAX * (limits::TAG_BYTES_MAX + 2);

/// Where an event goes: everything a record holds that the caller did not give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement<'a> {
    pub(crate) position: Position,
    pub(crate) stream: &'a StreamName,
    pub(crate) revision: Revision,
    pub(crate) time: Timestamp,
}

/// Appends the record of `event` to `out`.
pub(crate) fn encode(out: &mut Vec<u8>, seal: Seal, at: Placement<'_>, event: &NewEvent) {
    let start = out.len();
    out.extend_from_slice(&[0; CRC_BYTES]);
    varint::put(out, body_length(at, event) as u64);
    out.push(event.content_type().code());
    out.extend_from_slice(&at.time.as_micros().to_le_bytes());
    out.extend_from_slice(event.id().as_bytes());
    varint::put(out, at.revision.get());
    put_bytes(out, at.stream.as_str().as_bytes());
    put_bytes(out, event.event_type().as_str().as_bytes());
    varint::put(out, event.tags().len() as u64);
    for tag in event.tags() {
        put_bytes(out, tag.as_str().as_bytes());
    }
    put_bytes(out, event.metadata());
    out.extend_from_slice(event.data());
    if let Some((crc, rest)) = out
        .get_mut(start..)
        .and_then(|r| r.split_first_chunk_mut::<CRC_BYTES>())
    {
        *crc = seal.checksum(at.position, rest).to_le_bytes();
    }
}

fn body_length(at: Placement<'_>, event: &NewEvent) -> usize {
    let field = |bytes: usize| varint_length(bytes as u64) + bytes;
    let tags: usize = event
        .tags()
        .iter()
        .map(|tag| field(tag.as_str().len()))
        .sum();
    1 + 8
        + 16
        + varint_length(at.revision.get())
        + field(at.stream.as_str().len())
        + field(event.event_type().as_str().len())
        + varint_length(event.tags().len() as u64)
        + tags
        + field(event.metadata().len())
        + event.data().len()
}

fn varint_length(value: u64) -> usize {
    (70 - value.leading_zeros() as usize).max(7) / 7
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The size of the record that begins with `prefix` (at least the bytes there are, [`PREFIX_BYTES`] suffice).
pub(crate) fn size(prefix: &[u8]) -> Result<usize, Malformed> {
    let mut rest = prefix;
    take(&mut rest, CRC_BYTES)?;
    let before = rest.len();
    let length = varint::take(&mut rest)?;
    let length = usize::try_from(length).map_err(|_| malformed("a record's length is too big"))?;
    let size = (CRC_BYTES + before - rest.len()).saturating_add(length);
    if size > RECORD_BYTES_MAX {
        Err(malformed("a record's length is over the limit"))
    } else {
        Ok(size)
    }
}

/// Checks the record at the front of `bytes` and splits it off, without looking inside.
pub(crate) fn take_record(
    bytes: &mut Bytes,
    seal: Seal,
    position: Position,
) -> Result<Bytes, Malformed> {
    let size = check(bytes, seal, position)?.len();
    Ok(bytes.split_to(size))
}

/// Checks the record at the front of `bytes`, without looking inside.
pub(crate) fn check(bytes: &[u8], seal: Seal, position: Position) -> Result<&[u8], Malformed> {
    let record = bytes
        .get(..size(bytes)?)
        .ok_or(malformed("a record runs past the end"))?;
    let mut rest = record;
    let crc = u32::from_le_bytes(take_array(&mut rest)?);
    if crc != seal.checksum(position, rest)
        && !crate::planted::is(crate::planted::Planted::RecordUnchecked)
    {
        return Err(malformed("a record's checksum does not match"));
    }
    Ok(record)
}

/// Looks into a record that [`check`] or [`take_record`] returned.
pub(crate) fn parse(record: &[u8], position: Position) -> Result<EventRef<'_>, Malformed> {
    let mut rest = record;
    take(&mut rest, CRC_BYTES)?;
    if varint::take_length(&mut rest)? != rest.len() {
        return Err(malformed("a record's length does not fit"));
    }
    let [content] = take_array(&mut rest)?;
    let content_type =
        ContentType::from_code(content).ok_or(malformed("a content type is unknown"))?;
    let time = Timestamp::from_micros(u64::from_le_bytes(take_array(&mut rest)?));
    let id = EventId::from_bytes(take_array(&mut rest)?);
    let revision = Revision::new(varint::take(&mut rest)?);
    let stream = take_text(&mut rest).ok_or(malformed("a stream name is bad"))?;
    let event_type = take_text(&mut rest).ok_or(malformed("an event type is bad"))?;
    let count = varint::take(&mut rest)?;
    if count > limits::TAGS_PER_EVENT_MAX as u64 {
        return Err(malformed("an event has too many tags"));
    }
    let tags = rest;
    for _ in 0..count {
        take_text(&mut rest).ok_or(malformed("a tag is bad"))?;
    }
    let tags = Tags {
        bytes: tags,
        left: usize::try_from(count).unwrap_or(0),
    };
    let metadata = take_field(&mut rest)?;
    Ok(EventRef {
        position,
        stream,
        revision,
        id,
        event_type,
        content_type,
        data: rest,
        metadata,
        tags,
        time,
    })
}

/// Decodes a record that [`take_record`] returned. Data and metadata share its memory.
pub(crate) fn decode(record: &Bytes, position: Position) -> Result<RecordedEvent, Malformed> {
    let event = parse(record, position)?;
    let tag = |tag| Tag::new(tag).map_err(|_| malformed("a tag is bad"));
    Ok(RecordedEvent {
        position,
        stream: StreamName::new(event.stream).map_err(|_| malformed("a stream name is bad"))?,
        revision: event.revision,
        id: event.id,
        event_type: EventType::new(event.event_type)
            .map_err(|_| malformed("an event type is bad"))?,
        content_type: event.content_type,
        data: record.slice_ref(event.data),
        metadata: record.slice_ref(event.metadata),
        tags: event.tags.map(tag).collect::<Result<_, _>>()?,
        time: event.time,
    })
}

/// An event as it lies in the log, borrowed: nothing of it was copied or allocated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EventRef<'a> {
    /// Where it stands in the log.
    pub position: Position,
    /// The name of its stream.
    pub stream: &'a str,
    /// Its place in the stream.
    pub revision: Revision,
    /// Its identity.
    pub id: EventId,
    /// The name of its type.
    pub event_type: &'a str,
    /// What its data is.
    pub content_type: ContentType,
    /// Its data.
    pub data: &'a [u8],
    /// Its metadata.
    pub metadata: &'a [u8],
    /// Its tags, sorted.
    pub tags: Tags<'a>,
    /// When it was recorded.
    pub time: Timestamp,
}

/// The tags of an [`EventRef`].
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        take_text(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Tags<'_> {}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_field(bytes).ok()?).ok()
}

fn take_field<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = varint::take_length(bytes)?;
    take(bytes, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::LogId;

    fn name() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z]{1,12}-[0-9]{1,6}", "\\PC{1,40}"]
            .prop_filter("not empty", |s| !s.is_empty())
    }

    prop_compose! {
        fn event()(
            kind in name(), data: Vec<u8>, metadata in prop::collection::vec(any::<u8>(), 0..40),
            tags in prop::collection::vec(name(), 0..6), id: [u8; 16], code in 1_u8..=4,
        ) -> NewEvent {
            let content_type = ContentType::from_code(code).unwrap();
            NewEvent::new(EventType::new(kind).unwrap(), content_type, data)
                .with_id(EventId::from_bytes(id))
                .with_metadata(metadata)
                .with_tags(tags.into_iter().map(|tag| Tag::new(tag).unwrap()))
                .unwrap()
        }
    }

    fn encoded(event: &NewEvent, stream: &StreamName, position: u64, revision: u64) -> Bytes {
        let mut out = Vec::new();
        let at = Placement {
            position: Position::new(position),
            stream,
            revision: Revision::new(revision),
            time: Timestamp::from_micros(7),
        };
        encode(&mut out, Seal::of(LogId([3; 16])), at, event);
        out.into()
    }

    proptest! {
        #[test]
        fn a_record_decodes_to_what_was_encoded(
            event in event(), stream in name(), position in 1_u64.., revision: u64,
        ) {
            let stream = StreamName::new(stream).unwrap();
            let mut bytes = encoded(&event, &stream, position, revision);
            prop_assert_eq!(size(&bytes), Ok(bytes.len()));
            let position = Position::new(position);
            let record = take_record(&mut bytes, Seal::of(LogId([3; 16])), position).unwrap();
            let decoded = decode(&record, position).unwrap();
            prop_assert_eq!(&decoded.data, event.data());
            prop_assert_eq!(&decoded.metadata, event.metadata());
            prop_assert_eq!(decoded.tags.as_slice(), event.tags());
            prop_assert_eq!(decoded.id, event.id());
            prop_assert_eq!((decoded.stream, decoded.revision.get()), (stream, revision));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let _ = size(&bytes);
            let bytes = Bytes::from(bytes);
            let _ = decode(&bytes, Position::FIRST);
            let _ = take_record(&mut bytes.clone(), Seal::of(LogId([0; 16])), Position::FIRST);
        }

        #[test]
        fn a_flipped_bit_or_another_place_is_refused(event in event(), bit: usize) {
            let stream = StreamName::new("s-1").unwrap();
            let seal = Seal::of(LogId([3; 16]));
            let bytes = encoded(&event, &stream, 9, 0);
            let elsewhere = take_record(&mut bytes.clone(), seal, Position::new(10));
            prop_assert!(elsewhere.is_err());
            let other_log = take_record(&mut bytes.clone(), Seal::of(LogId([4; 16])), Position::new(9));
            prop_assert!(other_log.is_err());
            let mut flipped = bytes.to_vec();
            let bit = bit % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(take_record(&mut flipped.into(), seal, Position::new(9)).is_err());
        }
    }
}
