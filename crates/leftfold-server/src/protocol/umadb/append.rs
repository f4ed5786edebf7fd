//! Appends: events, a condition and progress, together or not at all.
//!
//! **Owns:** [`AppendCommand`]: from the request to the position. **Does not know:** how an append is decided.
//! **Invariants:** an append that is repeated with the same event ids is answered with its first position, also when its
//! condition fails because of itself; progress that does not advance is refused.

use std::sync::Arc;

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, AppendCondition, Conflict, EventId, ExpectedRevision, ModelError, NewEvent, Position,
    Read, StreamName, StreamWrite,
};
use leftfold_proto::umadb::v1 as wire;
use leftfold_store::{AppendError, EventStore};
use tonic::Status;

use super::{
    event, is_shown, query, status,
    tracking::{self, TrackingRecord, TrackingStream},
};
use crate::protocol::interner::NameInterner;

/// How often an append is tried anew because others note progress of the same source.
const ATTEMPTS: u32 = 64;

/// An append that was asked for.
#[derive(Debug)]
pub(super) struct AppendCommand {
    /// The events, under the condition; `None` if there are none.
    plain: Option<Append>,
    /// Whether the client gave all ids, so that it can mean the same append again.
    has_ids: bool,
    condition: Option<AppendCondition>,
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Progress {
    told: wire::TrackingInfo,
    track: TrackingStream,
    /// The id of the event that will note it.
    id: EventId,
}

impl AppendCommand {
    pub(super) fn from_proto(request: wire::AppendRequest) -> Result<Self, Status> {
        let told = request.tracking_info;
        let has_ids = request.events.iter().all(|event| !event.uuid.is_empty());
        let mut names = NameInterner::default();
        let events: Vec<_> = request
            .events
            .into_iter()
            .map(|event| event::decode(event, told.as_ref(), &mut names))
            .collect::<Result<_, _>>()?;
        let condition = request.condition.map(query::condition).transpose();
        let condition = condition.map_err(|error| status::of_model(&error))?;
        let progress = told.map(|told| {
            Ok::<_, Status>(Progress {
                track: TrackingStream::of(&told.source)?,
                id: tracking::id_for(&told, &events),
                told,
            })
        });
        let progress = progress.transpose()?;
        let plain = (!events.is_empty()).then(|| {
            let write = StreamWrite {
                stream: StreamName::default_stream(),
                expected: ExpectedRevision::Any,
                events,
            };
            Append::new(vec![write], condition.iter().cloned().collect())
        });
        Ok(Self {
            plain: plain
                .transpose()
                .map_err(|error| status::of_model(&error))?,
            has_ids,
            condition,
            progress,
        })
    }

    /// The position of the last event; 0 if there is none to append.
    pub(super) async fn execute(self, store: &Arc<dyn EventStore>) -> Result<u64, Status> {
        if self.plain.is_none() && self.progress.is_none() {
            return Box::pin(self.check_condition(store)).await;
        }
        for _ in 0..ATTEMPTS {
            let newest = match &self.progress {
                // What is rare is in memory of its own, so that every other append needs less.
                Some(progress) => Box::pin(progress.track.newest(store)).await?,
                None => None,
            };
            if let Some((progress, newest)) = self.progress.as_ref().zip(newest.as_ref())
                && progress.told.position <= newest.position
            {
                return Box::pin(self.behind(store, progress, newest)).await;
            }
            let append = self.append(newest.as_ref())?;
            match store.append(append).await {
                Ok(_) if self.plain.is_none() => return Ok(0),
                Ok(appended) => return Ok(appended.last.get()),
                Err(error) if self.lost_race(&error) => {}
                Err(error @ AppendError::Conflict(Conflict::ConditionFailed { .. })) => {
                    let before = Box::pin(self.repeated(store)).await?;
                    return before.ok_or_else(|| status::of_append(&error));
                }
                Err(error) => return Err(status::of_append(&error)),
            }
        }
        Err(Status::unavailable(
            "too many others track the same source, nothing was written",
        ))
    }

    fn append(&self, newest: Option<&TrackingRecord>) -> Result<Append, Status> {
        let (Progress { told, track, id }, plain) = match (&self.progress, &self.plain) {
            (None, Some(plain)) => return Ok(plain.clone()),
            (Some(progress), plain) => (progress, plain),
            (None, None) => return Err(Status::internal("there is nothing to append")),
        };
        // In front of the events, so that the last position is that of an event the client knows.
        let mut writes = vec![track.write(told, newest, *id)?];
        writes.extend(plain.iter().flat_map(Append::writes).cloned());
        let append = Append::new(writes, self.condition.iter().cloned().collect());
        append.map_err(|error: ModelError| status::of_model(&error))
    }

    fn events(&self) -> impl Iterator<Item = &NewEvent> {
        self.plain.iter().flat_map(Append::events)
    }

    /// Whether somebody else noted progress of the same source in between.
    fn lost_race(&self, error: &AppendError) -> bool {
        let (Some(progress), AppendError::Conflict(Conflict::WrongRevision { stream, .. })) =
            (&self.progress, error)
        else {
            return false;
        };
        stream == progress.track.stream()
    }

    /// The progress has been made already: by this very append, or it does not advance.
    async fn behind(
        &self,
        store: &Arc<dyn EventStore>,
        progress: &Progress,
        newest: &TrackingRecord,
    ) -> Result<u64, Status> {
        if newest.event == progress.id {
            return Ok(newest.at.saturating_add(self.events().count() as u64).get());
        }
        if let Some(before) = self.repeated(store).await? {
            return Ok(before);
        }
        let wire::TrackingInfo { source, position } = &progress.told;
        let newest = newest.position;
        Err(status::integrity(format!(
            "tracking position of source {source:?} does not advance: {position} after {newest}"
        )))
    }

    /// Where this append stands already, if what its condition matches is itself, however long ago that was.
    async fn repeated(&self, store: &Arc<dyn EventStore>) -> Result<Option<u64>, Status> {
        let Some(condition) = self.condition.as_ref().filter(|_| self.has_ids) else {
            return Ok(None);
        };
        let matching = Read::query(condition.fail_if_match.clone());
        let mut batches = store.read(matching.from_position(unseen(condition)));
        let mut given = self.events();
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
                if next.id() != event.id {
                    return Ok(None);
                }
                last = Some(event.position.get());
            }
        }
        Ok(last.filter(|_| given.next().is_none()))
    }

    /// There is nothing to append: only the condition is asked about.
    async fn check_condition(&self, store: &Arc<dyn EventStore>) -> Result<u64, Status> {
        let Some(condition) = &self.condition else {
            return Ok(0);
        };
        let matching = Read::query(condition.fail_if_match.clone());
        let first = store.read(matching.from_position(unseen(condition)).limit(1));
        let batches: Vec<_> = first
            .try_collect()
            .await
            .map_err(|error| status::of_read(&error))?;
        match batches.iter().flat_map(|batch| &batch.events).next() {
            None => Ok(0),
            Some(event) => Err(status::of_append(&AppendError::Conflict(
                Conflict::ConditionFailed {
                    condition: 0,
                    position: event.position,
                },
            ))),
        }
    }
}

/// The first position that a condition speaks of.
fn unseen(condition: &AppendCondition) -> Position {
    condition.after.seen_through().next()
}
