//! Appends: events, a condition and progress, together or not at all.
//!
//! **Owns:** [`AppendCommand`]: from the request to the position. **Does not know:** how an append is decided.
//! **Invariants:**
//! - Ids matter only after the condition has failed: an append whose condition holds is written, whatever ids it has.
//! - An append whose condition fails because of its own events returns their position.
//! - Events of system streams fail no condition, and are written after the others.
//! - Progress that does not advance is refused.

use std::{collections::HashSet, sync::Arc};

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, AppendCondition, Conflict, EventId, ExpectedRevision, NewEvent, Position, Read,
    RecordedEvent, Revision, StreamName, StreamWrite,
};
use leftfold_proto::umadb::v1 as wire;
use leftfold_store::{AppendError, EventStore};
use tonic::Status;

use super::{
    event::{self, is_shown},
    metadata::{ClientId, EventMetadata},
    query, status,
    tracking::{self, TrackingRecord, TrackingStream},
};
use crate::protocol::interner::NameInterner;

/// Maximum attempts of an append while others store progress of its source.
const ATTEMPTS: u32 = 64;
/// Maximum events of system streams that a condition skips.
const HIDDEN_MAX: usize = 1_024;
/// Maximum lookups of types and tags for that: the condition is decided again after each event that it skips.
const HIDDEN_LOOKUPS_MAX: usize = 1024 * 1024;

/// A requested append.
#[derive(Debug)]
pub(super) struct AppendCommand {
    /// The events under the condition, for the default stream; `None` if there are none.
    plain: Option<Append>,
    /// The ids that the client gave, if it gave one to each event; without them a repetition is not recognisable.
    ids: Option<Vec<EventId>>,
    condition: Option<AppendCondition>,
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Progress {
    tracking_info: wire::TrackingInfo,
    track: TrackingStream,
    /// The id of the event that stores it.
    id: EventId,
}

impl AppendCommand {
    pub(super) fn from_proto(request: wire::AppendRequest) -> Result<Self, Status> {
        let tracking_info = request.tracking_info;
        let (mut names, mut used) = (NameInterner::default(), HashSet::new());
        let decoded = request.events.into_iter();
        let decoded =
            decoded.map(|it| event::decode(it, tracking_info.as_ref(), &mut names, &mut used));
        let (events, ids): (Vec<_>, Vec<_>) =
            decoded.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
        let given = |id: Option<EventId>| id.filter(|id| !id.is_nil());
        let ids: Option<Vec<_>> = ids.into_iter().map(given).collect();
        let condition = request.condition.map(query::condition).transpose();
        let condition = condition.map_err(|error| status::of_model(&error))?;
        let progress = tracking_info.map(|tracking_info| {
            Ok::<_, Status>(Progress {
                track: TrackingStream::of(&tracking_info.source)?,
                id: tracking::id_for(&tracking_info, ids.as_deref().unwrap_or_default()),
                tracking_info,
            })
        });
        let progress = progress.transpose()?;
        Ok(Self {
            plain: plain(events, condition.as_ref())?,
            ids,
            condition,
            progress,
        })
    }

    /// Returns whether it has nothing to write, and only asks about its condition.
    pub(super) fn writes_nothing(&self) -> bool {
        self.plain.is_none() && self.progress.is_none()
    }

    /// Returns how many events of system streams the condition skips.
    fn hidden_max(&self) -> usize {
        let condition = self.condition.as_ref();
        let terms = condition.map_or(0, |condition| condition.fail_if_match.term_count());
        HIDDEN_MAX.min(HIDDEN_LOOKUPS_MAX / terms.max(1))
    }

    /// Appends it, and returns the position of the last event; 0 if there is none.
    pub(super) async fn execute(mut self, store: &Arc<dyn EventStore>) -> Result<u64, Status> {
        if self.writes_nothing() {
            return Box::pin(self.check_condition(store)).await;
        }
        let mut condition = self.condition.clone();
        let (mut raced, mut hidden) = (0, 0);
        // The last revision of the source's stream, as far as a conflict named it: that of the newest progress, unless the
        // stream was truncated or others appended to it.
        let mut last = None;
        while raced < ATTEMPTS {
            let newest = match &self.progress {
                // What is rare is in memory of its own, so that every other append needs less.
                Some(progress) => Box::pin(progress.track.newest(store)).await?,
                None => None,
            };
            if let Some((progress, newest)) = self.progress.as_ref().zip(newest.as_ref())
                && progress.tracking_info.position <= newest.position
            {
                return Box::pin(self.behind(store, progress, newest)).await;
            }
            match store
                .append(self.append(newest.as_ref(), last, condition.as_ref())?)
                .await
            {
                Ok(appended) if !appended.repeated => return Ok(self.last(appended.first)),
                Err(AppendError::Conflict(Conflict::PartlyStored { id, .. }))
                    if self.events().all(|event| event.id() != id) =>
                {
                    // A source whose progress was deleted begins again, maybe as it began before.
                    if let Some(progress) = &mut self.progress {
                        progress.id = EventId::fresh();
                    }
                    raced += 1;
                }
                Ok(_) | Err(AppendError::Conflict(Conflict::PartlyStored { .. })) => {
                    self.plain = self.with_fresh_ids(condition.as_ref())?;
                    raced += 1;
                }
                Err(AppendError::Conflict(Conflict::WrongRevision { stream, actual, .. }))
                    if self.tracks(&stream) =>
                {
                    // Of a deleted stream no revision is expected.
                    last = actual.0.filter(|_| last != actual.0);
                    raced += 1;
                }
                Err(error) => {
                    let passes = condition.as_mut();
                    let passes = Box::pin(passed_over(store, &error, passes)).await?;
                    hidden += 1;
                    if !passes || hidden > self.hidden_max() {
                        return Box::pin(self.repeated_or(store, error)).await;
                    }
                    self.plain = plain(self.events().cloned().collect(), condition.as_ref())?;
                }
            }
        }
        Err(Status::unavailable(
            "too many others track the same source, nothing was written",
        ))
    }

    fn append(
        &self,
        newest: Option<&TrackingRecord>,
        last: Option<Revision>,
        condition: Option<&AppendCondition>,
    ) -> Result<Append, Status> {
        let Some(Progress {
            tracking_info,
            track,
            id,
        }) = &self.progress
        else {
            let plain = self.plain.clone();
            return plain.ok_or_else(|| Status::internal("there is nothing to append"));
        };
        let mut writes: Vec<_> = self
            .plain
            .iter()
            .flat_map(Append::writes)
            .cloned()
            .collect();
        // Behind the events, so that it moves none of them.
        writes.push(track.write(tracking_info, newest, last, *id)?);
        let append = Append::new(writes, condition.into_iter().cloned().collect());
        append.map_err(|error| status::of_model(&error))
    }

    fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.plain.iter().flat_map(Append::events)
    }

    /// Returns the position of the last event, if the first has this one; 0 if there is none.
    fn last(&self, first: Position) -> u64 {
        match self.events().count() as u64 {
            0 => 0,
            count => first.saturating_add(count - 1).get(),
        }
    }

    /// Gives the events fresh ids, because the ids that the client gave are stored already.
    fn with_fresh_ids(
        &self,
        condition: Option<&AppendCondition>,
    ) -> Result<Option<Append>, Status> {
        plain(self.events().map(event::with_fresh_id).collect(), condition)
    }

    /// Returns whether this is the stream of its source.
    fn tracks(&self, stream: &StreamName) -> bool {
        let progress = self.progress.as_ref();
        progress.is_some_and(|progress| progress.track.stream() == stream)
    }

    /// Handles progress that does not advance: returns the first response of a repetition, or an error.
    async fn behind(
        &self,
        store: &Arc<dyn EventStore>,
        progress: &Progress,
        newest: &TrackingRecord,
    ) -> Result<u64, Status> {
        if newest.event == progress.id {
            return Ok(newest.at.previous().get());
        }
        if let Some(before) = self.repeated(store).await? {
            return Ok(before);
        }
        let wire::TrackingInfo { source, position } = &progress.tracking_info;
        let newest = newest.position;
        Err(status::integrity(format!(
            "tracking position of source {source:?} does not advance: {position} after {newest}"
        )))
    }

    /// Returns the position of a rejected append that is stored already, or the error.
    async fn repeated_or(
        &self,
        store: &Arc<dyn EventStore>,
        error: AppendError,
    ) -> Result<u64, Status> {
        if let AppendError::Conflict(Conflict::ConditionFailed { .. }) = error
            && let Some(before) = self.repeated(store).await?
        {
            return Ok(before);
        }
        Err(status::of_append(&error))
    }

    /// Returns the position of this append, if its condition matches its own stored events, however old they are.
    async fn repeated(&self, store: &Arc<dyn EventStore>) -> Result<Option<u64>, Status> {
        let (Some(condition), Some(ids)) = (&self.condition, &self.ids) else {
            return Ok(None);
        };
        let matching = Read::query(condition.fail_if_match.clone());
        let mut batches = store.read(matching.from_position(unseen(condition)));
        let mut given = ids.iter();
        let mut last = None;
        while let Some(batch) = batches
            .try_next()
            .await
            .map_err(|error| status::of_read(&error))?
        {
            for event in batch.events.iter().filter(|event| is_shown(event)) {
                let Some(next) = given.next() else {
                    return Ok(last);
                };
                if stored_id(event) != Some(*next) {
                    return Ok(None);
                }
                last = Some(event.position.get());
            }
        }
        Ok(last.filter(|_| given.next().is_none()))
    }

    /// Evaluates the condition of an append without events.
    async fn check_condition(&self, store: &Arc<dyn EventStore>) -> Result<u64, Status> {
        let Some(condition) = &self.condition else {
            return Ok(0);
        };
        let matching = Read::query(condition.fail_if_match.clone());
        let mut batches = store.read(matching.from_position(unseen(condition)));
        while let Some(batch) = batches
            .try_next()
            .await
            .map_err(|error| status::of_read(&error))?
        {
            if let Some(event) = batch.events.iter().find(|event| is_shown(event)) {
                return Err(status::of_append(&AppendError::Conflict(
                    Conflict::ConditionFailed {
                        condition: 0,
                        position: event.position,
                    },
                )));
            }
        }
        Ok(0)
    }
}

/// Returns whether a condition failed at an event of a system stream, and then moves the condition after that event.
async fn passed_over(
    store: &Arc<dyn EventStore>,
    error: &AppendError,
    condition: Option<&mut AppendCondition>,
) -> Result<bool, Status> {
    let (AppendError::Conflict(Conflict::ConditionFailed { position, .. }), Some(condition)) =
        (error, condition)
    else {
        return Ok(false);
    };
    let read = Read::all().from_position(*position).limit(1);
    let batches: Vec<_> = store
        .read(read)
        .try_collect()
        .await
        .map_err(|error| status::of_read(&error))?;
    // An event that was erased is not there, and counts.
    let found = batches.iter().flat_map(|batch| &batch.events).next();
    let passes = found.is_some_and(|event| event.position == *position && !is_shown(event));
    if passes {
        condition.after = (*position).into();
    }
    Ok(passes)
}

/// Returns the id that a client gave an event.
fn stored_id(event: &RecordedEvent) -> Option<EventId> {
    match EventMetadata::from_json(&event.metadata).id {
        ClientId::Stored => Some(event.id),
        ClientId::Given(id) => Some(id),
        ClientId::Missing => None,
    }
}

/// Creates the append of these events; `None` if there are none.
fn plain(
    events: Vec<NewEvent>,
    condition: Option<&AppendCondition>,
) -> Result<Option<Append>, Status> {
    if events.is_empty() {
        return Ok(None);
    }
    let write = StreamWrite {
        stream: StreamName::default_stream(),
        expected: ExpectedRevision::Any,
        events,
    };
    let append = Append::new(vec![write], condition.into_iter().cloned().collect());
    append.map(Some).map_err(|error| status::of_model(&error))
}

/// Returns the first position that a condition covers.
fn unseen(condition: &AppendCondition) -> Position {
    condition.after.seen_through().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_of_many_types_skips_fewer_events_of_system_streams() {
        let skips = |items: usize, types: usize| {
            let item = wire::QueryItem {
                types: (0..types).map(|nth| format!("T{nth}")).collect(),
                tags: Vec::new(),
            };
            let query = wire::Query {
                items: vec![item; items],
            };
            let request = wire::AppendRequest {
                condition: Some(wire::AppendCondition {
                    fail_if_events_match: Some(query),
                    after: None,
                }),
                ..wire::AppendRequest::default()
            };
            AppendCommand::from_proto(request).unwrap().hidden_max()
        };
        assert_eq!((skips(0, 0), skips(1, 1)), (HIDDEN_MAX, HIDDEN_MAX));
        assert_eq!(skips(256, 256), 16);
    }
}
