//! The embedded engine as a [`Backend`].
//!
//! **Owns:** [`EmbeddedBackend`]: the bridge between blocking reads and async callers. **Does not know:** files.
//! **Invariants:**
//! - No read blocks a runtime thread: short reads of cached data run in place, all others on the blocking pool
//!   (docs/adr/0015-read-in-place.md).
//! - A task that only reads yields to others now and then.
//! - Appends wait in the engine's own bounded queue. Callers over its bound wait here, holding nothing but their append.

mod erase;
mod list;
mod read;
mod subscribe;

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, stream};
use leftfold_log as log;
use leftfold_log::{
    Log, LogOptions, OpenError,
    disk::{FileKind, FileName},
};
use leftfold_model::{Append, Appended, CurrentRevision, ErrorChain, Position, Read, StreamName};
use tokio::{runtime::Handle, sync::mpsc, task};

use self::{
    erase::{PROGRESS_BUFFERED, erase, erase_options, progress_of},
    list::Listing,
    read::{EntryStream, ReadStream},
    subscribe::SubscriptionStream,
};
use crate::{
    AppendError, Backend, BackendStore, Capabilities, Delivery, ListStreams, LogEntry,
    MemorySnapshotStore, ReadBatch, ReadError, ScavengeProgress, SnapshotStore, StoreStats,
    StreamInfo, Subscription, Truncation,
    consumers::{Consumers, FileConsumers, MemoryConsumers},
    snapshot_file::FileSnapshotStore,
};

/// How often a call is repeated because it met a damaged index or locations file, which was rebuilt. A call meets one file
/// after the other: a batch spans 32 segments, and the number of index files grows with the logarithm of the log.
const REBUILDS_MAX: u32 = 64;
/// Pause of an append before it retries a full queue.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// A durable store in a directory of this machine.
///
/// Must be opened inside a tokio runtime with time enabled, which must live as long; any task or thread may then
/// use it. The directory belongs to one store at a time; clones share it.
pub type EmbeddedStore = BackendStore<EmbeddedBackend>;

/// The storage of an [`EmbeddedStore`].
#[derive(Clone, Debug)]
pub struct EmbeddedBackend {
    log: Log,
    /// The runtime of blocking reads, so that callers may be of any runtime or none.
    runtime: Handle,
    snapshots: Arc<dyn SnapshotStore>,
    /// The snapshot store again if it is a file: closing the store closes it.
    file: Option<FileSnapshotStore>,
    consumers: Arc<dyn Consumers>,
    /// The consumers again if they are in a file: closing the store closes it.
    consumers_file: Option<FileConsumers>,
}

impl EmbeddedStore {
    /// Opens the store in this directory, creating it if it is absent, and recovering it if necessary.
    ///
    /// # Errors
    /// [`OpenError`]: in use, damaged, of a newer format, foreign files, or refused by the system.
    pub async fn open(
        directory: impl Into<PathBuf>,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let directory = directory.into();
        let beside = directory.join(FileName::of(FileKind::Snapshots).to_string());
        let consumers = directory.join(FileName::of(FileKind::Consumers).to_string());
        let opened = task::spawn_blocking(move || Log::open(directory, options)).await;
        match opened {
            Ok(log) => {
                let file = FileSnapshotStore::at(beside, Handle::current());
                let consumers = FileConsumers::at(consumers, Handle::current());
                Ok(Self::from_backend(EmbeddedBackend {
                    snapshots: Arc::new(file.clone()),
                    file: Some(file),
                    consumers: Arc::new(consumers.clone()),
                    consumers_file: Some(consumers),
                    ..EmbeddedBackend::over(log?)
                }))
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Opens the store in this directory for reading only: nothing in the directory is made or changed, and appends are
    /// refused, as are changes of consumers, whose file is copied into memory when it is first needed. Snapshots are not shown.
    ///
    /// # Errors
    /// [`OpenError`]: no store, in use, damaged, of a newer format, foreign files, or refused by the system.
    pub async fn open_read_only(
        directory: impl Into<PathBuf>,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let directory = directory.into();
        let consumers = directory.join(FileName::of(FileKind::Consumers).to_string());
        match task::spawn_blocking(move || Log::open_read_only(directory, options)).await {
            Ok(log) => {
                let consumers = FileConsumers::read_only(consumers, Handle::current());
                Ok(Self::from_backend(EmbeddedBackend {
                    consumers: Arc::new(consumers.clone()),
                    consumers_file: Some(consumers),
                    ..EmbeddedBackend::over(log?)
                }))
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// Creates the store over an open log. Snapshots and consumers are in memory only.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    #[must_use]
    pub fn over(log: Log) -> Self {
        Self::from_backend(EmbeddedBackend::over(log))
    }

    /// Returns the log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.backend().log
    }
}

impl EmbeddedBackend {
    fn over(log: Log) -> Self {
        Self {
            log,
            runtime: Handle::current(),
            snapshots: Arc::new(MemorySnapshotStore::default()),
            file: None,
            consumers: Arc::new(MemoryConsumers::default()),
            consumers_file: None,
        }
    }

    /// Waits for a moment, on the store's runtime.
    async fn pause(&self) {
        // A pause that ends early asks the queue again, nothing more.
        let _ = self
            .runtime
            .spawn(async { tokio::time::sleep(BUSY_PAUSE).await })
            .await;
    }
}

impl Backend for EmbeddedBackend {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let mut rebuilds = Rebuilds::default();
            loop {
                let decided = match self.log.submit(append.clone()) {
                    Ok(ticket) => ticket.await,
                    Err(log::AppendError::Busy) => {
                        self.pause().await;
                        continue;
                    }
                    Err(error) => Err(error),
                };
                match decided {
                    Err(log::AppendError::Unreadable { cause })
                        if cause.is_damaged_derived_file() && rebuilds.may_go_on() =>
                    {
                        let log = self.log.clone();
                        let rebuild = move || rebuilds.rebuild(&log).map_err(read_error);
                        let rebuilt = blocking(self.runtime.clone(), rebuild).await;
                        rebuilds = rebuilt.map_err(|error| AppendError::Unavailable {
                            cause: Arc::new(error),
                        })?;
                    }
                    decided => return decided.map_err(append_error),
                }
            }
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        let begin = ReadStream::NotBegun(self.log.clone(), read);
        let runtime = self.runtime.clone();
        Box::pin(stream::try_unfold(begin, move |reading| {
            let runtime = runtime.clone();
            async move {
                match reading {
                    // The cursor knows that it is at its end: a short read saves the hop to another thread.
                    ReadStream::Begun(reading) if reading.is_done() => Ok(None),
                    ReadStream::NotBegun(log, read) => {
                        task::coop::consume_budget().await;
                        match log.read_nowait(&read) {
                            Some(Ok(first)) => Ok(Some(ReadStream::first(log, read, first))),
                            // The other way rebuilds what is damaged, which takes a while.
                            Some(Err(_)) | None => {
                                blocking(runtime, move || ReadStream::begin(log, read).map(Some))
                                    .await
                            }
                        }
                    }
                    ReadStream::Begun(reading) => {
                        blocking(runtime, move || ReadStream::go_on(reading)).await
                    }
                }
            }
        }))
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let Subscription {
            scope,
            query,
            after,
        } = subscription;
        let begin = SubscriptionStream {
            log: self.log.clone(),
            follower: self.log.follow(scope, query, after),
            runtime: self.runtime.clone(),
        };
        Box::pin(stream::try_unfold(begin, SubscriptionStream::step))
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        Box::pin(async { Ok(self.log.head()) })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        let (log, runtime) = (self.log.clone(), self.runtime.clone());
        // On a blocking thread, because the check waits while an append creates the file of a new segment.
        Box::pin(blocking(runtime, move || {
            log.check().map_err(|error| ReadError::Unavailable {
                cause: Arc::new(error),
            })
        }))
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        let begin = Listing {
            log: self.log.clone(),
            remaining: list.limit.unwrap_or(u64::MAX),
            list,
            walk: None,
        };
        let runtime = self.runtime.clone();
        Box::pin(stream::try_unfold(begin, move |listing| {
            blocking(runtime.clone(), move || listing.step())
        }))
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(async {
            let stats = self.log.stats();
            let mut details = vec![
                ("erased".into(), stats.erased.to_string()),
                ("segments".into(), stats.segments.to_string()),
                ("log_bytes".into(), stats.log_bytes.to_string()),
                ("index_files".into(), stats.index_files.to_string()),
                ("index_bytes".into(), stats.index_bytes.to_string()),
                ("appends_since_open".into(), stats.appends.to_string()),
                ("syncs_since_open".into(), stats.syncs.to_string()),
            ];
            if let Some(error) = self.log.maintenance_error() {
                details.push(("maintenance_error".into(), ErrorChain(&*error).to_string()));
            }
            Ok(StoreStats {
                events: stats.events,
                head: stats.head,
                details,
            })
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(true, log::RECENT_IDS as u64)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.snapshots)
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::clone(&self.consumers)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        let (log, runtime, file) = (self.log.clone(), self.runtime.clone(), self.file.clone());
        let consumers = self.consumers_file.clone();
        Box::pin(async move {
            let close = move || {
                consumers.inspect(FileConsumers::close);
                file.inspect(FileSnapshotStore::close);
                log.close()
            };
            let closed = runtime.spawn_blocking(close).await;
            match closed {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(AppendError::Unavailable {
                    cause: Arc::new(error),
                }),
                Err(panicked) => Err(AppendError::Unavailable {
                    cause: Arc::new(panicked),
                }),
            }
        })
    }

    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>> {
        let (log, runtime) = (self.log.clone(), self.runtime.clone());
        Box::pin(async move {
            task::coop::consume_budget().await;
            if let Some(Ok(revision)) = log.revision_nowait(&stream) {
                return Ok(revision);
            }
            let look = move || rebuilding(&log, || log.revision(&stream));
            blocking(runtime, look).await
        })
    }

    fn entries(&self, after: Position) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
        let (begin, runtime) = (EntryStream::after(&self.log, after), self.runtime.clone());
        Box::pin(stream::try_unfold(begin, move |entries| {
            blocking(runtime.clone(), move || entries.step())
        }))
    }

    fn erase(
        &self,
        truncations: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        let (log, runtime) = (self.log.clone(), self.runtime.clone());
        let begin = async move {
            let (sender, receiver) = mpsc::channel(PROGRESS_BUFFERED);
            let options = erase_options(bytes_per_second);
            // The task ends by itself when the stream is dropped.
            let task = runtime.spawn_blocking(move || erase(&log, &truncations, options, &sender));
            progress_of(receiver, task)
        };
        Box::pin(stream::once(begin).flatten())
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

/// Runs a blocking step off the runtime's threads. Dropping this ends the reads of the step.
async fn blocking<T: Send + 'static>(
    runtime: Handle,
    step: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let caller = Arc::new(());
    let wanted = Arc::downgrade(&caller);
    let done = runtime.spawn_blocking(move || log::while_wanted(&wanted, step));
    match done.await {
        Ok(result) => result,
        Err(panicked) => Err(ReadError::Unavailable {
            cause: Arc::new(panicked),
        }),
    }
}

/// The rebuilding of damaged index and locations files for one call, as long as that helps.
#[derive(Clone, Copy, Default)]
struct Rebuilds {
    done: u32,
    has_failed: bool,
}

impl Rebuilds {
    /// Whether the call may be repeated once more.
    fn may_go_on(self) -> bool {
        self.done < REBUILDS_MAX
    }

    /// Has what is damaged rebuilt, so that the call can be repeated. That nothing could be rebuilt, as for a damaged segment, is
    /// an error only the second time: another thread may have rebuilt what the call met.
    fn rebuild(self, log: &Log) -> Result<Self, log::ReadError> {
        let rebuilt = log.rebuild_damaged();
        let has_failed = rebuilt.is_err();
        if self.has_failed {
            rebuilt?;
        }
        Ok(Self {
            done: self.done + 1,
            has_failed,
        })
    }
}

/// Runs a step that reads the log. Where it meets a damaged index or locations file, has the file rebuilt and runs it again.
fn rebuilding<T>(
    log: &Log,
    mut step: impl FnMut() -> Result<T, log::ReadError>,
) -> Result<T, ReadError> {
    let mut rebuilds = Rebuilds::default();
    loop {
        match step() {
            Err(log::ReadError::Storage(error))
                if error.is_damaged_derived_file() && rebuilds.may_go_on() =>
            {
                rebuilds = rebuilds.rebuild(log).map_err(read_error)?;
            }
            done => return done.map_err(read_error),
        }
    }
}

fn append_error(error: log::AppendError) -> AppendError {
    match error {
        log::AppendError::Conflict(conflict) => AppendError::Conflict(conflict),
        error if error.is_definitely_not_written() => AppendError::Unavailable {
            cause: Arc::new(error),
        },
        error => AppendError::OutcomeUnknown {
            cause: Arc::new(error),
        },
    }
}

fn read_error(error: log::ReadError) -> ReadError {
    match error {
        log::ReadError::Storage(storage) if storage.is_corruption() => ReadError::Corrupt {
            cause: Arc::new(storage),
        },
        log::ReadError::Storage(storage) => ReadError::Unavailable {
            cause: Arc::new(storage),
        },
        other => ReadError::Invalid {
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::poll;
    use leftfold_model::{EventType, ExpectedRevision, NewEvent};

    use super::*;

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_any_more_ends() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(directory.path(), LogOptions::default()).unwrap();
        let noted = NewEvent::json(EventType::new("Noted").unwrap(), "{}");
        let stream = StreamName::new("a-1").unwrap();
        let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![noted]);
        log.append(append.unwrap()).unwrap();
        let ((leave, left), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let step = move || {
            left.recv().unwrap();
            tell.send(ReadStream::begin(log, Read::stream(stream)).is_err())
                .unwrap();
            Ok(())
        };
        let mut reading = Box::pin(blocking(Handle::current(), step));
        assert!(poll!(&mut reading).is_pending());
        drop(reading);
        leave.send(()).unwrap();
        assert!(
            told.recv().unwrap(),
            "it found out that its caller has left"
        );
    }
}
