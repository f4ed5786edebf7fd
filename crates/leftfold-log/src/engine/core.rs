//! The engine without threads: decides appends, collects them in groups, records how groups end.
//!
//! **Owns:** [`Core`]: the active segment and the state that decides. **Does not know:** threads, queues.
//! **Invariants:**
//! - Groups are written in the order in which they were taken, each once, and each after the sync of the one before it.
//! - Readers do not see unsynced events; later decisions do.
//! - The first failed write or sync poisons the log.
//! - A segment starts only when everything before it is durable.

use std::sync::{Arc, atomic::Ordering};

use leftfold_model::{Append, Appended, NewEvent, Position, Revision, StreamWrite};

use super::{
    active_segment::{self, ActiveSegment},
    error::{AppendError, CloseError},
    group::{self, Group, GroupCompletion, GroupError, Outcome},
    reader::Reader,
    shared::EngineState,
    shared_directory::SharedDirectory,
};
use crate::{
    append::{AppendValidator, Decision, LogSnapshot, PreparedLookups},
    clock::Clock,
    disk::{Disk, DiskLock, FileKind, FileName, read_only::read_only},
    error::StorageError,
    index::{MemIndex, TermKind, write_term},
    limits::LogOptions,
    planted::{self, Planted},
    read::{View, ViewSource},
    record::{
        Checksum,
        event::{self, Placement},
        frame,
        names::NameEncoder,
    },
    recover::{Inventory, Marker, OpenError, OpenReport, recover},
    segment::create,
};

/// Events in the newest segment from which on closing the log seals it: an open reads about a million a second.
const SEALED_AT_CLOSE: u32 = 16_384;

/// An open log, stepped by its caller. [`super::Log`] puts threads around it; simulations drive it directly.
#[derive(Debug)]
pub struct Core {
    shared: Arc<EngineState>,
    decider: AppendValidator,
    seal: Checksum,
    clock: Arc<dyn Clock>,
    active: ActiveSegment,
    /// The group of staged appends that no thread has taken yet.
    group: Group,
    /// Memory of the group written last, for the next one.
    spare_buffer: Vec<u8>,
    latched: Option<Arc<StorageError>>,
    /// Whether the disk keeps nothing, so that there is nothing to stop.
    is_read_only: bool,
    /// Whether the marker of an earlier clean stop is still there.
    marked: bool,
    report: OpenReport,
    /// Scratch: the term that is indexed, and where the records of the frame that is encoded begin.
    term: Vec<u8>,
    records: Vec<usize>,
    /// Names in the newest segment that records can refer to.
    names: NameEncoder,
    /// `None` once the caller has it, who outlives every thread.
    lock: Option<DiskLock>,
}

impl Core {
    /// Opens the log on this disk, recovering it if necessary.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        // A directory of other things is refused before the lock's file is made in it.
        let inventory = Inventory::of(disk.as_ref())?;
        if disk.is_read_only() && inventory.is_empty() {
            return Err(OpenError::NoLog);
        }
        let lock = disk.lock()?;
        let disk: Arc<dyn Disk> = Arc::new(SharedDirectory::over(disk));
        let recovered = recover(&disk, &options)?;
        let is_read_only = disk.is_read_only();
        let head = recovered.decider.next.previous();
        let view = View {
            head,
            segments: recovered.segments,
            sources: recovered.sources,
        };
        let newest = view.segments.list.last();
        let active = match newest {
            Some(newest) => {
                let file = newest.file(&view.segments.handles)?;
                ActiveSegment::new(newest, recovered.tail, file, recovered.capacity)
            }
            None => {
                let name = FileName::of(FileKind::Lock);
                return Err(StorageError::corrupt(&name, 0, "there is no segment").into());
            }
        };
        debug_assert_eq!(
            active.written, recovered.end,
            "locations end where the scan did"
        );
        Ok(Self {
            seal: Checksum::of(recovered.log),
            shared: Arc::new(EngineState::new(recovered.log, options, view)),
            decider: recovered.decider,
            clock,
            active,
            group: Group::default(),
            spare_buffer: Vec::new(),
            latched: is_read_only.then(|| Arc::new(StorageError::directory("write", read_only()))),
            is_read_only,
            marked: recovered.marked,
            report: recovered.report,
            term: Vec::new(),
            records: Vec::new(),
            names: NameEncoder::default(),
            lock: Some(lock),
        })
    }

    /// Returns the lock of the directory. The caller keeps it until no thread uses the files any more.
    pub(crate) fn take_lock(&mut self) -> Option<DiskLock> {
        self.lock.take()
    }

    /// Returns what opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Returns a reader of the committed events.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<EngineState> {
        &self.shared
    }

    /// Commits appends, in order: each is decided as if those before it were committed, and all that are allowed
    /// share one write and one sync. Answers come in the order of the appends.
    pub fn commit(&mut self, appends: &[Append]) -> Vec<Result<Appended, AppendError>> {
        let mut answers: Vec<Option<Outcome>> = appends.iter().map(|_| None).collect();
        let mut waiting = Vec::new();
        // As callers do that wait for their turn: what is looked up may be old when it is used.
        let (view, decided) = (self.shared.view(), self.decided());
        let seen = LogSnapshot {
            sources: &view.sources,
            segments: &view.segments,
        };
        let prepared = appends
            .iter()
            .map(|append| PreparedLookups::of(append, seen, view.head, decided));
        let prepared: Vec<_> = prepared.collect();
        for (index, (append, prepared)) in appends.iter().zip(&prepared).enumerate() {
            let staged = loop {
                match self.stage(append, prepared.as_ref()) {
                    Ok(Staged::NeedsRoom(bytes)) => {
                        self.flush(&mut waiting, &mut answers);
                        if let Err(error) = self.roll(bytes) {
                            break Err(error);
                        }
                    }
                    staged => break staged,
                }
            };
            match staged {
                Ok(Staged::Waits(outcome)) => waiting.push((index, self.group.join(), outcome)),
                Ok(Staged::Settled(outcome)) => answer(&mut answers, index, outcome),
                Ok(Staged::NeedsRoom(_)) => answer(&mut answers, index, Err(AppendError::Busy)),
                Err(error) => answer(&mut answers, index, Err(error)),
            }
        }
        self.flush(&mut waiting, &mut answers);
        let lost = || Err(AppendError::WriterLost);
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(lost))
            .collect()
    }

    fn flush(
        &mut self,
        waiting: &mut Vec<(usize, Arc<GroupCompletion>, Outcome)>,
        answers: &mut [Option<Outcome>],
    ) {
        if let Some((mut group, latched)) = self.take_group() {
            let end = latched.map_or_else(|| group.write(&self.shared), Err);
            self.settle(&mut group, &end);
            group.finish(end);
        }
        for (index, done, outcome) in waiting.drain(..) {
            answer(answers, index, done.wait(outcome));
        }
    }

    /// Decides one append and, if it is allowed, adds its frame to the group that is written next. What was looked up
    /// before (`prepared`) is used if it still holds.
    ///
    /// # Errors
    /// Certainly nothing was added.
    pub(crate) fn stage(
        &mut self,
        append: &Append,
        prepared: Option<&PreparedLookups>,
    ) -> Result<Staged, AppendError> {
        if let Some(cause) = &self.latched {
            return Err(self.refuse_latched(append, Arc::clone(cause)));
        }
        let view = self.shared.view();
        let all_durable = view.head == self.decider.next.previous();
        let seen = LogSnapshot {
            sources: &view.sources,
            segments: &view.segments,
        };
        let decided = self.decider.decide(append, prepared, seen);
        let outcome = match decided.map_err(|e| AppendError::Unreadable { cause: Arc::new(e) })? {
            Decision::Write(revisions) => {
                self.remove_clean_marker()?;
                let frame_bytes = self.encode(append, &revisions);
                let events_max = self.shared.options.segment_events;
                let group_bytes = self.group.bytes.len();
                if !self
                    .active
                    .fits(group_bytes, append.event_count(), events_max)
                {
                    self.group.bytes.truncate(group_bytes - frame_bytes);
                    if !planted::is(Planted::NamesKeptAtRoll) {
                        self.names.clear();
                    }
                    return Ok(Staged::NeedsRoom(frame_bytes));
                }
                return Ok(Staged::Waits(Ok(self.apply(append, &revisions))));
            }
            Decision::Refused(conflict) => Err(conflict.into()),
            Decision::Repeated(appended) => Ok(appended),
        };
        // What it rests on may not be durable yet: then it is answered when that is.
        Ok(
            if all_durable || planted::is(Planted::AnsweredBeforeDurable) {
                Staged::Settled(outcome)
            } else {
                Staged::Waits(outcome)
            },
        )
    }

    /// Removes the marker of an earlier clean stop before anything is written.
    fn remove_clean_marker(&mut self) -> Result<(), AppendError> {
        if self.marked && !planted::is(Planted::MarkerBelieved) {
            let view = self.shared.view();
            let removed = Marker::remove(view.segments.handles.disk().as_ref());
            removed.map_err(|error| self.refuse(error))?;
            self.marked = false;
        }
        Ok(())
    }

    /// Returns the group of staged appends.
    pub(crate) fn group(&mut self) -> &mut Group {
        &mut self.group
    }

    /// Returns the newest decided position.
    pub(crate) fn decided(&self) -> Position {
        self.decider.next.previous()
    }

    /// Returns the number of events that are decided and not known to be durable.
    pub(crate) fn unsynced_events(&self) -> u64 {
        let newest = self.decider.next.previous().get();
        newest.saturating_sub(self.shared.view().head.get())
    }

    /// Takes the group of staged appends, which the caller must write; `None` if it is empty. If the disk has failed before,
    /// the group must not be written, and the error says why.
    pub(crate) fn take_group(&mut self) -> Option<(Group, Option<GroupError>)> {
        if self.group.is_empty() {
            return None;
        }
        let touched = self.shared.notifier.touched();
        let next = Group::reusing(std::mem::take(&mut self.spare_buffer), touched);
        let mut group = std::mem::replace(&mut self.group, next);
        group.set_target(group::WriteTarget {
            file: Arc::clone(&self.active.file),
            name: self.active.segment.name(),
            at: self.active.written,
            head: self.decider.next.previous(),
        });
        self.active.written += group.bytes.len() as u64;
        Some((group, self.latched.clone().map(GroupError::NotWritten)))
    }

    /// Records how the write of a group ended. After a failed sync, nothing of it is written again.
    pub(crate) fn settle(&mut self, group: &mut Group, end: &Result<(), GroupError>) {
        self.spare_buffer = group.take_bytes();
        if let Err(GroupError::Failed(cause)) = end {
            self.latched = Some(Arc::clone(cause));
        }
    }

    /// Encodes the frame of an append into the group, and records where each record begins. Returns its size.
    fn encode(&mut self, append: &Append, revisions: &[Revision]) -> usize {
        let time = self.clock.now();
        let bytes = &mut self.group.bytes;
        bytes.reserve(append.size() + 128 * append.event_count());
        let unsynced = bytes.len();
        let start = frame::begin(bytes);
        self.records.clear();
        let mut position = self.decider.next;
        for (write, first) in append.writes().iter().zip(revisions) {
            for (event, nth) in write.events.iter().zip(0..) {
                self.records.push(bytes.len());
                let at = Placement {
                    position,
                    stream: &write.stream,
                    revision: first.saturating_add(nth),
                    time: event.time().unwrap_or(time),
                };
                let naming = self.names.naming(position, &write.stream, event);
                event::encode(bytes, self.seal, at, event, &naming);
                position = position.next();
            }
        }
        let count = u16::try_from(append.event_count()).unwrap_or(u16::MAX);
        let first = self.decider.next;
        frame::finish(bytes, start, self.seal, first, count, short(unsynced));
        bytes.len() - start
    }

    /// Applies an append, whose frame is the group's last, to the state: later decisions see it.
    fn apply(&mut self, append: &Append, revisions: &[Revision]) -> Appended {
        let first = self.decider.next;
        self.active.add(&self.records, self.group.bytes.len());
        let mut position = first;
        let mut streams = Vec::with_capacity(append.writes().len());
        for (write, &revision) in append.writes().iter().zip(revisions) {
            self.index(position, write, revision);
            let count = write.events.len() as u64;
            position = position.saturating_add(count);
            let last = Revision::new((revision.get() + count).saturating_sub(1));
            streams.push((write.stream.clone(), last));
        }
        self.decider.next = position;
        // Stored after the index: a thread that loads this number finds the events in the index.
        let decided = position.previous().get();
        self.shared.decided.store(decided, Ordering::Release);
        Appended {
            first,
            last: position.previous(),
            streams,
            repeated: false,
        }
    }

    /// Adds the events of a write to the index, neighbours that share a type and tags at once.
    fn index(&mut self, first: Position, write: &StreamWrite, revision: Revision) {
        let (index, term) = (&self.active.index, &mut self.term);
        let (notifier, touched) = (&self.shared.notifier, &mut self.group.touched);
        let mut add = |kind, name: &str, first, count, base| {
            write_term(term, kind, name);
            index.add_run(term, first, count, base);
            notifier.touch(touched, term);
        };
        let count = short(write.events.len());
        let stream = &write.stream;
        add(
            TermKind::Stream,
            stream.as_str(),
            first,
            count,
            revision.get(),
        );
        add(TermKind::Category, stream.category_str(), first, count, 0);
        let alike =
            |a: &NewEvent, b: &NewEvent| a.event_type() == b.event_type() && a.tags() == b.tags();
        let mut position = first;
        for run in write.events.chunk_by(alike) {
            let Some(event) = run.first() else { continue };
            let count = short(run.len());
            let event_type = event.event_type().as_str();
            add(TermKind::Type, event_type, position, count, 0);
            for tag in event.tags() {
                add(TermKind::Tag, tag.as_str(), position, count, 0);
            }
            position = position.saturating_add(u64::from(count));
        }
        let ids = write.events.iter().map(NewEvent::id);
        self.decider
            .recent
            .push(first, &write.stream, revision, ids);
    }

    /// Starts the next segment. No append may be staged and no write in progress.
    pub(crate) fn roll(&mut self, frame_bytes: usize) -> Result<(), AppendError> {
        if let Some(cause) = &self.latched {
            return Err(AppendError::ReadOnly {
                cause: Arc::clone(cause),
            });
        }
        let segments = self.shared.view().segments.list.len();
        let planned = self
            .shared
            .options
            .bytes_of_segment(segments.saturating_sub(1));
        if self.active.events == 0 || self.active.capacity < planned {
            let grown = self.active.grow(planned, frame_bytes);
            return grown.map_err(|error| self.refuse(error));
        }
        while self.shared.should_stall_writes() {
            let maintained = self.shared.maintain();
            maintained.map_err(|error| self.refuse_behind(error))?;
        }
        self.start_segment(frame_bytes)
            .map_err(|error| self.refuse(error))
    }

    /// Why the log takes no changes, if it does not.
    pub(crate) fn latched(&self) -> Option<&Arc<StorageError>> {
        self.latched.as_ref()
    }

    /// Starts the next segment if the newest one has events. No append may be staged and no write in progress.
    pub(crate) fn seal_newest(&mut self) -> Result<(), AppendError> {
        if let Some(cause) = &self.latched {
            let cause = Arc::clone(cause);
            return Err(AppendError::ReadOnly { cause });
        }
        if self.active.events == 0 {
            return Ok(());
        }
        self.remove_clean_marker()?;
        self.start_segment(0).map_err(|error| self.refuse(error))
    }

    fn start_segment(&mut self, frame_bytes: usize) -> Result<(), StorageError> {
        let view = self.shared.view();
        let planned = self
            .shared
            .options
            .bytes_of_segment(view.segments.list.len());
        let capacity = planned.max(active_segment::bytes_for(frame_bytes));
        let first = self.decider.next;
        let files = &view.segments.handles;
        let log = self.shared.log;
        let create = |spare| create::segment(files, log, (first, 0), capacity, spare);
        let file = self.shared.with_spare(capacity, create)?;
        let segment = active_segment::empty(log, first);
        let index = Arc::new(MemIndex::new(first));
        if !planted::is(Planted::NamesKeptAtRoll) {
            self.names.clear();
        }
        view.segments
            .handles
            .insert(segment.name(), Arc::clone(&file));
        self.active = ActiveSegment::new(&segment, Arc::clone(&index), file, capacity);
        self.shared.add_segment(segment, index);
        Ok(())
    }

    /// Returns the error of an append to a poisoned log. If an event of it is in a group that failed, an earlier attempt may
    /// have stored it.
    fn refuse_latched(&self, append: &Append, cause: Arc<StorageError>) -> AppendError {
        let head = self.shared.view().head;
        let mut events = append.writes().iter().flat_map(|write| &write.events);
        let may_be_stored = events.any(|event| {
            let found = self.decider.recent.find(event.id());
            found.is_some_and(|found| found.position > head)
        });
        if may_be_stored {
            AppendError::Poisoned { cause }
        } else {
            AppendError::ReadOnly { cause }
        }
    }

    /// Classifies a failure to start a segment. A full disk and a lack of descriptors may pass and have changed nothing; any
    /// other failure poisons the log.
    fn refuse(&mut self, error: StorageError) -> AppendError {
        let (is_full, is_exhausted) = (error.is_full(), error.is_out_of_descriptors());
        let cause = Arc::new(error);
        if is_full {
            return AppendError::DiskFull { cause };
        }
        if is_exhausted {
            return AppendError::OutOfDescriptors { cause };
        }
        self.latched = Some(Arc::clone(&cause));
        AppendError::ReadOnly { cause }
    }

    /// Classifies a failure of the maintenance that an append waits for. One about a derived file changed nothing of the log.
    fn refuse_behind(&mut self, error: StorageError) -> AppendError {
        let passes = error.is_full() || error.is_out_of_descriptors();
        if error.is_of_derived_file() && !passes {
            let cause = Arc::new(error);
            return AppendError::IndexesBehind { cause };
        }
        self.refuse(error)
    }

    /// Does one step of maintenance; `false` if there was nothing to do.
    ///
    /// # Errors
    /// What the disk reported; the log itself is not affected.
    pub fn maintain(&mut self) -> Result<bool, StorageError> {
        Ok(self.shared.maintain()?
            || self.shared.merge_indexes(false)?
            || self.shared.merge_indexes(true)?)
    }

    /// Closes the log cleanly, so that the next open need not recover. A newest segment of many events is sealed, so
    /// that the next open need not read it. Files are truncated after their last event, which frees the reserved space.
    ///
    /// # Errors
    /// [`CloseError`]; acknowledged events are safe in any case.
    pub fn close(mut self) -> Result<(), CloseError> {
        self.shared.close();
        self.shared.stop_scavenging();
        if self.is_read_only {
            return Ok(());
        }
        if let Some(cause) = self.latched {
            return Err(CloseError::ReadOnly { cause });
        }
        let many = (self.shared.options.segment_events / 2).clamp(1, SEALED_AT_CLOSE);
        if self.active.events >= many && self.start_segment(0).is_ok() {
            // What cannot be sealed now is sealed by the next open.
            let _ = self.shared.seal_all();
        }
        let _no_more_maintenance = self.shared.lock_maintenance();
        self.shared.remove_spare();
        self.active.trim_preallocation()?;
        let marker = Marker {
            first: self.active.segment.first,
            generation: self.active.segment.generation,
            end: self.active.written,
            next: self.decider.next,
        };
        let view = self.shared.view();
        Ok(marker.write(&view.segments.handles, self.shared.log)?)
    }
}

/// The result of staging an append.
#[derive(Debug)]
pub(crate) enum Staged {
    /// The outcome once the group is durable; the caller joins the group.
    Waits(Outcome),
    /// The outcome, final already.
    Settled(Outcome),
    /// Nothing yet: it needs a new segment for a frame of this many bytes ([`Core::roll`]); then stage it again.
    NeedsRoom(usize),
}

fn short(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn answer(answers: &mut [Option<Outcome>], index: usize, result: Outcome) {
    if let Some(place) = answers.get_mut(index) {
        *place = Some(result);
    }
}
