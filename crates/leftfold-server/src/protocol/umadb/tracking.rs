//! Progress of clients: how far each has processed a source outside this store.
//!
//! **Owns:** how progress is stored: as events of a system stream per source. **Does not know:** what is tracked.
//! **Invariants:** progress is appended together with its events, under the revision at which it was read, so it never goes
//! back.

use std::sync::Arc;

use futures_util::TryStreamExt;
use leftfold_model::{
    EventId, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem, Read,
    RecordedEvent, Revision, StreamName, StreamWrite,
};
use leftfold_proto::umadb::v1::TrackingInfo;
use leftfold_store::EventStore;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::status;

/// The prefix of the streams of sources.
const PREFIX: &str = "$tracking-";
/// The type of events that store progress.
const NOTED_TYPE: &str = "$tracking";
/// Maximum bytes of a source's name.
const SOURCE_BYTES_MAX: usize = 255;

/// The stream of a source.
#[derive(Debug, Clone)]
pub(super) struct TrackingStream(StreamName);

/// The newest progress of a source.
#[derive(Debug)]
pub(super) struct TrackingRecord {
    /// The processed position of the source.
    pub(super) position: u64,
    /// The event that stores it.
    pub(super) event: EventId,
    /// The position of that event.
    pub(super) at: Position,
    revision: Revision,
}

#[derive(Serialize, Deserialize)]
struct Data {
    position: u64,
}

impl TrackingStream {
    pub(super) fn of(source: &str) -> Result<Self, Status> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(status::invalid(format!(
                "tracking source has {} bytes; allowed are 0 to {SOURCE_BYTES_MAX}",
                source.len()
            )));
        }
        let name = StreamName::new([PREFIX, source].concat());
        name.map(Self).map_err(|error| status::of_model(&error))
    }

    pub(super) fn stream(&self) -> &StreamName {
        &self.0
    }

    /// Reads the newest progress; none if none is stored yet.
    pub(super) async fn newest(
        &self,
        store: &Arc<dyn EventStore>,
    ) -> Result<Option<TrackingRecord>, Status> {
        let noted = noted_type()
            .and_then(|name| QueryItem::types([name]))
            .and_then(|item| Query::items([item]))
            .map_err(|error| status::of_model(&error))?;
        let newest = Read::stream(self.0.clone()).matching(noted);
        let batches = store.read(newest.backwards().limit(1));
        let batches: Vec<_> = batches
            .try_collect()
            .await
            .map_err(|error| status::of_tracking(&error))?;
        let newest = batches.into_iter().flat_map(|batch| batch.events).next();
        newest.as_ref().map(read).transpose()
    }

    /// Returns the write that stores progress, if `newest` still is the newest. `last` is the last revision of the stream, if
    /// another event than `newest` is known to have it.
    pub(super) fn write(
        &self,
        tracking: &TrackingInfo,
        newest: Option<&TrackingRecord>,
        last: Option<Revision>,
        id: EventId,
    ) -> Result<StreamWrite, Status> {
        let position = tracking.position;
        let data = serde_json::to_vec(&Data { position }).map_err(status::invalid)?;
        let event_type = noted_type().map_err(|error| status::of_model(&error))?;
        Ok(StreamWrite {
            stream: self.0.clone(),
            expected: match newest.map(|noted| noted.revision).max(last) {
                Some(revision) => ExpectedRevision::Exact(revision),
                None => ExpectedRevision::NoStream,
            },
            events: vec![NewEvent::json(event_type, data).with_id(id)],
        })
    }
}

fn noted_type() -> Result<EventType, leftfold_model::ModelError> {
    EventType::new(NOTED_TYPE)
}

fn read(event: &RecordedEvent) -> Result<TrackingRecord, Status> {
    let Ok(Data { position }) = serde_json::from_slice(&event.data) else {
        return Err(status::damaged(format!(
            "stream {} notes no position at revision {}",
            event.stream, event.revision
        )));
    };
    Ok(TrackingRecord {
        position,
        event: event.id,
        at: event.position,
        revision: event.revision,
    })
}

/// Returns the id of the event that stores `tracking` together with events of these ids; a retry gets an equal one.
pub(super) fn id_for(tracking: &TrackingInfo, ids: &[EventId]) -> EventId {
    let Some(&first) = ids.first() else {
        return EventId::fresh();
    };
    let mut name = tracking.position.to_le_bytes().to_vec();
    name.extend_from_slice(tracking.source.as_bytes());
    for id in ids {
        name.extend_from_slice(id.as_bytes());
    }
    EventId::derived(first, &name)
}
