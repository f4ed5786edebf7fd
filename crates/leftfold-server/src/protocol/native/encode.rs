//! Encoding the store's values as messages.
//!
//! **Owns:** how events are packed into messages. **Does not know:** calls.
//! **Invariants:** a message holds [`MESSAGE_BYTES`] at most, or one event; data is shared, not copied; a message contains each
//! name once.

use std::{collections::HashMap, time::Duration};

use leftfold_model::{Appended, EventId, ExpectedRevision, Position, RecordedEvent, Revision};
use leftfold_proto::leftfold::v1::{
    self as wire, Expected, expected::Kind as ExpectedKind, state_response::Status,
};
use leftfold_store::{
    Delivery, ReadBatch, SavedSnapshot, ScavengeProgress, StoreStats, StreamInfo, StreamState,
    StreamStatus,
};
use uuid::Uuid;

/// Approximate bytes of a message of events: large enough to amortise the cost of a call, small enough to hold a thousand.
const MESSAGE_BYTES: usize = 256 * 1024;
/// Bytes of an event beside its data, metadata and names, about.
const EVENT_BYTES: usize = 64;
/// Streams of one message of a listing: with the longest names still below [`MESSAGE_BYTES`].
const LISTED_MAX: usize = 200;

/// The microseconds of a duration.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

pub(super) fn id(id: EventId) -> (u64, u64) {
    Uuid::from(id).as_u64_pair()
}

pub(super) fn expected(expected: ExpectedRevision) -> Expected {
    let kind = match expected {
        ExpectedRevision::Any => None,
        ExpectedRevision::NoStream => Some(ExpectedKind::NoStream(())),
        ExpectedRevision::StreamExists => Some(ExpectedKind::Exists(())),
        ExpectedRevision::Exact(revision) => Some(ExpectedKind::Revision(revision.get())),
    };
    Expected { kind }
}

/// Encodes the response to an append, whose caller knows its streams.
pub(super) fn appended(appended: &Appended) -> wire::Appended {
    wire::Appended {
        first: appended.first.get(),
        last: appended.last.get(),
        repeated: appended.repeated,
        revisions: appended.streams.iter().map(|(_, r)| r.get()).collect(),
        streams: Vec::new(),
    }
}

/// Encodes the response to a deletion, whose caller does not know its stream.
pub(super) fn deleted(deleted: &Appended) -> wire::Appended {
    wire::Appended {
        streams: deleted.streams.iter().map(|(s, _)| s.to_string()).collect(),
        ..appended(deleted)
    }
}

/// Encodes one batch as messages; at least one.
pub(super) fn read_batch(batch: &ReadBatch) -> Vec<wire::ReadBatch> {
    let token = batch.token.seen_through().get();
    let parts = split(&batch.events).into_iter();
    let message = |(events, _)| wire::ReadBatch {
        events: Some(events),
        token,
    };
    parts.map(message).collect()
}

/// Encodes one delivery as messages; at least one. The checkpoint of all but the last is that of their own events.
pub(super) fn delivery(delivery: &Delivery) -> Vec<wire::Delivery> {
    let parts = split(&delivery.events);
    let last = parts.len().saturating_sub(1);
    let message = |(index, (events, through)): (usize, (wire::Events, Position))| {
        let is_last = index == last;
        wire::Delivery {
            events: Some(events),
            through: if is_last { delivery.through } else { through }.get(),
            caught_up: is_last && delivery.caught_up,
        }
    };
    parts.into_iter().enumerate().map(message).collect()
}

/// Splits events into messages, each with the position of its last event.
fn split(events: &[RecordedEvent]) -> Vec<(wire::Events, Position)> {
    let mut done = Vec::new();
    let mut gathered = EventBatchBuilder::default();
    let mut last = Position::START;
    for event in events {
        if gathered.bytes > 0 && gathered.bytes + size(event) > MESSAGE_BYTES {
            done.push((std::mem::take(&mut gathered).finish(), last));
        }
        gathered.add(event);
        last = event.position;
    }
    done.push((gathered.finish(), last));
    done
}

/// Returns the maximum bytes of an event in a message.
fn size(event: &RecordedEvent) -> usize {
    let tags: usize = event.tags.iter().map(|tag| tag.as_str().len() + 4).sum();
    let names = event.stream.as_str().len() + event.event_type.as_str().len();
    EVENT_BYTES + names + tags + event.data.len() + event.metadata.len()
}

/// The builder of a message.
#[derive(Default)]
struct EventBatchBuilder<'a> {
    streams: Names<'a>,
    types: Names<'a>,
    tags: Names<'a>,
    events: Vec<wire::Event>,
    bytes: usize,
}

impl<'a> EventBatchBuilder<'a> {
    fn add(&mut self, event: &'a RecordedEvent) {
        let known = self.streams.bytes + self.types.bytes + self.tags.bytes;
        let (id_high, id_low) = id(event.id);
        self.events.push(wire::Event {
            position: event.position.get(),
            stream: self.streams.index(event.stream.as_str()),
            revision: event.revision.get(),
            id_high,
            id_low,
            r#type: self.types.index(event.event_type.as_str()),
            content_type: event.content_type.code().into(),
            data: event.data.clone(),
            metadata: event.metadata.clone(),
            tags: event
                .tags
                .iter()
                .map(|tag| self.tags.index(tag.as_str()))
                .collect(),
            time: event.time.as_micros(),
        });
        let names = self.streams.bytes + self.types.bytes + self.tags.bytes - known;
        let indexes = event.tags.len() * 4;
        self.bytes += EVENT_BYTES + names + indexes + event.data.len() + event.metadata.len();
    }

    fn finish(self) -> wire::Events {
        wire::Events {
            streams: self.streams.list,
            types: self.types.list,
            tags: self.tags.list,
            events: self.events,
        }
    }
}

/// Names, each once.
#[derive(Default)]
struct Names<'a> {
    list: Vec<String>,
    places: HashMap<&'a str, u32>,
    newest: Option<(&'a str, u32)>,
    bytes: usize,
}

impl<'a> Names<'a> {
    fn index(&mut self, name: &'a str) -> u32 {
        // Neighbours are often alike.
        if let Some((newest, index)) = self.newest
            && newest == name
        {
            return index;
        }
        let next = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let index = *self.places.entry(name).or_insert(next);
        if index == next {
            self.bytes += name.len();
            self.list.push(name.to_owned());
        }
        self.newest = Some((name, index));
        index
    }
}

pub(super) fn state(state: &StreamState) -> wire::StateResponse {
    let status = match state.status {
        StreamStatus::Absent => Status::Absent,
        StreamStatus::Present => Status::Present,
        StreamStatus::Deleted => Status::Deleted,
        StreamStatus::Tombstoned => Status::Tombstoned,
    };
    wire::StateResponse {
        status: status.into(),
        first: state.first.get(),
        last: state.last.map(Revision::get),
        metadata: state.metadata.to_json(),
        metadata_revision: state.metadata_revision.map(Revision::get),
    }
}

pub(super) fn listing(infos: &[StreamInfo]) -> Vec<wire::Listing> {
    let listed = |info: &StreamInfo| wire::StreamEntry {
        stream: info.stream.to_string(),
        events: info.events,
        revision: info.revision.get(),
        position: info.position.get(),
        time: info.time.as_micros(),
    };
    let message = |infos: &[StreamInfo]| wire::Listing {
        streams: infos.iter().map(listed).collect(),
    };
    infos.chunks(LISTED_MAX).map(message).collect()
}

pub(super) fn stats(stats: StoreStats) -> wire::StatsResponse {
    let detail = |(name, value): (std::borrow::Cow<'static, str>, String)| {
        let name = name.into_owned();
        wire::stats_response::Detail { name, value }
    };
    wire::StatsResponse {
        events: stats.events,
        head: stats.head.get(),
        details: stats.details.into_iter().map(detail).collect(),
    }
}

pub(super) fn progress(progress: &ScavengeProgress) -> wire::ScavengeProgress {
    wire::ScavengeProgress {
        streams: progress.streams,
        parts_done: progress.parts_done,
        parts: progress.parts,
        events: progress.events,
        bytes: progress.bytes,
        finished: progress.finished,
    }
}

pub(super) fn snapshot(snapshot: SavedSnapshot) -> wire::Snapshot {
    let (last_event_high, last_event_low) = id(snapshot.last_event);
    wire::Snapshot {
        revision: snapshot.revision.get(),
        position: snapshot.position.get(),
        last_event_high,
        last_event_low,
        fingerprint: snapshot.fingerprint.to_vec().into(),
        state: snapshot.state,
    }
}
