//! Planning appends: what the lifecycles of its streams make of an append, write by write.
//!
//! **Owns:** [`Plan`], [`AppendContext`]. **Does not know:** how often a plan is tried, and where it goes.
//! **Invariants:** every assumption about a lifecycle is a check of the append, so the back end rejects a plan that rests on a
//! wrong one; added events come after the caller's, under ids derived from the caller's.

use std::{borrow::Cow, collections::HashMap, future::Future, sync::Arc};

use leftfold_model::{
    Append, Appended, Bytes, Conflict, EventId, ExpectedRevision, ModelError, NewEvent, Position,
    Revision, StreamCheck, StreamName, StreamWrite,
};

use super::lifecycle::{Phase, StreamLifecycle};
use crate::{
    AppendError, ReadError, StreamMetadata,
    contract::stream_metadata::{is_metadata, is_tombstone, metadata_type, tombstone_type},
    tenant::tags_of_tenants,
};

/// Marks an event that the store itself adds to a stream as one of the stream's tenants.
pub(super) fn marked(event: NewEvent, stream: &StreamName) -> NewEvent {
    match tags_of_tenants(stream) {
        none if none.is_empty() => event,
        // More nested tenants than an event has tags: no tenant could append to the stream.
        tags => event.clone().with_tags(tags).unwrap_or(event),
    }
}

/// The context in which an append is planned: lookups of its streams, and the back end that decides.
pub(super) trait AppendContext: Sync {
    /// Returns the lifecycle of a stream.
    fn lifecycle(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Arc<StreamLifecycle>, AppendError>> + Send;

    /// Returns the revision of its newest event.
    fn last_revision(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<Option<Revision>, AppendError>> + Send;

    /// Submits a plan to the back end.
    fn execute(&self, plan: &Plan) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Drops the cached state of these streams, so that the next plan reads it again.
    fn forget(&self, assumed: &[StreamCheck]);

    /// Returns whether it is certain, without a lookup, that no stream has metadata.
    fn knows_no_metadata(&self) -> impl Future<Output = Result<bool, AppendError>> + Send;
}

/// An append as the back end gets it.
pub(super) struct Plan {
    pub(super) append: Append,
    /// Number of events added after the caller's, each in a write of its own.
    pub(super) added: usize,
    /// Streams whose metadata it changes.
    pub(super) changed: Vec<StreamName>,
    /// The assumptions of the plan: if one does not hold, the plan is invalid.
    pub(super) assumed: Vec<StreamCheck>,
    /// What became of the caller's checks, if any of them is about existence.
    pub(super) existence: Option<Box<ExistenceChecks>>,
}

/// The caller's checks as the back end gets them. Rare, and in memory of its own, so that every other append needs less.
pub(super) struct ExistenceChecks {
    checks: Vec<StreamCheck>,
    /// Deleted streams that are checked to exist.
    gone: Vec<StreamName>,
}

impl Plan {
    /// Plans an append in this context, write by write: each write sees its stream after the writes before it.
    pub(super) async fn of(
        ground: &impl AppendContext,
        append: &Append,
        returning: Recreation,
    ) -> Result<Self, AppendError> {
        let mut planning = Planning {
            writes: Cow::Borrowed(append.writes()),
            streams: HashMap::new(),
            added: Vec::new(),
            checks: Vec::new(),
            assumed: Vec::new(),
            changed: Vec::new(),
            existence: None,
            is_single: append.writes().len() == 1,
        };
        if append.checks().iter().any(is_about_existence) {
            // Rare, and in memory of its own, so that every other append needs less.
            Box::pin(planning.check_existence(ground, append)).await?;
        }
        for (nth, write) in append.writes().iter().enumerate() {
            match write.stream.described_stream() {
                Some(described) => {
                    Box::pin(planning.describe(ground, nth, write, described)).await?;
                }
                None => planning.extend(ground, nth, write, returning).await?,
            }
        }
        planning.finish(append).map_err(invalid)
    }

    /// Returns whether the plan was rejected because an assumption did not hold.
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

    /// Returns the conflict for the caller, which knows only its own checks.
    pub(super) fn told(&self, conflict: Conflict) -> Conflict {
        match conflict {
            Conflict::WrongRevision {
                stream, expected, ..
            } if expected == IMPOSSIBLE && self.finds_gone(&stream) => {
                Conflict::StreamDeleted { stream }
            }
            conflict => conflict,
        }
    }

    fn finds_gone(&self, stream: &StreamName) -> bool {
        let existence = self.existence.as_ref();
        existence.is_some_and(|existence| existence.gone.contains(stream))
    }

    /// Returns the outcome for the caller, which knows only its own events.
    pub(super) fn answer(&self, mut appended: Appended) -> Appended {
        let writes = appended.streams.len() - self.added.min(appended.streams.len());
        appended.streams.truncate(writes);
        let last = appended.last.get() - self.added as u64;
        appended.last = Position::new(last);
        appended
    }
}

/// Whether a rejected append is checked for a repetition that recreated streams.
#[derive(Clone, Copy)]
pub(super) enum Recreation {
    No,
    Maybe,
}

/// A stream as the planned writes leave it.
struct PlannedStream {
    /// Its lifecycle before the append.
    lifecycle: Arc<StreamLifecycle>,
    phase: Phase,
    /// The revision below which events were deleted, by the newest metadata.
    deleted_before: Option<Revision>,
    /// The JSON of its newest metadata.
    newest_metadata: Bytes,
    /// Number of events that the writes so far append to it.
    events: u64,
    /// Its newest revision before the append, once that was looked up.
    last: Option<Option<Revision>>,
    /// The metadata event that notes the point of its deletion, unless a later write of the append brings metadata.
    recreation: Option<NewEvent>,
    /// Whether the append writes to its metadata stream.
    is_described: bool,
    /// The tombstone that has to be repeated behind the last event for its metadata stream. Rare, and in memory of its own, so
    /// that every other append needs less.
    after_tombstone: Option<Box<NewEvent>>,
}

impl PlannedStream {
    fn of(lifecycle: Arc<StreamLifecycle>) -> Self {
        Self {
            phase: lifecycle.phase,
            newest_metadata: lifecycle.json.clone(),
            deleted_before: lifecycle.metadata().deleted_before(),
            lifecycle,
            events: 0,
            last: None,
            recreation: None,
            is_described: false,
            after_tombstone: None,
        }
    }

    /// Returns its newest revision as the planned writes leave it.
    async fn last(
        &mut self,
        ground: &impl AppendContext,
        stream: &StreamName,
    ) -> Result<Option<Revision>, AppendError> {
        let before = match self.last {
            Some(before) => before,
            None => *self.last.insert(ground.last_revision(stream).await?),
        };
        let events = before.map_or(0, |last| last.get() + 1) + self.events;
        Ok(events.checked_sub(1).map(Revision::new))
    }

    /// Adds an event for the metadata stream; returns the data that must replace its own.
    ///
    /// An event of another type is metadata without keys. It cannot hold the point of a deletion, so one that can follows it.
    fn take_metadata(&mut self, event: &NewEvent, last: Option<Revision>) -> Option<Bytes> {
        self.after_tombstone = None;
        self.recreation = None;
        if is_tombstone(event.event_type()) {
            self.phase = Phase::Tombstoned;
            return None;
        }
        if self.phase == Phase::Tombstoned {
            self.after_tombstone = tombstone_type()
                .ok()
                .map(|tombstone_type| added(NewEvent::json(tombstone_type, "{}"), event))
                .map(Box::new);
            return None;
        }
        let is_metadata = is_metadata(event.event_type());
        let metadata = match is_metadata {
            true => StreamMetadata::from_json(event.data()),
            false => StreamMetadata::default(),
        };
        if metadata.is_deleted() {
            (self.phase, self.deleted_before) = (Phase::Deleted, None);
            return None;
        }
        let changed = if self.phase == Phase::Deleted {
            let before = last.map_or(Revision::FIRST, Revision::next);
            let shown = metadata.clone().with_truncate_before(before);
            Some(shown.with_deleted_before(before))
        } else {
            metadata.after_deletion(self.deleted_before)
        };
        self.phase = Phase::Live;
        self.deleted_before = changed.as_ref().unwrap_or(&metadata).deleted_before();
        let json = changed?.to_json();
        if is_metadata {
            return Some(json);
        }
        self.recreation = metadata_type()
            .ok()
            .map(|metadata_type| added(NewEvent::json(metadata_type, json), event));
        None
    }
}

/// What no stream has.
const IMPOSSIBLE: ExpectedRevision = ExpectedRevision::Exact(Revision::MAX);

/// Whether a check is about whether a stream is there, which its revisions alone do not say.
fn is_about_existence(check: &StreamCheck) -> bool {
    matches!(
        check.expected,
        ExpectedRevision::NoStream | ExpectedRevision::StreamExists
    )
}

/// A plan in progress.
struct Planning<'a> {
    /// The caller's writes, copied only if one of them must change.
    writes: Cow<'a, [StreamWrite]>,
    /// The streams that are written or described so far; none if there is only one write.
    streams: HashMap<StreamName, PlannedStream>,
    added: Vec<StreamWrite>,
    /// Checks in addition to the caller's.
    checks: Vec<StreamCheck>,
    assumed: Vec<StreamCheck>,
    changed: Vec<StreamName>,
    existence: Option<Box<ExistenceChecks>>,
    /// Whether the append has one write.
    is_single: bool,
}

impl<'a> Planning<'a> {
    /// Returns the stream as the writes so far leave it. The first time, its metadata stream becomes an assumption.
    async fn planned(
        &mut self,
        ground: &impl AppendContext,
        stream: &StreamName,
        metadata_stream: &StreamName,
    ) -> Result<(PlannedStream, bool), AppendError> {
        if let Some(planned) = self.streams.remove(stream) {
            return Ok((planned, false));
        }
        let planned = PlannedStream::of(ground.lifecycle(stream).await?);
        self.assume(metadata_stream, planned.lifecycle.expectation());
        Ok((planned, true))
    }

    /// Replaces checks of existence by what they mean for the back end, which knows of no deletion. They mean what the
    /// expectations of writes mean.
    async fn check_existence(
        &mut self,
        ground: &impl AppendContext,
        append: &Append,
    ) -> Result<(), AppendError> {
        let mut existence = Box::new(ExistenceChecks {
            checks: append.checks().to_vec(),
            gone: Vec::new(),
        });
        let checks = existence.checks.iter_mut();
        for check in checks.filter(|check| is_about_existence(check)) {
            let Some(metadata_stream) = check.stream.metadata_stream() else {
                continue;
            };
            let lifecycle = ground.lifecycle(&check.stream).await?;
            let exists = check.expected == ExpectedRevision::StreamExists;
            match (exists, lifecycle.phase) {
                // If it was deleted meanwhile, its revisions refuse what could pass.
                (false, Phase::Live) => continue,
                (false, Phase::Deleted | Phase::Tombstoned) => {
                    check.expected = ExpectedRevision::Any;
                }
                // A stream that has metadata alone exists, too.
                (true, Phase::Live) if lifecycle.revision.0.is_some() => {
                    check.expected = ExpectedRevision::Any;
                }
                (true, Phase::Live) => {}
                (true, Phase::Deleted | Phase::Tombstoned) => {
                    // Refused only when it is decided, because what is stored already is a repetition.
                    check.expected = IMPOSSIBLE;
                    existence.gone.push(check.stream.clone());
                }
            }
            self.assume(&metadata_stream, lifecycle.expectation());
        }
        self.existence = Some(existence);
        Ok(())
    }

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
        let (mut planned, is_first) = self.planned(ground, stream, &metadata_stream).await?;
        match planned.phase {
            Phase::Tombstoned => return Err(deleted(stream)),
            Phase::Deleted => {
                // Rare, and in memory of its own, so that every other append needs less.
                Box::pin(self.recreate(ground, nth, write, &mut planned)).await?;
            }
            Phase::Live if is_first => {
                let lifecycle = Arc::clone(&planned.lifecycle);
                self.extend_live(nth, write, &lifecycle, returning);
            }
            Phase::Live => {}
        }
        planned.events += write.events.len() as u64;
        self.put(stream, &metadata_stream, planned);
        Ok(())
    }

    /// Plans a write to a deleted stream: the write recreates it behind its old events.
    async fn recreate(
        &mut self,
        ground: &impl AppendContext,
        nth: usize,
        write: &StreamWrite,
        planned: &mut PlannedStream,
    ) -> Result<(), AppendError> {
        if write.expected == ExpectedRevision::StreamExists {
            return Err(deleted(&write.stream));
        }
        let last = planned.last(ground, &write.stream).await?;
        if matches!(
            write.expected,
            ExpectedRevision::Any | ExpectedRevision::NoStream
        ) {
            // A deletion by this append itself holds by the order of its writes.
            let expected = match planned.lifecycle.phase {
                Phase::Deleted => exactly(last),
                Phase::Live | Phase::Tombstoned => ExpectedRevision::Any,
            };
            self.expect_instead(nth, expected);
        }
        if planned.lifecycle.phase != Phase::Deleted {
            self.assume(&write.stream, exactly(planned.last.flatten()));
        }
        let before = last.map_or(Revision::FIRST, Revision::next);
        let metadata = StreamMetadata::from_json(&planned.newest_metadata)
            .with_truncate_before(before)
            .with_deleted_before(before);
        let event = NewEvent::json(metadata_type().map_err(invalid)?, metadata.to_json());
        planned.recreation = Some(match write.events.first() {
            Some(first) => added(event, first),
            None => event,
        });
        (planned.phase, planned.deleted_before) = (Phase::Live, Some(before));
        self.changed.push(write.stream.clone());
        Ok(())
    }

    /// Plans the first write to a stream that is not deleted.
    fn extend_live(
        &mut self,
        nth: usize,
        write: &StreamWrite,
        lifecycle: &StreamLifecycle,
        returning: Recreation,
    ) {
        let exists = write.expected == ExpectedRevision::StreamExists;
        if exists && lifecycle.revision.0.is_some() {
            self.expect_instead(nth, ExpectedRevision::Any);
        }
        let before = lifecycle.metadata().truncate_before();
        if let (Recreation::Maybe, ExpectedRevision::NoStream, Some(before)) =
            (returning, write.expected, before)
            && let Some(last) = before.get().checked_sub(1)
        {
            self.expect_instead(nth, ExpectedRevision::Exact(Revision::new(last)));
            // Only what stands there already is wanted: nothing can pass this.
            self.assume(&write.stream, IMPOSSIBLE);
        }
    }

    /// Plans a write to a metadata stream.
    async fn describe(
        &mut self,
        ground: &impl AppendContext,
        nth: usize,
        write: &'a StreamWrite,
        described: StreamName,
    ) -> Result<(), AppendError> {
        let (mut planned, _) = self.planned(ground, &described, &write.stream).await?;
        planned.is_described = true;
        for (at, event) in write.events.iter().enumerate() {
            if is_metadata(event.event_type()) {
                StreamMetadata::check_size(&described, event.data()).map_err(invalid)?;
            }
            let last = match planned.phase {
                Phase::Deleted => {
                    let last = planned.last(ground, &described).await?;
                    self.assume(&described, exactly(planned.last.flatten()));
                    last
                }
                Phase::Live | Phase::Tombstoned => None,
            };
            let data = planned.take_metadata(event, last);
            if let Some(data) = data.clone() {
                self.replace_data(nth, at, data);
            }
            planned.newest_metadata = match &planned.recreation {
                Some(note) => note.data().clone(),
                None if is_metadata(event.event_type()) => {
                    data.unwrap_or_else(|| event.data().clone())
                }
                None => Bytes::new(),
            };
        }
        self.put(&described, &write.stream, planned);
        self.changed.push(described);
        Ok(())
    }

    /// Keeps a stream for the writes to come; adds what it needs at once if there are none.
    fn put(&mut self, stream: &StreamName, metadata_stream: &StreamName, planned: PlannedStream) {
        if self.is_single {
            self.complete(metadata_stream, planned);
        } else {
            self.streams.insert(stream.clone(), planned);
        }
    }

    /// Adds the events that a stream needs behind those of the caller.
    fn complete(&mut self, metadata_stream: &StreamName, planned: PlannedStream) {
        let expected = match planned.is_described {
            true => ExpectedRevision::Any,
            false => planned.lifecycle.expectation(),
        };
        if let Some(event) = planned.recreation {
            self.add(metadata_stream, expected, event);
        }
        // Metadata may still be noted, but the stream stays tombstoned: its newest metadata event says so.
        if let Some(again) = planned.after_tombstone {
            self.add(metadata_stream, expected, *again);
        }
    }

    fn add(&mut self, stream: &StreamName, expected: ExpectedRevision, event: NewEvent) {
        let event = marked(event, stream);
        self.added.push(StreamWrite {
            stream: stream.clone(),
            expected,
            events: vec![event],
        });
    }

    fn replace_data(&mut self, nth: usize, at: usize, data: Bytes) {
        let write = self.writes.to_mut().get_mut(nth);
        if let Some(event) = write.and_then(|write| write.events.get_mut(at)) {
            *event = event.clone().with_data(data);
        }
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

    fn finish(mut self, append: &Append) -> Result<Plan, ModelError> {
        // In the order of the caller's writes, so that a repetition adds the same events in the same order.
        for write in append.writes() {
            let described = write.stream.described_stream();
            let stream = described.as_ref().unwrap_or(&write.stream);
            if let Some(planned) = self.streams.remove(stream)
                && let Some(metadata_stream) = stream.metadata_stream()
            {
                self.complete(&metadata_stream, planned);
            }
        }
        let added = self.added.len();
        let whole = match self.writes {
            Cow::Borrowed(_) if added == 0 && self.existence.is_none() => append.clone(),
            writes => {
                let mut writes = writes.into_owned();
                writes.extend(self.added);
                let whole = Append::new(writes, append.conditions().to_vec())?;
                let existence = self.existence.as_ref();
                let checks = existence.map_or(append.checks(), |existence| &existence.checks);
                whole.with_checks(checks.iter().cloned())?
            }
        };
        Ok(Plan {
            append: whole.with_checks(self.checks)?,
            added,
            changed: self.changed,
            assumed: self.assumed,
            existence: self.existence,
        })
    }
}

/// An event that is added because of one of the caller's. Its id follows from that event's, so that a repetition adds the
/// same. It has the same time, so that a copy of a log is equal however its events are divided into appends.
fn added(event: NewEvent, because_of: &NewEvent) -> NewEvent {
    let id = EventId::derived(because_of.id(), b"leftfold.stream-life");
    let event = event.with_id(id);
    match because_of.time() {
        Some(time) => event.with_time(time),
        None => event,
    }
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
