//! What becomes of an append because of what its streams are: refused, extended, or left as it is.
//!
//! **Owns:** [`Plan`], [`AppendContext`]. **Does not know:** how often a plan is tried, and where it goes.
//! **Invariants:** whatever was assumed about a life is a check of the append, so a plan that was made on a wrong
//! assumption is refused by the back end; events that are added stand behind those of the caller, under ids that follow
//! from the caller's.

use std::{borrow::Cow, collections::HashSet, future::Future, sync::Arc};

use leftfold_model::{
    Append, Appended, Conflict, EventId, ExpectedRevision, ModelError, NewEvent, Position,
    Revision, StreamCheck, StreamName, StreamWrite,
};

use super::lifecycle::{Phase, StreamLifecycle};
use crate::{
    AppendError, ReadError, StreamMetadata,
    contract::stream_metadata::{is_metadata, is_tombstone, metadata_type, tombstone_type},
};

/// What an append is planned on, and where it goes: what is known of its streams, and who decides.
pub(super) trait AppendContext: Sync {
    /// What the metadata of a stream says.
    fn life(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Arc<StreamLifecycle>, AppendError>> + Send;

    /// The revision of its newest event.
    fn last_revision(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Option<Revision>, AppendError>> + Send;

    /// Hands a plan to the back end.
    fn execute(&self, plan: &Plan) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Makes sure that what was assumed is looked up anew.
    fn forget(&self, assumed: &[StreamCheck]);

    /// Whether it is certain, without looking, that no stream has metadata.
    fn knows_no_metadata(&self) -> impl Future<Output = Result<bool, AppendError>> + Send;
}

/// An append as the back end gets it.
pub(super) struct Plan {
    pub(super) append: Append,
    /// Events behind the caller's, each in a write of its own.
    pub(super) added: usize,
    /// Streams whose metadata it changes.
    pub(super) changed: Vec<StreamName>,
    /// What was assumed, not asked for: if it does not hold, the plan is void.
    pub(super) assumed: Vec<StreamCheck>,
}

impl Plan {
    /// What an append becomes on this ground.
    pub(super) async fn of(
        ground: &impl AppendContext,
        append: &Append,
        returning: Recreation,
    ) -> Result<Self, AppendError> {
        let mut planning = Planning {
            writes: Cow::Borrowed(append.writes()),
            written: HashSet::new(),
            added: Vec::new(),
            checks: Vec::new(),
            assumed: Vec::new(),
            changed: Vec::new(),
        };
        let mut met = HashSet::new();
        let alone = append.writes().len() == 1;
        if !alone {
            planning.written = append.writes().iter().map(|write| &write.stream).collect();
        }
        for (nth, write) in append.writes().iter().enumerate() {
            if alone || met.insert(&write.stream) {
                match write.stream.described_stream() {
                    Some(described) => {
                        Box::pin(planning.describe(ground, nth, write, described)).await?;
                    }
                    None => planning.extend(ground, nth, write, returning).await?,
                }
            }
        }
        planning.finish(append).map_err(invalid)
    }

    /// Whether it was refused because an assumption did not hold.
    pub(super) fn is_invalidated(&self, conflict: &AppendError) -> bool {
        let AppendError::Conflict(Conflict::WrongRevision {
            stream, expected, ..
        }) = conflict
        else {
            return false;
        };
        let assumed = |check: &StreamCheck| check.stream == *stream && check.expected == *expected;
        self.assumed.iter().any(assumed)
    }

    /// The answer for the caller, who knows only of the events it gave.
    pub(super) fn answer(&self, mut appended: Appended) -> Appended {
        let writes = appended.streams.len() - self.added.min(appended.streams.len());
        appended.streams.truncate(writes);
        let last = appended.last.get() - self.added as u64;
        appended.last = Position::new(last);
        appended
    }
}

/// Whether a refused append is looked at as one that brought streams back.
#[derive(Clone, Copy)]
pub(super) enum Recreation {
    No,
    Maybe,
}

/// A plan in the making.
struct Planning<'a> {
    /// The caller's, copied only if one of them has to be changed.
    writes: Cow<'a, [StreamWrite]>,
    /// The streams of several writes; none if there is only one, which is that of its own stream.
    written: HashSet<&'a StreamName>,
    added: Vec<StreamWrite>,
    /// Beside the caller's.
    checks: Vec<StreamCheck>,
    assumed: Vec<StreamCheck>,
    changed: Vec<StreamName>,
}

impl<'a> Planning<'a> {
    /// Plans a write to a stream of events.
    async fn extend(
        &mut self,
        ground: &impl AppendContext,
        nth: usize,
        write: &'a StreamWrite,
        returning: Recreation,
    ) -> Result<(), AppendError> {
        let stream = &write.stream;
        let Some(metadata_stream) = stream.metadata_stream() else {
            return Ok(());
        };
        let life = ground.life(stream).await?;
        match life.phase {
            Phase::Tombstoned => return Err(deleted(stream)),
            Phase::Deleted => {
                if write.expected == ExpectedRevision::StreamExists {
                    return Err(deleted(stream));
                }
                let last = ground.last_revision(stream).await?;
                if matches!(
                    write.expected,
                    ExpectedRevision::Any | ExpectedRevision::NoStream
                ) {
                    self.expect_instead(nth, exactly(last));
                }
                if !self.written.contains(&metadata_stream) {
                    let first = write
                        .events
                        .first()
                        .map_or_else(EventId::fresh, NewEvent::id);
                    let back = back_from(&life, last).map_err(invalid)?;
                    self.add(&metadata_stream, &life, back.with_id(follows(first)));
                    self.changed.push(stream.clone());
                }
            }
            Phase::Live => {
                let exists = write.expected == ExpectedRevision::StreamExists;
                if exists && life.revision.0.is_some() {
                    self.expect_instead(nth, ExpectedRevision::Any);
                }
                let before = life.metadata().truncate_before();
                if let (Recreation::Maybe, ExpectedRevision::NoStream, Some(before)) =
                    (returning, write.expected, before)
                    && let Some(last) = before.get().checked_sub(1)
                {
                    self.expect_instead(nth, ExpectedRevision::Exact(Revision::new(last)));
                    // Only what stands there already is wanted: nothing can pass this.
                    self.assume(stream, ExpectedRevision::Exact(Revision::MAX));
                }
            }
        }
        self.assume(&metadata_stream, life.expectation());
        Ok(())
    }

    /// Plans a write to a metadata stream.
    async fn describe(
        &mut self,
        ground: &impl AppendContext,
        nth: usize,
        write: &'a StreamWrite,
        described: StreamName,
    ) -> Result<(), AppendError> {
        let life = ground.life(&described).await?;
        match life.phase {
            Phase::Live => {}
            Phase::Deleted => {
                let last = ground.last_revision(&described).await?;
                self.recreate(nth, last);
                self.assume(&described, exactly(last));
            }
            // Metadata may still be noted, but the stream stays deleted: its last word is repeated.
            Phase::Tombstoned => {
                if let Some(newest) = write.events.last()
                    && !is_tombstone(newest.event_type())
                {
                    let again = NewEvent::json(tombstone_type().map_err(invalid)?, "{}");
                    self.add_behind(&write.stream, again.with_id(follows(newest.id())));
                }
            }
        }
        self.assume(&write.stream, life.expectation());
        self.changed.push(described);
        Ok(())
    }

    /// Replaces what the caller expects of a write by what that means for the back end.
    fn expect_instead(&mut self, nth: usize, expected: ExpectedRevision) {
        if let Some(write) = self.writes.to_mut().get_mut(nth) {
            write.expected = expected;
            let stream = write.stream.clone();
            self.assumed.push(StreamCheck { stream, expected });
        }
    }

    fn assume(&mut self, stream: &StreamName, expected: ExpectedRevision) {
        let check = StreamCheck {
            stream: stream.clone(),
            expected,
        };
        self.checks.push(check.clone());
        self.assumed.push(check);
    }

    fn add(&mut self, stream: &StreamName, life: &StreamLifecycle, event: NewEvent) {
        self.added.push(StreamWrite {
            stream: stream.clone(),
            expected: life.expectation(),
            events: vec![event],
        });
    }

    /// Adds an event to a stream that the append writes to.
    fn add_behind(&mut self, stream: &StreamName, event: NewEvent) {
        self.added.push(StreamWrite {
            stream: stream.clone(),
            expected: ExpectedRevision::Any,
            events: vec![event],
        });
    }

    /// Makes metadata for a deleted stream begin behind the events it had, unless it says itself that it is deleted.
    fn recreate(&mut self, nth: usize, last: Option<Revision>) {
        let Some(write) = self.writes.to_mut().get_mut(nth) else {
            return;
        };
        for event in &mut write.events {
            let metadata = StreamMetadata::from_json(event.data());
            if is_metadata(event.event_type()) && !metadata.is_deleted() {
                let before = last.map_or(Revision::FIRST, Revision::next);
                let data = metadata.with_truncate_before(before).to_json();
                *event = event.clone().with_data(data);
            }
        }
    }

    fn finish(self, append: &Append) -> Result<Plan, ModelError> {
        let added = self.added.len();
        let whole = match self.writes {
            Cow::Borrowed(_) if added == 0 => append.clone(),
            writes => {
                let mut writes = writes.into_owned();
                writes.extend(self.added);
                let whole = Append::new(writes, append.conditions().to_vec())?;
                whole.with_checks(append.checks().iter().cloned())?
            }
        };
        Ok(Plan {
            append: whole.with_checks(self.checks)?,
            added,
            changed: self.changed,
            assumed: self.assumed,
        })
    }
}

/// The metadata event that brings a deleted stream back, behind its last event.
fn back_from(life: &StreamLifecycle, last: Option<Revision>) -> Result<NewEvent, ModelError> {
    let before = last.map_or(Revision::FIRST, Revision::next);
    let metadata = life.metadata().with_truncate_before(before);
    Ok(NewEvent::json(metadata_type()?, metadata.to_json()))
}

/// The id of an event that is added because of the event with this id: a repetition adds the same.
fn follows(id: EventId) -> EventId {
    EventId::derived(id, b"leftfold.stream-life")
}

pub(super) fn exactly(last: Option<Revision>) -> ExpectedRevision {
    last.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
}

pub(super) fn deleted(stream: &StreamName) -> AppendError {
    AppendError::Conflict(Conflict::StreamDeleted {
        stream: stream.clone(),
    })
}

pub(super) fn unread(error: ReadError) -> AppendError {
    AppendError::Unavailable {
        cause: Arc::new(error),
    }
}

pub(super) fn invalid(error: ModelError) -> AppendError {
    AppendError::Invalid {
        reason: error.to_string(),
    }
}
