//! The engine with its threads.
//!
//! **Owns:** [`Log`] and its threads: one writes, one takes appends off the queue, one seals, one merges indexes.
//! **Does not know:** how appends are decided. **Invariants:** all threads are named; when one panics, callers learn that
//! the outcome is unknown and later appends are refused; dropping the last handle stops the log cleanly.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use leftfold_model::{Append, Appended, CurrentRevision, Position, Query, Read, Scope, StreamName};

use super::{
    Core, LogStats, Ticket,
    commit_queue::CommitQueue,
    error::{AppendError, CloseError},
    maintenance_thread::MaintenanceThread,
    queue::Queue,
    reader::Reader,
};
use crate::{
    clock::{Clock, SystemClock},
    disk::{Disk, real::RealDisk},
    error::StorageError,
    limits::LogOptions,
    read::{Cursor, FirstBatch, Follower, ReadError, Streams},
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
    upkeep: Arc<MaintenanceThread>,
    merger: Arc<MaintenanceThread>,
    report: OpenReport,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: thread::JoinHandle<()>,
    queue: thread::JoinHandle<()>,
    sealer: thread::JoinHandle<()>,
    merger: thread::JoinHandle<()>,
}

impl Log {
    /// Opens the log in this directory, making it if it is not there, and recovering it if need be.
    ///
    /// # Errors
    /// [`OpenError`].
    /// # Cost
    /// A few small reads per segment; after an unclean stop also a copy of the newest segment.
    pub fn open(directory: impl Into<PathBuf>, options: LogOptions) -> Result<Self, OpenError> {
        let disk = RealDisk::at(directory).map_err(|e| StorageError::directory("create", e))?;
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
        let core = Core::open(disk, options, clock)?;
        let (reader, report) = (core.reader(), core.report().clone());
        let (queue, upkeep) = (Arc::<Queue>::default(), Arc::<MaintenanceThread>::default());
        let merger = Arc::<MaintenanceThread>::default();
        let commit_queue = Arc::new(CommitQueue::of(core, Arc::clone(&upkeep)));
        let threads = Threads {
            writer: {
                let commit_queue = Arc::clone(&commit_queue);
                spawn("leftfold-writer", move || commit_queue.run_writer())?
            },
            queue: {
                let (commit_queue, queue) = (Arc::clone(&commit_queue), Arc::clone(&queue));
                spawn("leftfold-queue", move || {
                    run_append_queue(&commit_queue, &queue)
                })?
            },
            sealer: {
                let (shared, upkeep) = (Arc::clone(&reader.shared), Arc::clone(&upkeep));
                let merger = Arc::clone(&merger);
                spawn("leftfold-sealer", move || {
                    upkeep.run(&shared, &|idle| {
                        let more = !idle && shared.upkeep()?;
                        merger.wake();
                        Ok(more)
                    });
                })?
            },
            merger: {
                let (shared, merger) = (Arc::clone(&reader.shared), Arc::clone(&merger));
                spawn("leftfold-merger", move || {
                    merger.run(&shared, &|idle| shared.merge_indexes(idle));
                })?
            },
        };
        upkeep.wake();
        Ok(Self {
            running: Arc::new(Running {
                reader,
                commit_queue,
                queue,
                upkeep,
                merger,
                report,
                threads: Mutex::new(Some(threads)),
            }),
        })
    }

    /// Appends all events or none, and blocks until they are durable.
    ///
    /// # Guarantees
    /// After `Ok` the events survive process kill, crash of the system and power cut (docs/durability.md, D1), and
    /// every read that begins later sees them.
    /// # Errors
    /// [`AppendError`]; ask it whether the append certainly did not happen.
    /// # Cost
    /// One sync, shared with all appends that wait at the same time.
    pub fn append(&self, append: Append) -> Result<Appended, AppendError> {
        self.running.commit_queue.append(append)
    }

    /// Hands an append to the writer without waiting for it.
    ///
    /// # Errors
    /// [`AppendError::Busy`] if the queue is full, [`AppendError::Closed`]; the rest comes through the ticket.
    pub fn submit(&self, append: Append) -> Result<Ticket, AppendError> {
        self.running.queue.push(append)
    }

    /// Begins a read of the log as it is now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, read: &Read) -> Result<Cursor, ReadError> {
        self.running.reader.read(read)
    }

    /// Begins a read and takes its first events, unless that would have to wait; see [`Reader::read_nowait`].
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

    /// Follows the log from behind `after` on.
    #[must_use]
    pub fn follow(&self, scope: Scope, query: Query, after: Position) -> Follower {
        self.running.reader.follow(scope, query, after)
    }

    /// The revision of a stream's newest event; see [`Reader::revision`].
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn revision(&self, stream: &StreamName) -> Result<CurrentRevision, ReadError> {
        self.running.reader.revision(stream)
    }

    /// The same, unless that would have to wait; see [`Reader::revision_nowait`].
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

    /// The position of the newest durable event.
    #[must_use]
    pub fn head(&self) -> Position {
        self.running.reader.head()
    }

    /// Whether appends are taken, as far as that is known without one.
    ///
    /// # Errors
    /// [`AppendError::ReadOnly`] since the disk failed, [`AppendError::Closed`].
    pub fn check(&self) -> Result<(), AppendError> {
        self.running.commit_queue.check()
    }

    /// Sizes and counts.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        self.running.reader.stats()
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.running.report
    }

    /// Why the newest step of upkeep failed, if it did; it is tried again.
    #[must_use]
    pub fn maintenance_error(&self) -> Option<Arc<StorageError>> {
        let running = &self.running;
        running.upkeep.failed().or_else(|| running.merger.failed())
    }

    /// Stops taking appends, finishes those accepted, and stops cleanly. Further calls do nothing.
    ///
    /// # Errors
    /// [`CloseError`]; everything acknowledged is safe anyway.
    pub fn close(&self) -> Result<(), CloseError> {
        self.running.close()
    }
}

impl Running {
    fn close(&self) -> Result<(), CloseError> {
        let threads = self
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(threads) = threads else {
            return Ok(());
        };
        self.upkeep.stop();
        self.merger.stop();
        self.reader.shared.cancel_merges();
        self.reader.shared.stop_scavenging();
        let _ = threads.sealer.join();
        let _ = threads.merger.join();
        self.queue.close();
        let _ = threads.queue.join();
        let closed = self.commit_queue.close();
        let _ = threads.writer.join();
        closed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Who wants to know calls close().
        let _ = self.close();
    }
}

fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    Ok(thread.map_err(|e| StorageError::directory("start a thread for", e))?)
}

/// Takes appends off the queue until it is closed and empty.
fn run_append_queue(commit_queue: &CommitQueue, queue: &Queue) {
    /// Lets callers go if the thread panics.
    struct Abandon<'a>(&'a Queue);
    impl Drop for Abandon<'_> {
        fn drop(&mut self) {
            self.0.abandon();
        }
    }
    let _abandon = Abandon(queue);
    while let Some(appends) = queue.pop_batch() {
        commit_queue.append_queued(appends);
    }
}
