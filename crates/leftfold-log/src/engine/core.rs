//! The engine without threads: decides, writes, syncs and publishes groups of appends.
//!
//! **Owns:** [`Core`]: the tail of the log and the state that decides. **Does not know:** threads, queues.
//! **Invariants:** a group is written once and synced once, then published, then answered; what is not synced is not
//! seen by readers, but is seen by later decisions; the first failure of a write or sync latches.

use std::sync::{Arc, PoisonError, RwLock, atomic::Ordering};

use leftfold_model::{Append, Appended, Position, Revision, Timestamp};

use super::{
    error::{AppendError, CloseError},
    shared::{Reader, Shared},
};
use crate::{
    append::{Decider, Decision, Place, Seen},
    clock::Clock,
    disk::{Disk, DiskFile, DiskLock, FileKind, FileName},
    error::StorageError,
    index::{Tail, TermKind, write_term},
    limits::LogOptions,
    planted::{self, Planted},
    read::{View, Views},
    record::{
        Seal,
        event::{self, Placement},
        frame,
        header::SEGMENT_HEADER_BYTES,
    },
    recover::{Marker, OpenError, OpenReport, recover},
    segment::{Locations, Segment, create, locations::Growing},
};

/// Segments that may wait for their files before the writer helps: each holds its index in memory.
const UNSEALED_MAX: usize = 2;

/// An open log, stepped by its caller. [`super::Log`] puts threads around it; simulations drive it directly.
#[derive(Debug)]
pub struct Core {
    shared: Arc<Shared>,
    decider: Decider,
    seal: Seal,
    clock: Arc<dyn Clock>,
    active: Active,
    /// Frames decided and not yet written.
    pending: Vec<u8>,
    waiting: Vec<(usize, Appended)>,
    latched: Option<Arc<StorageError>>,
    report: OpenReport,
    term: Vec<u8>,
    _lock: DiskLock,
}

/// The segment that appends go to.
#[derive(Debug)]
struct Active {
    segment: Arc<Segment>,
    growing: Arc<RwLock<Growing>>,
    file: Arc<dyn DiskFile>,
    tail: Arc<Tail>,
    events: u32,
    /// Offset behind the last frame that was written.
    written: u64,
    capacity: u64,
}

impl Active {
    fn open(
        segment: &Arc<Segment>,
        tail: Arc<Tail>,
        view: &View,
        capacity: u64,
    ) -> Result<Self, StorageError> {
        let growing = match &segment.locations {
            Locations::Memory(growing) => Arc::clone(growing),
            Locations::File(_) => Arc::default(),
        };
        let written = u64::from(segment.locations.end());
        Ok(Self {
            segment: Arc::clone(segment),
            growing,
            file: view.segments.handles.get(&segment.name())?,
            tail,
            events: segment.locations.count(),
            written,
            capacity,
        })
    }
}

impl Core {
    /// Opens the log on this disk, recovering it if need be.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let lock = disk.lock()?;
        let recovered = recover(&disk, &options)?;
        let head = recovered.decider.next.previous();
        let view = View::first(head, recovered.segments, recovered.sources);
        let newest = view.segments.list.last();
        let active = match newest {
            Some(newest) => Active::open(newest, recovered.tail, &view, recovered.capacity)?,
            None => {
                let lock = FileName::of(FileKind::Lock);
                return Err(StorageError::corrupt(&lock, 0, "there is no segment").into());
            }
        };
        debug_assert_eq!(
            active.written, recovered.end,
            "locations end where the scan did"
        );
        Ok(Self {
            seal: Seal::of(recovered.log),
            shared: Arc::new(Shared::new(recovered.log, options, view)),
            decider: recovered.decider,
            clock,
            active,
            pending: Vec::new(),
            waiting: Vec::new(),
            latched: None,
            report: recovered.report,
            term: Vec::new(),
            _lock: lock,
        })
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// Reads what is committed.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Commits a group of appends, in order: each is decided as if those before it were committed, and all that are
    /// allowed share one write and one sync. Answers come in the order of the group.
    pub fn commit(&mut self, group: &[Append]) -> Vec<Result<Appended, AppendError>> {
        let mut answers: Vec<Option<Result<Appended, AppendError>>> =
            group.iter().map(|_| None).collect();
        let time = self.clock.now();
        for (index, append) in group.iter().enumerate() {
            if let Err(error) = self.stage(index, append, time, &mut answers) {
                answer(&mut answers, index, Err(error));
            }
        }
        self.flush(&mut answers);
        let lost = || Err(AppendError::WriterLost);
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(lost))
            .collect()
    }

    /// Decides one append and, if it is allowed, adds its frame to what will be written next.
    fn stage(
        &mut self,
        index: usize,
        append: &Append,
        time: Timestamp,
        answers: &mut [Option<Result<Appended, AppendError>>],
    ) -> Result<(), AppendError> {
        if let Some(cause) = &self.latched {
            return Err(AppendError::ReadOnly {
                cause: Arc::clone(cause),
            });
        }
        let view = self.shared.view();
        let seen = Seen {
            sources: &view.sources,
            segments: &view.segments,
        };
        let decided = self.decider.decide(append, seen);
        let revisions = match decided.map_err(|e| AppendError::Unreadable { cause: Arc::new(e) })? {
            Decision::Write(revisions) => revisions,
            Decision::Refused(conflict) => return Err(conflict.into()),
            Decision::Repeated(appended) => {
                // What it repeats may be part of this very group: it is answered when that is durable.
                self.waiting.push((index, appended));
                return Ok(());
            }
        };
        let frame = self.encode(append, &revisions, time);
        if !self.fits(frame.bytes.len(), append.event_count()) {
            self.flush(answers);
            self.roll(frame.bytes.len())?;
        }
        let appended = self.adopt(append, &revisions, frame);
        self.waiting.push((index, appended));
        Ok(())
    }

    /// The frame of an append, but for its header, and where in it each record begins.
    fn encode(&self, append: &Append, revisions: &[Revision], time: Timestamp) -> Frame {
        let mut frame = Frame {
            bytes: Vec::with_capacity(append.size() + 256),
            records: Vec::new(),
        };
        frame::begin(&mut frame.bytes);
        let mut position = self.decider.next;
        for (write, first) in append.writes().iter().zip(revisions) {
            for (event, nth) in write.events.iter().zip(0..) {
                frame.records.push(frame.bytes.len());
                let (stream, revision) = (&write.stream, first.plus(nth));
                let at = Placement {
                    position,
                    stream,
                    revision,
                    time: event.time().unwrap_or(time),
                };
                event::encode(&mut frame.bytes, self.seal, at, event);
                position = position.next();
            }
        }
        frame
    }

    fn fits(&self, frame_bytes: usize, events: usize) -> bool {
        let end =
            self.active.written + (self.pending.len() + frame_bytes + frame::ALIGNMENT) as u64;
        let count = u64::from(self.active.events) + events as u64;
        end <= self.active.capacity
            && (count <= u64::from(self.shared.options.segment_events) || self.active.events == 0)
    }

    /// Takes an append into the state: from here on decisions see it.
    fn adopt(&mut self, append: &Append, revisions: &[Revision], mut frame: Frame) -> Appended {
        let first = self.decider.next;
        let count = append.event_count();
        let (unsynced, start) = (
            self.pending.len(),
            self.active.written + self.pending.len() as u64,
        );
        let short = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        frame::finish(
            &mut frame.bytes,
            0,
            self.seal,
            first,
            u16::try_from(count).unwrap_or(u16::MAX),
            short(unsynced),
        );
        self.pending.extend_from_slice(&frame.bytes);
        {
            let mut growing = self
                .active
                .growing
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let at = |record: usize| u32::try_from(start + record as u64).unwrap_or(u32::MAX);
            growing.offsets.extend(frame.records.into_iter().map(at));
            growing.end = at(frame.bytes.len());
        }
        self.active.events += short(count);
        let mut position = first;
        let mut streams = Vec::with_capacity(append.writes().len());
        for (write, &revision) in append.writes().iter().zip(revisions) {
            let mut revision = revision;
            for event in &write.events {
                self.index(position, write, revision, event);
                position = position.next();
                revision = revision.next();
            }
            streams.push((
                write.stream.clone(),
                Revision::new(revision.get().saturating_sub(1)),
            ));
        }
        self.decider.next = position;
        Appended {
            first,
            last: position.previous(),
            streams,
            repeated: false,
        }
    }

    fn index(
        &mut self,
        position: Position,
        write: &leftfold_model::StreamWrite,
        revision: Revision,
        event: &leftfold_model::NewEvent,
    ) {
        let (tail, term) = (&self.active.tail, &mut self.term);
        write_term(term, TermKind::Stream, write.stream.as_str());
        tail.add(term, position, revision.get());
        write_term(term, TermKind::Category, write.stream.category_str());
        tail.add(term, position, 0);
        write_term(term, TermKind::Type, event.event_type().as_str());
        tail.add(term, position, 0);
        for tag in event.tags() {
            write_term(term, TermKind::Tag, tag.as_str());
            tail.add(term, position, 0);
        }
        self.decider.recent.push(
            event.id(),
            Place {
                position,
                stream: write.stream.clone(),
                revision,
            },
        );
    }

    /// Writes and syncs what is pending, publishes it, and answers everyone who waits.
    fn flush(&mut self, answers: &mut [Option<Result<Appended, AppendError>>]) {
        let head = self.decider.next.previous();
        if planted::is(Planted::PublishedBeforeSync) {
            self.shared.publish(head);
        }
        let result = self.write_pending();
        if result.is_ok() && self.shared.view().head < head {
            self.shared.publish(head);
        }
        self.shared
            .appends
            .fetch_add(self.waiting.len() as u64, Ordering::Relaxed);
        for (index, appended) in self.waiting.drain(..) {
            let result = match &result {
                Ok(()) => Ok(appended),
                Err(cause) => Err(AppendError::Poisoned {
                    cause: Arc::clone(cause),
                }),
            };
            answer(answers, index, result);
        }
    }

    fn write_pending(&mut self) -> Result<(), Arc<StorageError>> {
        if let Some(cause) = &self.latched {
            // What a failed sync leaves behind is never tried again, not even by a later group.
            return Err(Arc::clone(cause));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let name = self.active.segment.name();
        let written = self
            .active
            .file
            .write_all_at(&self.pending, self.active.written);
        let synced = written
            .map_err(|e| StorageError::io("write", &name, e))
            .and_then(|()| {
                if planted::is(Planted::AckBeforeSync) {
                    return Ok(());
                }
                let mut synced = self.active.file.sync_data();
                if synced.is_err() && planted::is(Planted::FailedSyncRetried) {
                    synced = self.active.file.sync_data();
                }
                synced.map_err(|e| StorageError::io("sync", &name, e))
            });
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        match synced {
            Ok(()) => {
                self.active.written += self.pending.len() as u64;
                self.pending.clear();
                Ok(())
            }
            Err(error) => {
                let cause = Arc::new(error);
                self.latched = Some(Arc::clone(&cause));
                self.pending.clear();
                Err(cause)
            }
        }
    }

    /// Starts the next segment. Nothing of the append that needs it has been adopted.
    fn roll(&mut self, frame_bytes: usize) -> Result<(), AppendError> {
        if let Some(cause) = &self.latched {
            return Err(AppendError::ReadOnly {
                cause: Arc::clone(cause),
            });
        }
        if self.active.events == 0 {
            return self.grow(frame_bytes).map_err(|error| self.refuse(error));
        }
        while self.shared.unsealed() >= UNSEALED_MAX {
            self.shared.upkeep().map_err(|error| self.refuse(error))?;
        }
        self.start_segment(frame_bytes)
            .map_err(|error| self.refuse(error))
    }

    fn start_segment(&mut self, frame_bytes: usize) -> Result<(), StorageError> {
        let view = self.shared.view();
        let needed = (SEGMENT_HEADER_BYTES + frame_bytes + frame::ALIGNMENT) as u64;
        let capacity = self
            .shared
            .options
            .bytes_of_segment(view.segments.list.len())
            .max(needed);
        let first = self.decider.next;
        let disk = view.segments.handles.disk().as_ref();
        let log = self.shared.log;
        let create = |spare| create::segment(disk, log, (first, 0), capacity, spare);
        self.shared.with_spare(capacity, create)?;
        let end = u32::try_from(SEGMENT_HEADER_BYTES).unwrap_or(u32::MAX);
        let growing = Growing {
            offsets: Vec::new(),
            end,
        };
        let locations = Locations::Memory(Arc::new(RwLock::new(growing)));
        let segment = Arc::new(Segment {
            first,
            generation: 0,
            locations,
        });
        let tail = Arc::new(Tail::new(first));
        self.active = Active::open(&segment, Arc::clone(&tail), &view, capacity)?;
        self.shared.add_segment(segment, tail);
        Ok(())
    }

    /// Lengthens an empty segment for an append that is larger than it.
    fn grow(&mut self, frame_bytes: usize) -> Result<(), StorageError> {
        let needed = (SEGMENT_HEADER_BYTES + frame_bytes + frame::ALIGNMENT) as u64;
        let name = self.active.segment.name();
        create::lengthen(
            self.active.file.as_ref(),
            &name,
            self.active.capacity,
            needed,
        )?;
        self.active.capacity = needed;
        Ok(())
    }

    /// Sorts a failure to make room: a full disk passes, anything else is not trusted again.
    fn refuse(&mut self, error: StorageError) -> AppendError {
        let full = matches!(&error, StorageError::Io { source, .. }
            if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded));
        let cause = Arc::new(error);
        if full {
            return AppendError::DiskFull { cause };
        }
        self.latched = Some(Arc::clone(&cause));
        AppendError::ReadOnly { cause }
    }

    /// Does one step of upkeep. `false`: there was nothing to do.
    ///
    /// # Errors
    /// What the disk reported; the log itself is not affected.
    pub fn maintain(&mut self) -> Result<bool, StorageError> {
        self.shared.upkeep()
    }

    /// Stops cleanly, so that the next open need not recover.
    ///
    /// # Errors
    /// [`CloseError`]; everything acknowledged is safe anyway.
    pub fn close(self) -> Result<(), CloseError> {
        self.shared.close();
        if let Some(cause) = self.latched {
            return Err(CloseError::ReadOnly { cause });
        }
        let _no_more_upkeep = self.shared.pause_upkeep();
        let marker = Marker {
            first: self.active.segment.first,
            generation: self.active.segment.generation,
            end: self.active.written,
            next: self.decider.next,
        };
        let view = self.shared.view();
        Ok(marker.write(view.segments.handles.disk().as_ref(), self.shared.log)?)
    }
}

/// A frame under construction.
struct Frame {
    bytes: Vec<u8>,
    records: Vec<usize>,
}

fn answer(
    answers: &mut [Option<Result<Appended, AppendError>>],
    index: usize,
    result: Result<Appended, AppendError>,
) {
    if let Some(place) = answers.get_mut(index) {
        *place = Some(result);
    }
}
