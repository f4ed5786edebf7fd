//! Appending and deleting, under the rules of a stream's life.
//!
//! **Owns:** what becomes of an append because of what its streams are: refused, extended, or left as it is.
//! **Does not know:** reads.
//! **Invariants:** whatever was assumed about a life is a check of the append, so a change in between means deciding
//! again; events that are added stand behind those of the caller, under ids that follow from the caller's.

use std::{collections::HashSet, sync::Arc};

use leftfold_model::{
    Append, Appended, Conflict, CurrentRevision, EventId, ExpectedRevision, ModelError, NewEvent,
    Position, Revision, StreamCheck, StreamName, StreamWrite,
};

use super::{
    Retained,
    life::{Life, Phase},
    metadata::{StreamMetadata, is_metadata, is_tombstone, metadata_type, tombstone_type},
    state::Delete,
};
use crate::{AppendError, Backend, ReadError};

/// How often an append is decided anew because the lives of its streams change.
const ATTEMPTS: u32 = 64;

/// An append as the back end gets it.
struct Plan {
    append: Append,
    /// Events behind the caller's, each in a write of its own.
    added: usize,
    /// Streams whose metadata it changes.
    changed: Vec<StreamName>,
    /// What was assumed, not asked for: if it does not hold, the plan is void.
    assumed: Vec<StreamCheck>,
}

impl Plan {
    fn is_void(&self, conflict: &AppendError) -> bool {
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
    fn answer(&self, mut appended: Appended) -> Appended {
        let writes = appended.streams.len() - self.added.min(appended.streams.len());
        appended.streams.truncate(writes);
        let last = appended.last.get() - self.added as u64;
        appended.last = Position::new(last);
        appended
    }
}

impl<B: Backend> Retained<B> {
    pub(super) async fn write(&self, append: Append) -> Result<Appended, AppendError> {
        let mut attempt = 0;
        loop {
            let plan = self.plan(&append, Returning::No).await?;
            match self.carry_out(&plan).await {
                Ok(appended) => return Ok(plan.answer(appended)),
                Err(conflict) if attempt < ATTEMPTS && plan.is_void(&conflict) => {
                    attempt += 1;
                    self.forget(&plan.assumed);
                }
                Err(AppendError::Conflict(conflict)) => {
                    return self.repeated(&append, conflict).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn carry_out(&self, plan: &Plan) -> Result<Appended, AppendError> {
        let change = self.lives.change(plan.changed.clone());
        let outcome = self.backend.append(plan.append.clone()).await;
        if !matches!(outcome, Err(AppendError::OutcomeUnknown { .. })) {
            change.finish();
        }
        outcome
    }

    fn forget(&self, assumed: &[StreamCheck]) {
        for check in assumed {
            let described = check.stream.described_stream();
            self.lives
                .forget(described.as_ref().unwrap_or(&check.stream));
        }
    }

    /// A refused append that expects "no stream" may be the repetition of one that brought a deleted stream back, whose
    /// events do not stand at its beginning.
    async fn repeated(&self, append: &Append, conflict: Conflict) -> Result<Appended, AppendError> {
        let expects_none = |write: &StreamWrite| write.expected == ExpectedRevision::NoStream;
        let refused = Err(AppendError::Conflict(conflict));
        if !append.writes().iter().any(expects_none)
            || self.lives.none_yet(&*self.backend).await.map_err(unread)?
        {
            return refused;
        }
        let plan = self.plan(append, Returning::Maybe).await?;
        match self.carry_out(&plan).await {
            Ok(appended) if appended.repeated => Ok(plan.answer(appended)),
            _ => refused,
        }
    }

    async fn plan(&self, append: &Append, returning: Returning) -> Result<Plan, AppendError> {
        let mut planning = Planning {
            written: append.writes().iter().map(|write| &write.stream).collect(),
            met: HashSet::new(),
            writes: append.writes().to_vec(),
            added: Vec::new(),
            checks: append.checks().to_vec(),
            assumed: Vec::new(),
            changed: Vec::new(),
        };
        for (nth, write) in append.writes().iter().enumerate() {
            if planning.met.insert(&write.stream) {
                match write.stream.described_stream() {
                    Some(described) => self.describe(&mut planning, nth, write, described).await?,
                    None => self.extend(&mut planning, nth, write, returning).await?,
                }
            }
        }
        planning.finish(append).map_err(invalid)
    }

    /// Plans a write to a stream of events.
    async fn extend<'a>(
        &self,
        planning: &mut Planning<'a>,
        nth: usize,
        write: &'a StreamWrite,
        returning: Returning,
    ) -> Result<(), AppendError> {
        let stream = &write.stream;
        let Some(metadata_stream) = stream.metadata_stream() else {
            return Ok(());
        };
        let life = self.life(stream).await?;
        match life.phase {
            Phase::Tombstoned => return Err(deleted(stream)),
            Phase::Deleted => {
                if write.expected == ExpectedRevision::StreamExists {
                    return Err(deleted(stream));
                }
                let last = self.last_revision(stream).await?;
                if matches!(
                    write.expected,
                    ExpectedRevision::Any | ExpectedRevision::NoStream
                ) {
                    planning.expect(nth, exactly(last));
                }
                if !planning.written.contains(&metadata_stream) {
                    let first = write
                        .events
                        .first()
                        .map_or_else(EventId::fresh, NewEvent::id);
                    let back = back_from(&life, last).map_err(invalid)?;
                    planning.add(&metadata_stream, &life, back.with_id(follows(first)));
                    planning.changed.push(stream.clone());
                }
            }
            Phase::Live => {
                let exists = write.expected == ExpectedRevision::StreamExists;
                if exists && life.revision.0.is_some() {
                    planning.expect(nth, ExpectedRevision::Any);
                }
                let before = life.metadata().truncate_before();
                if let (Returning::Maybe, ExpectedRevision::NoStream, Some(before)) =
                    (returning, write.expected, before)
                    && let Some(last) = before.get().checked_sub(1)
                {
                    planning.expect(nth, ExpectedRevision::Exact(Revision::new(last)));
                    // Only what stands there already is wanted: nothing can pass this.
                    planning.assume(stream, ExpectedRevision::Exact(Revision::MAX));
                }
            }
        }
        planning.assume(&metadata_stream, life.expectation());
        Ok(())
    }

    /// Plans a write to a metadata stream.
    async fn describe<'a>(
        &self,
        planning: &mut Planning<'a>,
        nth: usize,
        write: &'a StreamWrite,
        described: StreamName,
    ) -> Result<(), AppendError> {
        let life = self.life(&described).await?;
        match life.phase {
            Phase::Live => {}
            Phase::Deleted => {
                let last = self.last_revision(&described).await?;
                planning.bring_back(nth, last);
                planning.assume(&described, exactly(last));
            }
            // Metadata may still be noted, but the stream stays deleted: its last word is repeated.
            Phase::Tombstoned => {
                if let Some(newest) = write.events.last()
                    && !is_tombstone(newest.event_type())
                {
                    let again = NewEvent::json(tombstone_type().map_err(invalid)?, "{}");
                    planning.add_behind(&write.stream, again.with_id(follows(newest.id())));
                }
            }
        }
        planning.assume(&write.stream, life.expectation());
        planning.changed.push(described);
        Ok(())
    }

    pub(super) async fn end(&self, delete: Delete) -> Result<Appended, AppendError> {
        let stream = &delete.stream;
        let metadata_stream = stream
            .metadata_stream()
            .ok_or_else(|| AppendError::Invalid {
                reason: format!("stream {stream} has no metadata stream, so it cannot be deleted"),
            })?;
        let mut attempt = 0;
        loop {
            let life = self.life(stream).await?;
            let last = CurrentRevision(self.last_revision(stream).await?);
            allow(&delete, &life, last)?;
            let event = if delete.for_good {
                tombstone_type().map(|name| NewEvent::json(name, "{}"))
            } else {
                let json = life.metadata().deleted().to_json();
                metadata_type().map(|name| NewEvent::json(name, json))
            };
            let assumed = StreamCheck {
                stream: metadata_stream.clone(),
                expected: life.expectation(),
            };
            let events = vec![event.map_err(invalid)?];
            let append = Append::to(metadata_stream.clone(), assumed.expected, events);
            let check = match delete.expected {
                ExpectedRevision::Exact(_) => delete.expected,
                ExpectedRevision::NoStream => exactly(last.0),
                ExpectedRevision::Any | ExpectedRevision::StreamExists => ExpectedRevision::Any,
            };
            let append = append.and_then(|append| append.with_check(stream.clone(), check));
            let plan = Plan {
                append: append.map_err(invalid)?,
                added: 0,
                changed: vec![stream.clone()],
                assumed: vec![assumed],
            };
            match self.carry_out(&plan).await {
                Err(conflict) if attempt < ATTEMPTS && plan.is_void(&conflict) => {
                    attempt += 1;
                    self.lives.forget(stream);
                }
                Ok(deleted) => {
                    // A snapshot of what is gone must not come back with the stream. It is disposable, so not being able
                    // to remove it is no reason to call the deletion failed.
                    let _ = self.backend.snapshots().remove(stream).await;
                    return Ok(deleted);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn life(&self, stream: &StreamName) -> Result<Arc<Life>, AppendError> {
        self.lives.of(&*self.backend, stream).await.map_err(unread)
    }

    async fn last_revision(&self, stream: &StreamName) -> Result<Option<Revision>, AppendError> {
        let current = self.backend.current(stream.clone()).await;
        Ok(current.map_err(unread)?.0)
    }
}

/// Whether a refused append is looked at as one that brought streams back.
#[derive(Clone, Copy)]
enum Returning {
    No,
    Maybe,
}

/// A plan in the making.
struct Planning<'a> {
    written: HashSet<&'a StreamName>,
    met: HashSet<&'a StreamName>,
    writes: Vec<StreamWrite>,
    added: Vec<StreamWrite>,
    checks: Vec<StreamCheck>,
    assumed: Vec<StreamCheck>,
    changed: Vec<StreamName>,
}

impl Planning<'_> {
    /// Replaces what the caller expects of a write by what that means for the back end.
    fn expect(&mut self, nth: usize, expected: ExpectedRevision) {
        if let Some(write) = self.writes.get_mut(nth) {
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

    fn add(&mut self, stream: &StreamName, life: &Life, event: NewEvent) {
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
    fn bring_back(&mut self, nth: usize, last: Option<Revision>) {
        let Some(write) = self.writes.get_mut(nth) else {
            return;
        };
        for event in &mut write.events {
            let metadata = StreamMetadata::from_json(event.data());
            if is_metadata(event.event_type()) && !metadata.says_deleted() {
                let before = last.map_or(Revision::FIRST, Revision::next);
                let data = metadata.with_truncate_before(before).to_json();
                *event = event.clone().with_data(data);
            }
        }
    }

    fn finish(self, append: &Append) -> Result<Plan, ModelError> {
        let added = self.added.len();
        let mut writes = self.writes;
        writes.extend(self.added);
        let whole = Append::new(writes, append.conditions().to_vec())?.with_checks(self.checks)?;
        Ok(Plan {
            append: whole,
            added,
            changed: self.changed,
            assumed: self.assumed,
        })
    }
}

/// Whether a stream can be deleted as it is.
fn allow(delete: &Delete, life: &Life, last: CurrentRevision) -> Result<(), AppendError> {
    let (stream, expected) = (&delete.stream, delete.expected);
    if life.phase == Phase::Tombstoned {
        return Err(deleted(stream));
    }
    let known = last.0.is_some() || life.revision.0.is_some();
    let gone = life.phase == Phase::Deleted;
    let allowed = match expected {
        ExpectedRevision::Any => known || delete.for_good,
        ExpectedRevision::NoStream => gone || (last.0.is_none() && delete.for_good),
        ExpectedRevision::StreamExists if gone => return Err(deleted(stream)),
        ExpectedRevision::StreamExists => known,
        ExpectedRevision::Exact(_) => expected.allows(last),
    };
    if allowed {
        return Ok(());
    }
    Err(AppendError::Conflict(Conflict::WrongRevision {
        stream: stream.clone(),
        expected,
        actual: last,
    }))
}

/// The metadata event that brings a deleted stream back, behind its last event.
fn back_from(life: &Life, last: Option<Revision>) -> Result<NewEvent, ModelError> {
    let before = last.map_or(Revision::FIRST, Revision::next);
    let metadata = life.metadata().with_truncate_before(before);
    Ok(NewEvent::json(metadata_type()?, metadata.to_json()))
}

/// The id of an event that is added because of the event with this id: a repetition adds the same.
fn follows(id: EventId) -> EventId {
    EventId::derived(id, b"leftfold.stream-life")
}

fn exactly(last: Option<Revision>) -> ExpectedRevision {
    last.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
}

fn deleted(stream: &StreamName) -> AppendError {
    AppendError::Conflict(Conflict::StreamDeleted {
        stream: stream.clone(),
    })
}

fn unread(error: ReadError) -> AppendError {
    AppendError::Unavailable {
        cause: Arc::new(error),
    }
}

fn invalid(error: ModelError) -> AppendError {
    AppendError::Invalid {
        reason: error.to_string(),
    }
}
