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
    let size = size(bytes)?;
    if size > bytes.len() {
        return Err(malformed("a record runs past the end"));
    }
    let record = bytes.split_to(size);
    let mut rest = record.as_ref();
    let crc = u32::from_le_bytes(take_array(&mut rest)?);
    if crc != seal.checksum(position, rest)
        && !crate::planted::is(crate::planted::Planted::RecordUnchecked)
    {
        return Err(malformed("a record's checksum does not match"));
    }
    Ok(record)
}

/// Decodes a record that [`take_record`] returned. Data and metadata share its memory.
pub(crate) fn decode(record: &Bytes, position: Position) -> Result<RecordedEvent, Malformed> {
    let mut rest = record.as_ref();
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
    let stream = StreamName::from_bytes(take_field(&mut rest)?)
        .map_err(|_| malformed("a stream name is bad"))?;
    let event_type = EventType::from_bytes(take_field(&mut rest)?)
        .map_err(|_| malformed("an event type is bad"))?;
    let count = varint::take(&mut rest)?;
    if count > limits::TAGS_PER_EVENT_MAX as u64 {
        return Err(malformed("an event has too many tags"));
    }
    let mut tags = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    for _ in 0..count {
        tags.push(Tag::from_bytes(take_field(&mut rest)?).map_err(|_| malformed("a tag is bad"))?);
    }
    let metadata = record.slice_ref(take_field(&mut rest)?);
    let data = record.slice_ref(rest);
    Ok(RecordedEvent {
        position,
        stream,
        revision,
        id,
        event_type,
        content_type,
        data,
        metadata,
        tags,
        time,
    })
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
