//! One event as bytes: the record.
//!
//! **Owns:** the record's layout (docs/format.md section 4). **Does not know:** frames and segments.
//! **Invariants:** with the log's id, its position and the names it may refer to, a record decodes to the whole event,
//! whatever lies around it; `decode(encode(e)) == e`; a record that decodes obeys every limit of the model.
//!
//! Layout: `crc u32 | length varint | flags u8 | time u64 | id [16] | revision varint | names | metadata | data`.
//! Flags: the content type in the lowest three bits; 8: the names are a reference; 16: there is metadata; 32: the event
//! is erased. Names are stream, type, tag count varint, tags, each a varint length and bytes; or how many events before
//! they stand, a varint. Metadata is a varint length and bytes, or nothing; data is what remains. An erased event has
//! neither. The checksum covers everything behind itself.

use bytes::Bytes;
use leftfold_model::{
    ContentType, EventId, NewEvent, Position, RecordedEvent, Revision, StreamName, Timestamp,
    limits,
};

use super::{
    Checksum, Malformed, malformed,
    names::{self, NameRef, Names, OwnedNames, Tags},
    take, take_array, varint,
};

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

/// The bits of the flags that are the content type, and the other bits.
const CONTENT_BITS: u8 = 0b111;
const NAMES_ARE_ELSEWHERE: u8 = 8;
const HAS_METADATA: u8 = 16;
const IS_ERASED: u8 = 32;

/// Appends the record of `event` to `out`.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    seal: Checksum,
    at: Placement<'_>,
    event: &NewEvent,
    naming: &NameRef<()>,
) {
    let start = out.len();
    let mut flags = event.content_type().code();
    if matches!(naming, NameRef::Back(_)) {
        flags |= NAMES_ARE_ELSEWHERE;
    }
    let metadata = event.metadata();
    if !metadata.is_empty() {
        flags |= HAS_METADATA;
    }
    out.extend_from_slice(&[0; CRC_BYTES]);
    varint::put(out, body_length(at, event, naming) as u64);
    out.push(flags);
    out.extend_from_slice(&at.time.as_micros().to_le_bytes());
    out.extend_from_slice(event.id().as_bytes());
    varint::put(out, at.revision.get());
    naming.put(out, at.stream, event);
    if !metadata.is_empty() {
        varint::put(out, metadata.len() as u64);
        out.extend_from_slice(metadata);
    }
    out.extend_from_slice(event.data());
    fill_checksum(out, start, seal, at.position);
}

fn body_length(at: Placement<'_>, event: &NewEvent, naming: &NameRef<()>) -> usize {
    let metadata = match event.metadata().len() {
        0 => 0,
        bytes => varint::length(bytes as u64) + bytes,
    };
    1 + 8
        + 16
        + varint::length(at.revision.get())
        + naming.length(at.stream, event)
        + metadata
        + event.data().len()
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
    seal: Checksum,
    position: Position,
) -> Result<Bytes, Malformed> {
    let size = check(bytes, seal, position)?.len();
    Ok(bytes.split_to(size))
}

/// Checks the record at the front of `bytes`, without looking inside.
pub(crate) fn check(bytes: &[u8], seal: Checksum, position: Position) -> Result<&[u8], Malformed> {
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

/// A record that was looked into.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    revision: Revision,
    id: EventId,
    content_type: ContentType,
    time: Timestamp,
    /// Whether only the place of the event is left.
    pub(crate) is_erased: bool,
    pub(crate) naming: NameRef<Names<'a>>,
    metadata: &'a [u8],
    data: &'a [u8],
}

/// Looks into a record that [`check`] or [`take_record`] returned.
pub(crate) fn parse(record: &[u8]) -> Result<Record<'_>, Malformed> {
    let mut rest = record;
    take(&mut rest, CRC_BYTES)?;
    if varint::take_length(&mut rest)? != rest.len() {
        return Err(malformed("a record's length does not fit"));
    }
    let [flags] = take_array(&mut rest)?;
    if flags & !(CONTENT_BITS | NAMES_ARE_ELSEWHERE | HAS_METADATA | IS_ERASED) != 0 {
        return Err(malformed("a record's flags are unknown to this version"));
    }
    let content_type = ContentType::from_code(flags & CONTENT_BITS)
        .ok_or(malformed("a content type is unknown"))?;
    let time = Timestamp::from_micros(u64::from_le_bytes(take_array(&mut rest)?));
    let id = EventId::from_bytes(take_array(&mut rest)?);
    let revision = Revision::new(varint::take(&mut rest)?);
    let naming = if flags & NAMES_ARE_ELSEWHERE == 0 {
        NameRef::Inline(Names::take(&mut rest)?)
    } else {
        NameRef::Back(names::take_back(&mut rest)?)
    };
    let metadata = if flags & HAS_METADATA == 0 {
        &[]
    } else {
        let length = varint::take_length(&mut rest)?;
        take(&mut rest, length)?
    };
    let is_erased = flags & IS_ERASED != 0;
    if is_erased && (flags & HAS_METADATA != 0 || !rest.is_empty()) {
        return Err(malformed("an erased event holds data"));
    }
    Ok(Record {
        revision,
        id,
        content_type,
        time,
        is_erased,
        naming,
        metadata,
        data: rest,
    })
}

/// What a record says of itself before it was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Peeked {
    /// How many events before its own its names stand, if they stand elsewhere.
    pub(crate) back: Option<u64>,
    pub(crate) is_erased: bool,
}

/// Looks at the front of a record. Believes the bytes: what they say is only where to read ahead, and what to check.
pub(crate) fn peek(bytes: &[u8]) -> Peeked {
    let mut rest = bytes;
    let mut flags = || -> Result<u8, Malformed> {
        take(&mut rest, CRC_BYTES)?;
        varint::take(&mut rest)?;
        let [flags] = take_array(&mut rest)?;
        Ok(flags)
    };
    let flags = flags().unwrap_or_default();
    let mut back = || {
        take(&mut rest, 8 + 16).ok()?;
        varint::take(&mut rest).ok()?;
        names::take_back(&mut rest).ok()
    };
    Peeked {
        back: (flags & NAMES_ARE_ELSEWHERE != 0).then(&mut back).flatten(),
        is_erased: flags & IS_ERASED != 0,
    }
}

/// How many bytes of a record that [`parse`] can look into go when its event is erased, about.
pub(crate) fn erasable_bytes(record: &[u8]) -> u64 {
    parse(record).map_or(0, |record| {
        (record.metadata.len() + record.data.len()) as u64
    })
}

/// Appends to `out` what is left of a record that [`check`] or [`take_record`] returned when its event is erased: all but
/// metadata and data. Names stay where they are, so that records that refer to them still do.
pub(crate) fn erase(
    out: &mut Vec<u8>,
    seal: Checksum,
    position: Position,
    record: &[u8],
) -> Result<(), Malformed> {
    let mut rest = record;
    take(&mut rest, CRC_BYTES)?;
    varint::take(&mut rest)?;
    let body = rest;
    let [flags] = take_array(&mut rest)?;
    let fields = rest;
    take(&mut rest, 8 + 16)?;
    varint::take(&mut rest)?;
    if flags & NAMES_ARE_ELSEWHERE == 0 {
        Names::take(&mut rest)?;
    } else {
        names::take_back(&mut rest)?;
    }
    let kept = body.len() - rest.len();
    let start = out.len();
    out.extend_from_slice(&[0; CRC_BYTES]);
    varint::put(out, kept as u64);
    out.push(flags & !HAS_METADATA | IS_ERASED);
    out.extend_from_slice(take(&mut { fields }, kept - 1)?);
    fill_checksum(out, start, seal, position);
    Ok(())
}

/// Fills in the checksum of the record that begins at `start` and ends `out`.
fn fill_checksum(out: &mut [u8], start: usize, seal: Checksum, position: Position) {
    let record = out.get_mut(start..);
    if let Some((crc, rest)) = record.and_then(|r| r.split_first_chunk_mut::<CRC_BYTES>()) {
        *crc = seal.checksum(position, rest).to_le_bytes();
    }
}

impl<'a> Record<'a> {
    /// The event's place in its stream.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The event, with the names it has or refers to.
    pub(crate) fn with(self, position: Position, names: Names<'a>) -> EventRef<'a> {
        EventRef {
            position,
            stream: names.stream,
            revision: self.revision,
            id: self.id,
            event_type: names.event_type,
            content_type: self.content_type,
            data: self.data,
            metadata: self.metadata,
            tags: names.tags,
            time: self.time,
        }
    }
}

/// The event of a record that [`parse`] looked into, with its names. Data and metadata share the record's memory.
pub(crate) fn decode(
    record: &Bytes,
    parsed: &Record<'_>,
    position: Position,
    names: OwnedNames,
) -> RecordedEvent {
    RecordedEvent {
        position,
        stream: names.stream,
        revision: parsed.revision,
        id: parsed.id,
        event_type: names.event_type,
        content_type: parsed.content_type,
        data: record.slice_ref(parsed.data),
        metadata: record.slice_ref(parsed.metadata),
        tags: names.tags,
        time: parsed.time,
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use leftfold_model::{EventType, Tag};

    use super::*;
    use crate::record::{LogId, names::NameResolver};

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
        encode(
            &mut out,
            Checksum::of(LogId([3; 16])),
            at,
            event,
            &NameRef::Inline(()),
        );
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
            let record = take_record(&mut bytes, Checksum::of(LogId([3; 16])), position).unwrap();
            let parsed = parse(&record).unwrap();
            let names = NameResolver::default().resolve(position, &parsed.naming).unwrap();
            let decoded = decode(&record, &parsed, position, names);
            prop_assert_eq!(&decoded.data, event.data());
            prop_assert_eq!(&decoded.metadata, event.metadata());
            prop_assert_eq!(decoded.tags.as_slice(), event.tags());
            prop_assert_eq!(decoded.id, event.id());
            prop_assert_eq!((decoded.stream, decoded.revision.get()), (stream, revision));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn an_erased_record_keeps_all_but_data_and_metadata(
            event in event(), position in 1_u64.., revision: u64,
        ) {
            let (stream, seal) = (StreamName::new("s").unwrap(), Checksum::of(LogId([3; 16])));
            let whole = encoded(&event, &stream, position, revision);
            let position = Position::new(position);
            let mut stub = Vec::new();
            erase(&mut stub, seal, position, &whole).unwrap();
            prop_assert!(stub.len() <= whole.len());
            let mut stub = Bytes::from(stub);
            let stub = take_record(&mut stub, seal, position).unwrap();
            let parsed = parse(&stub).unwrap();
            prop_assert!(parsed.is_erased && !parse(&whole).unwrap().is_erased);
            let names = NameResolver::default().resolve(position, &parsed.naming).unwrap();
            let left = decode(&stub, &parsed, position, names);
            prop_assert!(left.data.is_empty() && left.metadata.is_empty());
            prop_assert_eq!((left.id, left.revision.get(), left.stream), (event.id(), revision, stream));
            prop_assert_eq!((&left.event_type, left.tags.as_slice()), (event.event_type(), event.tags()));
            let mut again = Vec::new();
            erase(&mut again, seal, position, &stub).unwrap();
            prop_assert_eq!(&again[..], &stub[..], "erasing twice changes nothing");
        }

        #[test]
        fn names_that_are_referred_to_decode_as_if_they_were_repeated(
            events in prop::collection::vec((0_usize..3, 0_usize..2), 1..60), gap in 0_u64..1_500,
        ) {
            let seal = Checksum::of(LogId([3; 16]));
            let streams = ["a-1", "a-2", "b"].map(|name| StreamName::new(name).unwrap());
            let (mut written, mut known) = (names::NameEncoder::default(), NameResolver::default());
            let mut position = Position::FIRST;
            for (nth, (stream, kind)) in events.iter().enumerate() {
                let kind = EventType::new(["T", "U"][*kind]).unwrap();
                let event = NewEvent::json(kind, "{}").with_tags([Tag::new("t").unwrap()]).unwrap();
                let stream = &streams[*stream];
                let naming = written.naming(position, stream, &event);
                let (revision, time) = (Revision::new(nth as u64), Timestamp::from_micros(7));
                let mut out = Vec::new();
                encode(&mut out, seal, Placement { position, stream, revision, time }, &event, &naming);
                let mut bytes = Bytes::from(out);
                prop_assert_eq!(peek(&bytes).back.is_some(), matches!(naming, NameRef::Back(_)));
                let mut stub = Vec::new();
                erase(&mut stub, seal, position, &bytes).unwrap();
                prop_assert_eq!(peek(&stub), Peeked { is_erased: true, ..peek(&bytes) });
                let record = take_record(&mut bytes, seal, position).unwrap();
                let parsed = parse(&record).unwrap();
                let names = known.resolve(position, &parsed.naming).unwrap();
                let decoded = decode(&record, &parsed, position, names);
                prop_assert_eq!(&decoded.stream, stream);
                prop_assert_eq!(&decoded.event_type, event.event_type());
                prop_assert_eq!(decoded.tags.as_slice(), event.tags());
                position = position.saturating_add(1 + if nth % 7 == 6 { gap } else { 0 });
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let _ = size(&bytes);
            let bytes = Bytes::from(bytes);
            let _ = peek(&bytes);
            let _ = erase(&mut Vec::new(), Checksum::of(LogId([0; 16])), Position::FIRST, &bytes);
            if let Ok(record) = parse(&bytes) {
                let _ = NameResolver::default().resolve(Position::FIRST, &record.naming);
            }
            let _ = take_record(&mut bytes.clone(), Checksum::of(LogId([0; 16])), Position::FIRST);
        }

        #[test]
        fn a_flipped_bit_or_another_place_is_refused(event in event(), bit: usize) {
            let stream = StreamName::new("s-1").unwrap();
            let seal = Checksum::of(LogId([3; 16]));
            let bytes = encoded(&event, &stream, 9, 0);
            let elsewhere = take_record(&mut bytes.clone(), seal, Position::new(10));
            prop_assert!(elsewhere.is_err());
            let other_log = take_record(&mut bytes.clone(), Checksum::of(LogId([4; 16])), Position::new(9));
            prop_assert!(other_log.is_err());
            let mut flipped = bytes.to_vec();
            let bit = bit % (flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(take_record(&mut flipped.into(), seal, Position::new(9)).is_err());
        }
    }
}
