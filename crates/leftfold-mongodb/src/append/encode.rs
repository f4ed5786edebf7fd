//! Encoding a group's events as the document of a commit.
//!
//! **Owns:** [`encode`]: which data is inline, and the document. **Does not know:** whether the commit succeeds.
//! **Invariants:** no document exceeds the server's limit; an append that fits no document is refused with that limit.

use std::collections::{HashMap, HashSet};

use leftfold_model::{Append, Appended, NewEvent, Revision, Timestamp};
use mongodb::bson::Binary;

use super::json_copy;
use crate::{
    document::{CommitDocument, EventDocument, Identity, PayloadReference, binary, to_i64, uuid},
    error::Failure,
    keys::Keys,
    log::Newest,
    payload::Payloads,
};

/// Maximum bytes of a document. The server accepts 16 MiB; the difference is for what is not counted here.
pub(super) const DOCUMENT_BYTES_MAX: usize = 15 * 1024 * 1024;
/// Bytes that an event takes in a document, with its two keys, beside its names and contents.
const EVENT_OVERHEAD: usize = 400;
/// Bytes that a key takes in a document beside the name it is made of.
const KEY_OVERHEAD: usize = 24;
/// Bytes that a tag takes in a document beside its text.
const TAG_OVERHEAD: usize = 12;
/// Bytes of data and metadata from which on an event's payload is stored apart.
const PAYLOAD_FROM: usize = 256 * 1024;

/// Returns the bytes of an append's events in a document without data and metadata.
pub(super) fn names_size(append: &Append) -> usize {
    let of_write = |write: &leftfold_model::StreamWrite| {
        // In the event, and in the key of its place.
        let stream = 2 * write.stream.as_str().len();
        let events = write.events.iter().map(move |event| {
            let tags = event
                .tags()
                .iter()
                .map(|tag| tag.as_str().len() + TAG_OVERHEAD);
            EVENT_OVERHEAD + stream + event.event_type().as_str().len() + tags.sum::<usize>()
        });
        events.sum::<usize>()
    };
    append.writes().iter().map(of_write).sum::<usize>() + keys_size(append)
}

/// Returns the bytes of the keys that an append's events share.
fn keys_size(append: &Append) -> usize {
    let (mut types, mut tags) = (HashSet::new(), HashSet::new());
    for event in append.events() {
        types.insert(event.event_type().as_str());
        tags.extend(event.tags().iter().map(|tag| tag.as_str()));
    }
    let names = types.into_iter().chain(tags).map(str::len);
    let streams = append.writes().iter().flat_map(|write| {
        let stream = &write.stream;
        [stream.as_str().len(), stream.category_str().len()]
    });
    names
        .chain(streams)
        .map(|length| length + KEY_OVERHEAD)
        .sum()
}

/// Returns the bytes of an append's events in a document, as [`inline_limit`] chooses what is inline.
pub(super) fn inline_size(append: &Append) -> usize {
    let limit = inline_limit(append);
    let inline = append
        .events()
        .map(payload_size)
        .filter(|size| *size < limit);
    names_size(append) + inline.sum::<usize>()
}

fn payload_size(event: &NewEvent) -> usize {
    event.data().len() + event.metadata().len()
}

/// Returns the size from which on payloads of this append are stored apart: smaller for an append of very many large events.
fn inline_limit(append: &Append) -> usize {
    let room = DOCUMENT_BYTES_MAX.saturating_sub(names_size(append));
    let mut limit = PAYLOAD_FROM;
    while limit > 1 {
        let inline = append
            .events()
            .map(payload_size)
            .filter(|size| *size < limit);
        if inline.sum::<usize>() <= room {
            break;
        }
        limit /= 4;
    }
    limit
}

/// Writes the payloads of an append that are stored apart. Keyed by the event's place in the append.
pub(super) async fn write_payloads(
    payloads: &Payloads,
    append: &Append,
    identity: &Identity,
) -> Result<HashMap<usize, PayloadReference>, Failure> {
    let limit = inline_limit(append);
    let mut written = HashMap::new();
    for (place, event) in append.events().enumerate() {
        if payload_size(event) < limit {
            continue;
        }
        let id = payload_id(identity, place);
        let reference = payloads.write(id, event.data(), event.metadata()).await?;
        written.insert(place, reference);
    }
    Ok(written)
}

/// Returns the id of a payload: the writer, a number that it uses once, and the event's place in its append.
fn payload_id(identity: &Identity, place: usize) -> Binary {
    let mut id = identity.writer.bytes.clone();
    id.extend_from_slice(&identity.sequence.to_le_bytes());
    id.extend_from_slice(&to_i64(place as u64).to_le_bytes());
    binary(id)
}

/// A decided append, with its positions and the payloads that are stored apart.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    pub(super) append: &'a Append,
    pub(super) appended: &'a Appended,
    pub(super) payloads: &'a HashMap<usize, PayloadReference>,
}

/// Returns the commit that follows `newest` and holds these appends.
pub(super) fn encode(
    placed: &[Placed<'_>],
    newest: Option<&Newest>,
    identity: Identity,
    now: Timestamp,
    json_documents: bool,
) -> CommitDocument {
    let (mut events, mut keys) = (Vec::new(), Keys::default());
    for one in placed {
        add_events(&mut events, &mut keys, one, now);
    }
    if json_documents {
        let inline = placed.iter().map(|one| inline_size(one.append));
        let room = DOCUMENT_BYTES_MAX.saturating_sub(inline.sum());
        json_copy::add(&mut events, room);
    }
    let (first, last) = (
        events.first().map_or(0, |event| event.position),
        events.last().map_or(0, |event| event.position),
    );
    let mut commit = CommitDocument {
        number: newest.map_or(0, |newest| newest.number) + 1,
        first,
        last,
        identity,
        previous: newest.map(|newest| newest.identity.clone()),
        generation: 0,
        checksum: 0,
        keys: keys.into_vec(),
        events,
    };
    commit.checksum = commit.checksum();
    commit
}

fn add_events(
    events: &mut Vec<EventDocument>,
    keys: &mut Keys,
    placed: &Placed<'_>,
    now: Timestamp,
) {
    let mut position = placed.appended.first;
    let mut number = 0;
    let last_revisions = revisions(placed);
    for (write, first_revision) in placed.append.writes().iter().zip(last_revisions) {
        for (revision, event) in (first_revision..).zip(&write.events) {
            let payload = placed.payloads.get(&number).cloned();
            let inline = |bytes: &[u8]| {
                binary(if payload.is_some() {
                    Vec::new()
                } else {
                    bytes.to_vec()
                })
            };
            keys.add(
                &write.stream,
                Revision::new(revision),
                event.id(),
                event.event_type(),
                event.tags(),
            );
            events.push(EventDocument {
                position: to_i64(position.get()),
                stream: write.stream.as_str().to_owned(),
                revision: to_i64(revision),
                id: uuid(*event.id().as_bytes()),
                event_type: event.event_type().as_str().to_owned(),
                tags: event
                    .tags()
                    .iter()
                    .map(|tag| tag.as_str().to_owned())
                    .collect(),
                time: to_i64(event.time().unwrap_or(now).as_micros()),
                content_type: i32::from(event.content_type().code()),
                data: inline(event.data()),
                metadata: inline(event.metadata()),
                json: None,
                payload,
                erased: false,
            });
            position = position.next();
            number += 1;
        }
    }
}

/// Returns the first revision of each write.
fn revisions<'a>(placed: &'a Placed<'_>) -> impl Iterator<Item = u64> + 'a {
    let writes = placed.append.writes().iter().zip(&placed.appended.streams);
    writes.map(|(write, (_, last))| (last.get() + 1).saturating_sub(write.events.len() as u64))
}
