//! Decoding messages into the contract's values.
//!
//! **Owns:** the validation of responses. **Does not know:** calls.
//! **Invariants:** an invalid response is [`RpcError::InvalidResponse`], never a panic and never an invalid value.

use leftfold_model::{
    Append, Appended, ContentType, EventType, ExpectedRevision, ModelError, Position,
    RecordedEvent, Revision, StreamName, Tag, Timestamp,
};
use leftfold_proto::leftfold::v1::{
    self as wire, expected::Kind as ExpectedKind, state_response::Status,
};
use leftfold_store::{
    Delivery, ReadBatch, SavedSnapshot, ScavengeProgress, StoreStats, StreamInfo, StreamMetadata,
    StreamState, StreamStatus,
};
use uuid::Uuid;

use crate::RpcError;

type Decoded<T> = Result<T, RpcError>;

pub(crate) fn expected(expected: wire::Expected) -> ExpectedRevision {
    match expected.kind {
        None => ExpectedRevision::Any,
        Some(ExpectedKind::NoStream(_)) => ExpectedRevision::NoStream,
        Some(ExpectedKind::Exists(_)) => ExpectedRevision::StreamExists,
        Some(ExpectedKind::Revision(revision)) => ExpectedRevision::Exact(Revision::new(revision)),
    }
}

/// Decodes the positions of an append, whose streams the server does not repeat.
pub(crate) fn appended(append: &Append, answer: wire::Appended) -> Decoded<Appended> {
    let streams = append.writes().iter().map(|write| write.stream.clone());
    placed(streams, answer)
}

/// Decodes the positions of a deletion.
pub(crate) fn deleted(mut answer: wire::Appended) -> Decoded<Appended> {
    let streams = names(StreamName::parse_all(std::mem::take(&mut answer.streams)))?;
    placed(streams.into_iter(), answer)
}

fn placed(
    streams: impl ExactSizeIterator<Item = StreamName>,
    answer: wire::Appended,
) -> Decoded<Appended> {
    if streams.len() != answer.revisions.len() {
        let (streams, revisions) = (streams.len(), answer.revisions.len());
        return Err(RpcError::not_understood(format!(
            "{revisions} revisions for {streams} writes"
        )));
    }
    let revisions = answer.revisions.into_iter().map(Revision::new);
    Ok(Appended {
        first: Position::new(answer.first),
        last: Position::new(answer.last),
        streams: streams.zip(revisions).collect(),
        repeated: answer.repeated,
    })
}

fn names<T>(parsed: Result<Vec<T>, ModelError>) -> Decoded<Vec<T>> {
    parsed.map_err(|error| RpcError::not_understood(error.to_string()))
}

pub(crate) fn read_batch(batch: wire::ReadBatch) -> Decoded<ReadBatch> {
    Ok(ReadBatch {
        events: events(batch.events.unwrap_or_default())?,
        token: Position::new(batch.token).into(),
    })
}

pub(crate) fn delivery(delivery: wire::Delivery) -> Decoded<Delivery> {
    Ok(Delivery {
        events: events(delivery.events.unwrap_or_default())?,
        through: Position::new(delivery.through),
        caught_up: delivery.caught_up,
    })
}

fn events(events: wire::Events) -> Decoded<Vec<RecordedEvent>> {
    let names = Names {
        streams: names(StreamName::parse_all(events.streams))?,
        types: names(EventType::parse_all(events.types))?,
        tags: names(Tag::parse_all(events.tags))?,
    };
    events
        .events
        .into_iter()
        .map(|event| names.event(event))
        .collect()
}

/// The names that the events of one message share.
struct Names {
    streams: Vec<StreamName>,
    types: Vec<EventType>,
    tags: Vec<Tag>,
}

impl Names {
    fn event(&self, event: wire::Event) -> Decoded<RecordedEvent> {
        let tags = event.tags.iter().map(|&tag| named(&self.tags, tag, "tag"));
        Ok(RecordedEvent {
            position: Position::new(event.position),
            stream: named(&self.streams, event.stream, "stream")?,
            revision: Revision::new(event.revision),
            id: Uuid::from_u64_pair(event.id_high, event.id_low).into(),
            event_type: named(&self.types, event.r#type, "type")?,
            content_type: content_type(event.content_type)?,
            data: event.data,
            metadata: event.metadata,
            tags: tags.collect::<Decoded<_>>()?,
            time: Timestamp::from_micros(event.time),
        })
    }
}

fn named<T: Clone>(names: &[T], index: u32, what: &str) -> Decoded<T> {
    let name = usize::try_from(index)
        .ok()
        .and_then(|index| names.get(index));
    name.cloned().ok_or_else(|| {
        RpcError::not_understood(format!(
            "an event has {what} number {index}, of {}",
            names.len()
        ))
    })
}

fn content_type(code: i32) -> Decoded<ContentType> {
    u8::try_from(code)
        .ok()
        .and_then(ContentType::from_code)
        .ok_or_else(|| RpcError::not_understood(format!("an event has content type {code}")))
}

pub(crate) fn state(answer: wire::StateResponse) -> Decoded<StreamState> {
    let status = match answer.status() {
        Status::Absent => StreamStatus::Absent,
        Status::Present => StreamStatus::Present,
        Status::Deleted => StreamStatus::Deleted,
        Status::Tombstoned => StreamStatus::Tombstoned,
        Status::Unspecified => {
            return Err(RpcError::not_understood("a stream without a status"));
        }
    };
    Ok(StreamState::new(
        status,
        (Revision::new(answer.first), answer.last.map(Revision::new)),
        StreamMetadata::from_json(&answer.metadata),
        answer.metadata_revision.map(Revision::new),
    ))
}

pub(crate) fn listing(listing: wire::Listing) -> Decoded<Vec<StreamInfo>> {
    let info = |listed: wire::StreamEntry| {
        let stream = StreamName::new(listed.stream)
            .map_err(|error| RpcError::not_understood(error.to_string()))?;
        Ok(StreamInfo {
            stream,
            events: listed.events,
            revision: Revision::new(listed.revision),
            position: Position::new(listed.position),
            time: Timestamp::from_micros(listed.time),
        })
    };
    listing.streams.into_iter().map(info).collect()
}

pub(crate) fn stats(answer: wire::StatsResponse) -> StoreStats {
    let mut stats = StoreStats::default();
    stats.events = answer.events;
    stats.head = Position::new(answer.head);
    let details = answer.details.into_iter();
    stats.details = details
        .map(|detail| (detail.name.into(), detail.value))
        .collect();
    stats
}

pub(crate) fn progress(message: &wire::ScavengeProgress) -> ScavengeProgress {
    let mut progress = ScavengeProgress::of(
        message.parts_done,
        message.parts,
        message.events,
        message.bytes,
    );
    progress.streams = message.streams;
    progress.finished = message.finished;
    progress
}

pub(crate) fn snapshot(snapshot: wire::Snapshot) -> Decoded<SavedSnapshot> {
    let fingerprint = snapshot
        .fingerprint
        .as_ref()
        .try_into()
        .map_err(|_| RpcError::not_understood("a snapshot's fingerprint has not 16 bytes"))?;
    Ok(SavedSnapshot {
        revision: Revision::new(snapshot.revision),
        position: Position::new(snapshot.position),
        last_event: Uuid::from_u64_pair(snapshot.last_event_high, snapshot.last_event_low).into(),
        fingerprint,
        state: snapshot.state,
    })
}
