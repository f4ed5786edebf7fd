//! What the writer, the readers and the upkeep share.
//!
//! **Owns:** [`EngineState`]: the published view and how it changes; upkeep steps; [`Reader`].
//! **Does not know:** appends. **Invariants:** the view changes under one small lock and is read without any; sealing and
//! joining each hold their own lock, so two of a kind never meet; sealing only adds files behind those that are joined;
//! files are removed only after no new view names them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use leftfold_model::{CurrentRevision, Position, Query, Read, Revision, Scope, StreamName};

use crate::{
    disk::{FileKind, FileName},
    error::StorageError,
    index::{IndexFile, IndexSnapshot, MemIndex, Term, merge_due},
    limits::LogOptions,
    maintenance, nowait,
    read::{
        CommitNotifier, Cursor, FirstBatch, Follower, ReadError, Streams, TouchedTerms, View,
        ViewSource,
    },
    record::LogId,
    segment::{Locations, Segment, Segments, create},
};

use super::scavenge::ScavengeControl;

/// Memory of the indexes of segments that wait for their files, about.
const TAILS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Segments that may wait for their files.
const TAILS_MAX: usize = 32;
/// What upkeep may owe before the writer does it: all of the memory.
const OWED_MAX: usize = 1_000;

/// Writes of more bytes per sync gain nothing from zeros written before.
const SMALL_SYNC_BYTES: u64 = 32 * 1024;

/// State that several threads see.
#[derive(Debug)]
pub(crate) struct EngineState {
    pub(crate) log: LogId,
    pub(crate) options: LogOptions,
    view: ArcSwap<View>,
    change: Mutex<()>,
    /// Who seals, and who joins: the one must not wait for the other, which may take long.
    upkeep: Mutex<()>,
    joining: Mutex<()>,
    /// The file that becomes the next segment, if it is prepared.
    spare: Mutex<Option<create::PreallocatedSegment>>,
    pub(super) scavenging: ScavengeControl,
    pub(crate) wakes: Arc<CommitNotifier>,
    closed: AtomicBool,
    /// Whether what takes long is to be given up.
    stopping: AtomicBool,
    pub(crate) syncs: AtomicU64,
    /// Bytes written by those syncs.
    pub(crate) bytes: AtomicU64,
    pub(crate) appends: AtomicU64,
}

impl EngineState {
    pub(crate) fn new(log: LogId, options: LogOptions, view: View) -> Self {
        Self {
            log,
            options,
            view: ArcSwap::from_pointee(view),
            change: Mutex::default(),
            upkeep: Mutex::default(),
            joining: Mutex::default(),
            spare: Mutex::default(),
            scavenging: ScavengeControl::default(),
            wakes: Arc::default(),
            closed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            appends: AtomicU64::new(0),
        }
    }

    /// Replaces the view by a changed one.
    pub(super) fn change(&self, change: impl FnOnce(&mut View)) {
        let _guard = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&self.view.load());
        change(&mut view);
        self.view.store(Arc::new(view));
    }

    /// Shows readers everything up to `head`, and wakes those who wait for what is new.
    pub(crate) fn publish(&self, head: Position, touched: &TouchedTerms) {
        self.change(|view| view.head = head);
        self.wakes.wake(touched);
    }

    /// Adds the segment that appends go to from now on.
    pub(crate) fn add_segment(&self, segment: Arc<Segment>, tail: Arc<MemIndex>) {
        self.change(|view| {
            view.segments.list = view
                .segments
                .list
                .iter()
                .cloned()
                .chain([segment])
                .collect();
            view.sources.tails = view.sources.tails.iter().cloned().chain([tail]).collect();
        });
    }

    /// Gives `create` the prepared file, if there is one of this many bytes. Meanwhile no other becomes the spare.
    pub(crate) fn with_spare<R>(
        &self,
        bytes: u64,
        create: impl FnOnce(Option<create::PreallocatedSegment>) -> R,
    ) -> R {
        let mut spare = self.spare();
        let fitting = spare.take_if(|spare| spare.bytes == bytes);
        create(fitting)
    }

    fn spare(&self) -> MutexGuard<'_, Option<create::PreallocatedSegment>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many segments wait for their index files that the writer has to help.
    pub(crate) fn should_stall_writes(&self) -> bool {
        self.maintenance_backlog() >= OWED_MAX
    }

    /// How much of the memory for indexes that wait for their files is in use, in thousandths.
    pub(crate) fn maintenance_backlog(&self) -> usize {
        let view = self.view.load();
        let waiting = view.sources.tails.len().saturating_sub(1);
        if waiting == 0 {
            return 0;
        }
        let bytes: usize = view.sources.tails.iter().map(|tail| tail.bytes()).sum();
        (bytes / (TAILS_BYTES_MAX / OWED_MAX)).max(waiting * OWED_MAX / TAILS_MAX)
    }

    /// Lets joins that are under way be given up.
    pub(crate) fn cancel_merges(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wakes.wake_all();
    }

    /// Takes the upkeep for the caller; readers and the writer are not disturbed.
    pub(crate) fn lock_maintenance(&self) -> MutexGuard<'_, ()> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one step of the upkeep that appends may have to wait for, the most urgent one. `false`: there was nothing
    /// to do.
    pub(crate) fn upkeep(&self) -> Result<bool, StorageError> {
        let _one_at_a_time = self.lock_maintenance();
        Ok(self.prepare_spare()? || self.seal_oldest()? || self.fill_spare()?)
    }

    /// Joins index files, if it is time; with time to spare (`idle`), more of them. `false`: there was nothing to do.
    pub(crate) fn merge_indexes(&self, idle: bool) -> Result<bool, StorageError> {
        let _one_at_a_time = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        self.join_indexes(idle)
    }

    /// Seals every segment but the newest.
    pub(crate) fn seal_all(&self) -> Result<(), StorageError> {
        let _one_at_a_time = self.lock_maintenance();
        while self.seal_oldest()? {}
        Ok(())
    }

    /// Gives back the room of the spare. The next open would remove it, too.
    pub(crate) fn remove_spare(&self) {
        if self.spare().take().is_some() {
            let view = self.view();
            let disk = view.segments.handles.disk();
            let _ = disk.remove(&FileName::of(FileKind::Spare));
        }
    }

    fn prepare_spare(&self) -> Result<bool, StorageError> {
        let view = self.view();
        let bytes = self.options.bytes_of_segment(view.segments.list.len());
        let mut spare = self.spare();
        if spare.as_ref().is_some_and(|spare| spare.bytes == bytes) {
            return Ok(false);
        }
        *spare = None;
        *spare = Some(create::PreallocatedSegment::prepare(
            view.segments.handles.disk().as_ref(),
            bytes,
        )?);
        Ok(true)
    }

    /// Whether syncs are so small that what they write matters less than what else they change.
    fn syncs_are_small(&self) -> bool {
        let syncs = self.syncs.load(Ordering::Relaxed);
        syncs > 0 && self.bytes.load(Ordering::Relaxed) / syncs < SMALL_SYNC_BYTES
    }

    /// Writes zeros into the spare; who needs it meanwhile waits for one write, and takes it as it is.
    fn fill_spare(&self) -> Result<bool, StorageError> {
        match self.spare().as_mut() {
            Some(spare) if self.syncs_are_small() => spare.fill(),
            _ => Ok(false),
        }
    }

    fn seal_oldest(&self) -> Result<bool, StorageError> {
        let view = self.view();
        let ([tail, _, ..], handles) = (&*view.sources.tails, &view.segments.handles) else {
            return Ok(false);
        };
        let index = view
            .segments
            .list
            .partition_point(|segment| segment.first < tail.first());
        let Some(segment) = view.segments.list.get(index) else {
            return Ok(false);
        };
        let sealed = match segment.locations {
            Locations::Memory(_) => maintenance::seal(handles, self.log, segment)?,
            Locations::File(_) => Arc::clone(segment),
        };
        let frozen = maintenance::flush_index(handles, self.log, &sealed, tail)?;
        // Who looks at an older view finds the way when scavenging takes the files.
        segment.replace(Arc::clone(&sealed));
        self.change(|view| {
            let same = |other: &Arc<Segment>| {
                if other.first == sealed.first {
                    &sealed
                } else {
                    other
                }
                .clone()
            };
            view.segments.list = view.segments.list.iter().map(same).collect();
            view.sources.frozen = view
                .sources
                .frozen
                .iter()
                .cloned()
                .chain([frozen])
                .collect();
            view.sources.tails = view.sources.tails.iter().skip(1).cloned().collect();
        });
        let tail = Arc::clone(tail);
        drop(view);
        drop_off_hot_path(tail);
        Ok(true)
    }

    fn join_indexes(&self, idle: bool) -> Result<bool, StorageError> {
        let view = self.view();
        let covered = |frozen: &Arc<IndexFile>| frozen.last().next().get() - frozen.first().get();
        let covered: Vec<u64> = view.sources.frozen.iter().map(covered).collect();
        let Some(run) = merge_due(&covered, idle) else {
            return Ok(false);
        };
        let parts: Vec<Arc<IndexFile>> = view
            .sources
            .frozen
            .get(run.clone())
            .unwrap_or_default()
            .to_vec();
        let handles = &view.segments.handles;
        let Some(joined) =
            maintenance::merge_indexes(handles, self.log, &parts, &|| !self.is_stopping())?
        else {
            return Ok(false);
        };
        self.change(|view| {
            let mut frozen = view.sources.frozen.to_vec();
            frozen.splice(run, [joined]);
            view.sources.frozen = frozen.into();
        });
        maintenance::remove_merged(handles.disk().as_ref(), &parts)?;
        Ok(true)
    }
}

/// Frees the memory of a tail on this thread, if nobody looks at it for long: it is much, and neither a writer nor
/// a reader should spend the time.
fn drop_off_hot_path(tail: Arc<MemIndex>) {
    for _ in 0..1_000 {
        if Arc::strong_count(&tail) == 1 {
            break;
        }
        std::thread::yield_now();
    }
    drop(tail);
}

impl ViewSource for EngineState {
    fn view(&self) -> Arc<View> {
        self.view.load_full()
    }
    fn wakes(&self) -> &Arc<CommitNotifier> {
        &self.wakes
    }
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl View {
    /// The first view of an opened log.
    pub(crate) fn first(head: Position, segments: Segments, sources: IndexSnapshot) -> Self {
        Self {
            head,
            segments,
            sources,
        }
    }
}

/// Reads a log. Cheap to clone; every clone sees the newest commits.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<EngineState>,
}

impl Reader {
    /// Begins a read of the log as it is now.
    ///
    /// # Errors
    /// [`ReadError`] if the request contradicts itself or the index cannot be read.
    pub fn read(&self, read: &Read) -> Result<Cursor, ReadError> {
        Cursor::over(self.shared.view(), read)
    }

    /// Begins a read and takes its first events (64 and 64 KiB at most; `None` if there are none), unless that would have
    /// to wait for the disk or take long: then there is no result, and it is to be done by [`Self::read`] where waiting does
    /// no harm. For threads that have others to serve; takes well under a millisecond.
    ///
    /// # Errors
    /// As [`Self::read`] and [`Cursor::next_batch`].
    pub fn read_nowait(&self, read: &Read) -> Option<Result<FirstBatch, ReadError>> {
        nowait::try_nowait(|| {
            let mut cursor = self.read(read)?;
            let events = cursor.next_batch()?;
            Ok((cursor, events))
        })
    }

    /// Follows the log from behind `after` on: what is stored, then what is committed.
    #[must_use]
    pub fn follow(&self, scope: Scope, query: Query, after: Position) -> Follower {
        Follower::new(
            Arc::clone(&self.shared) as Arc<dyn ViewSource>,
            scope,
            query,
            after,
        )
    }

    /// The position of the newest durable event.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared.view().head
    }

    /// The revision of a stream's newest durable event. Reads no event.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn revision(&self, stream: &StreamName) -> Result<CurrentRevision, ReadError> {
        let view = self.shared.view();
        let events = view
            .sources
            .stream_events(&Term::stream(stream), view.head)?;
        Ok(CurrentRevision(events.checked_sub(1).map(Revision::new)))
    }

    /// As [`Self::revision`], unless that would have to wait for the disk.
    ///
    /// # Errors
    /// As [`Self::revision`].
    pub fn revision_nowait(
        &self,
        stream: &StreamName,
    ) -> Option<Result<CurrentRevision, ReadError>> {
        nowait::try_nowait(|| self.revision(stream))
    }

    /// Lists the streams whose names begin with `prefix` and come behind `after`, in the byte order of names.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn streams(&self, prefix: &str, after: Option<&StreamName>) -> Result<Streams, ReadError> {
        Streams::over(self.shared.view(), prefix, after)
    }

    /// Sizes and counts of the log as it is now.
    #[must_use]
    pub fn stats(&self) -> super::LogStats {
        super::LogStats::of(&self.shared)
    }
}
