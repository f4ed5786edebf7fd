//! The engine with its threads.
//!
//! **Owns:** [`Log`] and its threads: one writes, one takes appends off the queue, one seals, one merges indexes.
//! **Does not know:** how appends are decided. **Invariants:** all threads are named; when one panics, its callers learn that
//! the outcome is unknown, and later appends are rejected; dropping the last handle closes the log cleanly.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, PoisonError},
};

use leftfold_model::{Append, Appended, CurrentRevision, Position, Query, Read, Scope, StreamName};

use super::{
    Core, LogStats, Ticket,
    commit_queue::CommitQueue,
    error::{AppendError, CloseError},
    maintenance_thread::MaintenanceThread,
    queue::Queue,
    reader::Reader,
    slow_lane::SlowLane,
    sync::{JoinHandle, Mutex, MutexGuard, spawn},
};
use crate::{
    clock::{Clock, SystemClock},
    disk::{Disk, DiskLock, read_only::ReadOnlyDisk, real::RealDisk},
    error::StorageError,
    limits::LogOptions,
    nowait,
    read::{Cursor, FirstBatch, Follower, ReadError, Streams, ViewSource},
    recover::{OpenError, OpenReport},
};

/// An open log. Cheap to clone; all clones are the same log, which closes when the last one is dropped.
///
/// ```
/// use leftfold_log::{Log, LogOptions};
/// use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName};
///
/// let directory = tempfile::tempdir()?;
/// let log = Log::open(directory.path(), LogOptions::default())?;
/// let deposit = NewEvent::json(EventType::new("DepositMade")?, r#"{"amount":100}"#);
/// let account = StreamName::new("account-1")?;
/// log.append(Append::to(account.clone(), ExpectedRevision::NoStream, vec![deposit])?)?;
/// let events = log.read(&Read::stream(account))?.next_batch()?.unwrap_or_default();
/// assert_eq!(events.len(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) running: Arc<Running>,
}

#[derive(Debug)]
pub(super) struct Running {
    pub(super) reader: Reader,
    pub(super) commit_queue: Arc<CommitQueue>,
    queue: Arc<Queue>,
    slow: Arc<SlowLane>,
    sealer: Arc<MaintenanceThread>,
    merger: Arc<MaintenanceThread>,
    report: OpenReport,
    /// `None` once they were joined.
    threads: Mutex<Option<Threads>>,
    /// Released only when every thread has ended.
    lock: Mutex<Option<DiskLock>>,
}

/// The threads that were started, in the order in which they are joined.
#[derive(Debug, Default)]
struct Threads {
    maintenance: Vec<JoinHandle<()>>,
    queue: Option<JoinHandle<()>>,
    /// Ends when the queue has ended and everything slow was staged.
    slow: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

/// Starts a thread of this name.
type Spawn<'a> = &'a dyn Fn(&str, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

impl Log {
    /// Opens the log in this directory, creating it if it is absent, and recovering it if necessary.
    ///
    /// # Errors
    /// [`OpenError`].
    /// # Cost
    /// A few small reads per segment; after an unclean stop also a copy of the newest segment.
    pub fn open(directory: impl Into<PathBuf>, options: LogOptions) -> Result<Self, OpenError> {
        let disk = RealDisk::at(directory).map_err(|e| StorageError::directory("create", e))?;
        Self::open_on(Arc::new(disk), options, Arc::new(SystemClock))
    }

    /// Opens the log in this directory for reading only: nothing in the directory is made or changed, and appends are refused
    /// as [`AppendError::ReadOnly`]. Others may read it so at the same time; a log that is open otherwise is refused.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::NoLog`] if there is none.
    /// # Cost
    /// As [`Self::open`], in memory: the newest segment after an unclean stop, and indexes that are missing.
    pub fn open_read_only(
        directory: impl Into<PathBuf>,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let disk = ReadOnlyDisk::at(directory).map_err(|e| StorageError::directory("open", e))?;
        Self::open_on(Arc::new(disk), options, Arc::new(SystemClock))
    }

    /// Opens the log on this disk, with this clock.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: LogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        Self::start(Core::open(disk, options, clock)?, &spawn)
    }

    /// Starts the threads around the core. If one cannot start, joins those before it and releases the directory.
    fn start(mut core: Core, spawn: Spawn<'_>) -> Result<Self, OpenError> {
        let lock = core.take_lock();
        let (reader, report) = (core.reader(), core.report().clone());
        let sealer = Arc::<MaintenanceThread>::default();
        let running = Running {
            reader,
            commit_queue: Arc::new(CommitQueue::of(core, Arc::clone(&sealer))),
            queue: Arc::default(),
            slow: Arc::default(),
            sealer,
            merger: Arc::default(),
            report,
            threads: Mutex::new(Some(Threads::default())),
            lock: Mutex::new(lock),
        };
        let started = running.spawn_threads(spawn);
        started.map_err(|e| StorageError::directory("start a thread for", e))?;
        running.sealer.wake();
        Ok(Self {
            running: Arc::new(running),
        })
    }

    /// Appends all events or none, and blocks until they are durable.
    ///
    /// # Guarantees
    /// After `Ok` the events survive a killed process, a system crash and a power cut (docs/durability.md, D1), and
    /// every read that begins later sees them.
    /// # Errors
    /// [`AppendError`]; [`AppendError::is_definitely_not_written`] says whether the append certainly did not happen.
    /// # Cost
    /// One sync, shared with all appends that wait at the same time.
    pub fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.running.commit_queue.append(append)
    }

    /// Queues an append without waiting for it. Appends to one stream are decided in the order of their submission. An append
    /// whose conditions take long to evaluate may be decided after later appends to other streams.
    ///
    /// # Errors
    /// [`AppendError::Busy`] if the queue is full, [`AppendError::Closed`]; the ticket returns all others.
    pub fn submit(&self, append: Append) -> Result<Ticket, AppendError> {
        match self.running.queue.push(append) {
            Err(AppendError::Closed) => Err(self.running.commit_queue.closed()),
            pushed => pushed,
        }
    }

    /// Begins a read of the log as it is now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, read: &Read) -> Result<Cursor, ReadError> {
        self.running.reader.read(read)
    }

    /// Begins a read and returns its first events, or `None` if that would have to wait; see [`Reader::read_nowait`].
    ///
    /// ```
    /// # use leftfold_log::{Log, LogOptions};
    /// # use leftfold_model::Read;
    /// # let directory = tempfile::tempdir()?;
    /// # let log = Log::open(directory.path(), LogOptions::default())?;
    /// let read = Read::all();
    /// let (mut cursor, mut events) = match log.read_nowait(&read) {
    ///     Some(first) => first?,
    ///     // On a thread that may wait for the disk.
    ///     None => (log.read(&read)?, Some(Vec::new())),
    /// };
    /// while let Some(batch) = events {
    ///     println!("{} events", batch.len());
    ///     events = cursor.next_batch()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Reader::read_nowait`].
    pub fn read_nowait(&self, read: &Read) -> Option<Result<FirstBatch, ReadError>> {
        self.running.reader.read_nowait(read)
    }

    /// Follows the log after the position `after`.
    #[must_use]
    pub fn follow(&self, scope: Scope, query: Query, after: Position) -> Follower {
        self.running.reader.follow(scope, query, after)
    }

    /// Returns the revision of a stream's newest event; see [`Reader::revision`].
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn revision(&self, stream: &StreamName) -> Result<CurrentRevision, ReadError> {
        self.running.reader.revision(stream)
    }

    /// Returns the revision of a stream's newest event, or `None` if that would have to wait; see
    /// [`Reader::revision_nowait`].
    ///
    /// # Errors
    /// As [`Reader::revision_nowait`].
    pub fn revision_nowait(
        &self,
        stream: &StreamName,
    ) -> Option<Result<CurrentRevision, ReadError>> {
        self.running.reader.revision_nowait(stream)
    }

    /// Lists streams; see [`Reader::streams`].
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn streams(&self, prefix: &str, after: Option<&StreamName>) -> Result<Streams, ReadError> {
        self.running.reader.streams(prefix, after)
    }

    /// Returns the position of the newest durable event.
    #[must_use]
    pub fn head(&self) -> Position {
        self.running.reader.head()
    }

    /// Checks that the log accepts appends, as far as that is known without one.
    ///
    /// # Errors
    /// [`AppendError::ReadOnly`] after a disk error, [`AppendError::Closed`].
    pub fn check(&self) -> Result<(), AppendError> {
        self.running.commit_queue.check()
    }

    /// Returns sizes and counts.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.running.reader.stats()
    }

    /// Returns what opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.running.report
    }

    /// Returns the error of the newest maintenance step, if it failed; the step is retried.
    #[must_use]
    pub fn maintenance_error(&self) -> Option<Arc<StorageError>> {
        let running = &self.running;
        running.sealer.failed().or_else(|| running.merger.failed())
    }

    /// Rebuilds the index and locations files that reads and appends found to be damaged. A read or append that failed for one
    /// can be repeated then. Maintenance does the same a moment later; in a log that is only read, what is rebuilt is kept in
    /// memory. A file that cannot be rebuilt, as that of a damaged segment, keeps no other from being rebuilt.
    ///
    /// # Errors
    /// [`ReadError::Storage`]: nothing was rebuilt, because a segment could not be read, a file could not be written, or the log
    /// is closed.
    /// # Cost
    /// Reads the segments of each such file once.
    pub fn rebuild_damaged(&self) -> Result<(), ReadError> {
        let shared = &self.running.reader.shared;
        Ok(nowait::for_everybody(|| shared.rebuild_damaged())?)
    }

    /// Accepts no more appends, finishes the accepted ones, and closes the log cleanly. Further calls do nothing.
    ///
    /// # Errors
    /// [`CloseError`]; acknowledged events are safe in any case.
    pub fn close(&self) -> Result<(), CloseError> {
        self.running.close()
    }
}

impl Running {
    fn spawn_threads(&self, spawn: Spawn<'_>) -> io::Result<()> {
        let mut threads = self.threads();
        let threads = threads.get_or_insert_default();
        let shared = &self.reader.shared;
        let writer = Arc::clone(&self.commit_queue);
        threads.writer = Some(spawn(
            "leftfold-writer",
            Box::new(move || writer.run_writer()),
        )?);
        let (commit_queue, lane) = (Arc::clone(&self.commit_queue), Arc::clone(&self.slow));
        let run = move || run_slow_lane(&commit_queue, &lane);
        threads.slow = Some(spawn("leftfold-lookups", Box::new(run))?);
        let (commit_queue, queue) = (Arc::clone(&self.commit_queue), Arc::clone(&self.queue));
        let lane = Arc::clone(&self.slow);
        let run = move || run_append_queue(&commit_queue, &queue, &lane);
        threads.queue = Some(spawn("leftfold-queue", Box::new(run))?);
        let (state, sealer, merger) = (
            Arc::clone(shared),
            Arc::clone(&self.sealer),
            Arc::clone(&self.merger),
        );
        let run = move || {
            sealer.run(&state, &|idle| {
                let more = !idle && state.maintain()?;
                merger.wake();
                Ok(more)
            });
        };
        threads
            .maintenance
            .push(spawn("leftfold-sealer", Box::new(run))?);
        let (state, merger) = (Arc::clone(shared), Arc::clone(&self.merger));
        let run = move || merger.run(&state, &|idle| state.merge_indexes(idle));
        threads
            .maintenance
            .push(spawn("leftfold-merger", Box::new(run))?);
        let (sealer, merger) = (Arc::clone(&self.sealer), Arc::clone(&self.merger));
        let view = shared.view();
        view.segments.handles.on_damage(move || {
            sealer.wake();
            merger.wake();
        });
        Ok(())
    }

    fn threads(&self) -> MutexGuard<'_, Option<Threads>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) -> Result<(), CloseError> {
        // Held until all is done: a second caller must not learn that the log is closed while its directory is not free.
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(threads) = self.threads().take() else {
            return Ok(());
        };
        self.sealer.stop();
        self.merger.stop();
        self.reader.shared.cancel_merges();
        self.reader.shared.stop_scavenging();
        for thread in threads.maintenance {
            let _ = thread.join();
        }
        self.reader.shared.finish_rebuilding();
        self.queue.close();
        let _ = threads.queue.map(JoinHandle::join);
        self.slow.close();
        let _ = threads.slow.map(JoinHandle::join);
        let closed = self.commit_queue.close();
        let _ = threads.writer.map(JoinHandle::join);
        // No thread changes the files any more.
        lock.take();
        closed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Who wants to know calls close().
        let _ = self.close();
    }
}

/// Runs the append thread: stages queued appends until the queue is closed and empty.
fn run_append_queue(commit_queue: &CommitQueue, queue: &Queue, slow: &SlowLane) {
    /// Wakes callers with an error if the thread panics, and closes the slow lane in any case.
    struct Abandon<'a>(&'a Queue, &'a SlowLane);
    impl Drop for Abandon<'_> {
        fn drop(&mut self) {
            self.0.abandon();
            self.1.close();
        }
    }
    let _abandon = Abandon(queue, slow);
    while let Some(appends) = queue.pop_batch() {
        let mut ready = Vec::with_capacity(appends.len());
        for (append, answer) in appends {
            // What has to wait for the disk, or takes long, is looked up where nothing else waits for it.
            let prepared = match slow.holds_up(&append) {
                true => None,
                false => nowait::try_nowait(|| commit_queue.prepare(&append)),
            };
            match prepared {
                Some(prepared) => ready.push((append, answer, prepared)),
                None => {
                    // No append overtakes an earlier one of its stream, so those before it are staged first.
                    commit_queue.append_queued(std::mem::take(&mut ready), false);
                    slow.push(append, answer);
                }
            }
        }
        if !ready.is_empty() {
            let alone = ready.len() == 1;
            commit_queue.append_queued(ready, alone);
        }
    }
}

/// Runs the lookup thread: looks up and stages slow appends until the lane is closed and empty.
fn run_slow_lane(commit_queue: &CommitQueue, slow: &SlowLane) {
    /// Wakes callers with an error if the thread panics.
    struct Abandon<'a>(&'a SlowLane);
    impl Drop for Abandon<'_> {
        fn drop(&mut self) {
            self.0.abandon();
        }
    }
    let _abandon = Abandon(slow);
    while let Some((append, answer)) = slow.pop() {
        let touched = SlowLane::touched(&append);
        let prepared = commit_queue.prepare(&append);
        // The writer thread writes, so that the next lookups go on meanwhile.
        commit_queue.append_queued(vec![(append, answer, prepared)], false);
        slow.done(&touched);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_whose_threads_cannot_be_started_frees_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        for started in 0..5 {
            let disk = Arc::new(RealDisk::at(directory.path()).unwrap());
            let core = Core::open(disk, LogOptions::default(), Arc::new(SystemClock)).unwrap();
            let left = std::cell::Cell::new(started);
            let refused = Log::start(core, &|name, body| {
                if left.get() == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                left.set(left.get() - 1);
                spawn(name, body)
            });
            assert!(matches!(refused, Err(OpenError::Storage(_))), "{refused:?}");
        }
        let log = Log::open(directory.path(), LogOptions::default()).unwrap();
        log.close().unwrap();
    }
}
