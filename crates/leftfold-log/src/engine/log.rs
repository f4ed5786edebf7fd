//! The engine with its threads.
//!
//! **Owns:** [`Log`], the writer thread and the upkeep thread. **Does not know:** how appends are decided.
//! **Invariants:** two threads, both named; when the writer panics, callers learn that the outcome is unknown and later
//! appends are refused; dropping the last handle stops the log cleanly.

use std::{
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use leftfold_model::{Append, Appended, Position, Query, Read, Scope, StreamName};

use super::{
    Core, LogStats, Ticket,
    error::{AppendError, CloseError},
    queue::Queue,
    shared::{Reader, Shared},
};
use crate::{
    clock::{Clock, SystemClock},
    disk::{Disk, real::RealDisk},
    error::StorageError,
    limits::LogOptions,
    read::{Cursor, Follower, ReadError, Streams},
    recover::{OpenError, OpenReport},
};

/// How long upkeep rests after the disk refused it something, for example room.
const UPKEEP_RETRY: Duration = Duration::from_secs(1);

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
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    reader: Reader,
    queue: Arc<Queue>,
    upkeep: Arc<Upkeep>,
    report: OpenReport,
    threads: Mutex<Option<Threads>>,
}

#[derive(Debug)]
struct Threads {
    writer: thread::JoinHandle<Result<(), CloseError>>,
    upkeep: thread::JoinHandle<()>,
}

/// Wakes the upkeep thread, and stops it.
#[derive(Debug, Default)]
struct Upkeep {
    state: Mutex<UpkeepState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct UpkeepState {
    due: bool,
    stop: bool,
    failed: Option<Arc<StorageError>>,
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
        let (queue, upkeep) = (Arc::<Queue>::default(), Arc::<Upkeep>::default());
        let shared = Arc::clone(core.shared());
        let writer = {
            let (queue, upkeep) = (Arc::clone(&queue), Arc::clone(&upkeep));
            spawn("leftfold-writer", move || write(core, &queue, &upkeep))?
        };
        let keeper = {
            let upkeep = Arc::clone(&upkeep);
            spawn("leftfold-upkeep", move || keep_up(&shared, &upkeep))?
        };
        upkeep.wake();
        let threads = Mutex::new(Some(Threads {
            writer,
            upkeep: keeper,
        }));
        Ok(Self {
            running: Arc::new(Running {
                reader,
                queue,
                upkeep,
                report,
                threads,
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
        self.running.queue.push(append, true)?.wait()
    }

    /// Hands an append to the writer without waiting for it.
    ///
    /// # Errors
    /// [`AppendError::Busy`] if the queue is full, [`AppendError::Closed`]; the rest comes through the ticket.
    pub fn submit(&self, append: Append) -> Result<Ticket, AppendError> {
        self.running.queue.push(append, false)
    }

    /// Begins a read of the log as it is now.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(&self, read: &Read) -> Result<Cursor, ReadError> {
        self.running.reader.read(read)
    }

    /// Follows the log from behind `after` on.
    #[must_use]
    pub fn follow(&self, scope: Scope, query: Query, after: Position) -> Follower {
        self.running.reader.follow(scope, query, after)
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
    pub fn upkeep_error(&self) -> Option<Arc<StorageError>> {
        self.running.upkeep.lock().failed.clone()
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
        let Some(Threads { writer, upkeep }) = threads else {
            return Ok(());
        };
        self.upkeep.stop();
        let _ = upkeep.join();
        self.queue.close();
        match writer.join() {
            Ok(closed) => closed,
            Err(_) => Err(CloseError::WriterPanicked),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Who wants to know calls close().
        let _ = self.close();
    }
}

impl Upkeep {
    fn lock(&self) -> std::sync::MutexGuard<'_, UpkeepState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn wake(&self) {
        self.lock().due = true;
        self.changed.notify_all();
    }
    fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>, OpenError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
    Ok(thread.map_err(|e| StorageError::directory("start a thread for", e))?)
}

/// The writer: group after group until the queue is closed and empty.
fn write(mut core: Core, queue: &Queue, upkeep: &Upkeep) -> Result<(), CloseError> {
    /// Lets callers go if the writer panics.
    struct Abandon<'a>(&'a Queue, Arc<Shared>);
    impl Drop for Abandon<'_> {
        fn drop(&mut self) {
            self.0.abandon();
            self.1.close();
        }
    }
    let _abandon = Abandon(queue, Arc::clone(core.shared()));
    let mut segments = core.shared().unsealed();
    while let Some((appends, answers)) = queue.pop_group() {
        for (answer, result) in answers.into_iter().zip(core.commit(&appends)) {
            // A caller who does not wait any more need not know.
            let _ = answer.send(result);
        }
        let unsealed = core.shared().unsealed();
        if unsealed != segments {
            segments = unsealed;
            upkeep.wake();
        }
    }
    core.close()
}

/// The upkeep: whatever is due, then sleep.
fn keep_up(shared: &Shared, upkeep: &Upkeep) {
    loop {
        let mut state = upkeep.lock();
        while !state.due && !state.stop {
            state = upkeep
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return;
        }
        state.due = false;
        drop(state);
        match shared.upkeep() {
            Ok(false) => upkeep.lock().failed = None,
            Ok(true) => upkeep.lock().due = true,
            Err(error) => {
                let mut state = upkeep.lock();
                state.failed = Some(Arc::new(error));
                state.due = true;
                if !state.stop {
                    drop(upkeep.changed.wait_timeout(state, UPKEEP_RETRY));
                }
            }
        }
    }
}
