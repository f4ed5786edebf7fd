//! The embedded engine as a [`Backend`].
//!
//! **Owns:** [`EmbeddedBackend`]: the bridge between blocking reads and async callers. **Does not know:** files.
//! **Invariants:** no read blocks a runtime thread: what is in memory and soon done is read in place, everything else on the
//! blocking pool (docs/adr/0015-read-in-place.md), and a task that only reads lets others run now and then; appends wait in
//! the engine's own bounded queue, and callers beyond its bound wait here, holding nothing but their append.

use std::{ops::ControlFlow, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, future, stream};
use leftfold_log as log;
use leftfold_log::{
    Cursor, Delivery as LogDelivery, FirstBatch, Follower, Log, LogOptions, OpenError,
    ScavengeOptions, Streams,
    disk::{FileKind, FileName},
};
use leftfold_model::{
    Append, Appended, CurrentRevision, Position, Read, RecordedEvent, StreamName,
};
use tokio::{runtime::Handle, sync::mpsc, task};

use crate::{
    AppendError, Backend, Capabilities, Delivery, ListStreams, MemorySnapshotStore, ReadBatch,
    ReadError, RetentionStore, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo,
    Subscription, Truncation, snapshot_file::FileSnapshotStore,
};

/// Bytes of a batch, about. Readers may be slow and many, and each holds one.
const BATCH_BYTES: u64 = 256 * 1024;
/// Streams of a batch: each costs the read of one event.
const BATCH_STREAMS: usize = 256;
/// Steps of an erasure that may be told ahead of whoever listens.
const ERASE_TOLD: usize = 4;
/// How long a subscription that waits for what it selects lets its checkpoint stand still while other events come.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(500);
/// How long an append waits before it asks a full queue again.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// A durable store in a directory of this machine.
///
/// Must be opened inside a tokio runtime with time enabled, which must live as long; any task or thread may then
/// use it. The directory belongs to one store at a time; clones share it.
pub type EmbeddedStore = RetentionStore<EmbeddedBackend>;

/// The storage of an [`EmbeddedStore`].
#[derive(Clone, Debug)]
pub struct EmbeddedBackend {
    log: Log,
    /// Where blocking reads run, so that callers may be of any runtime or none.
    runtime: Handle,
    snapshots: Arc<dyn SnapshotStore>,
    /// The same, if they are in a file.
    file: Option<FileSnapshotStore>,
}

impl EmbeddedStore {
    /// Opens the store in this directory, making it if it is not there, and recovering it if need be.
    ///
    /// # Errors
    /// [`OpenError`]: in use, damaged, of a newer format, foreign files, or refused by the system.
    pub async fn open(
        directory: impl Into<PathBuf>,
        options: LogOptions,
    ) -> Result<Self, OpenError> {
        let directory = directory.into();
        let beside = directory.join(FileName::of(FileKind::Snapshots).to_string());
        let opened = task::spawn_blocking(move || Log::open(directory, options)).await;
        match opened {
            Ok(log) => {
                let file = FileSnapshotStore::at(beside, Handle::current());
                Ok(Self::from_backend(EmbeddedBackend {
                    snapshots: Arc::new(file.clone()),
                    file: Some(file),
                    ..EmbeddedBackend::over(log?)
                }))
            }
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }

    /// The store over an open log. Snapshots are kept in memory only.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime.
    #[must_use]
    pub fn over(log: Log) -> Self {
        Self::from_backend(EmbeddedBackend::over(log))
    }

    /// The log.
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
        }
    }

    /// Waits a moment, by the clock of the store's runtime.
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
            loop {
                match self.log.submit(append.clone()) {
                    Ok(ticket) => return ticket.await.map_err(append_error),
                    Err(log::AppendError::Busy) => self.pause().await,
                    Err(error) => return Err(append_error(error)),
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
                    // Known already: a short read asks nobody for its end.
                    ReadStream::Begun(cursor) if cursor.is_done() => Ok(None),
                    ReadStream::NotBegun(log, read) => {
                        task::coop::consume_budget().await;
                        match log.read_nowait(&read) {
                            Some(first) => ReadStream::first(first).map(Some),
                            None => blocking(runtime, move || ReadStream::begin(&log, &read)).await,
                        }
                    }
                    ReadStream::Begun(cursor) => {
                        blocking(runtime, move || ReadStream::go_on(cursor)).await
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
        // Whoever makes the file of a new segment keeps the log waiting meanwhile.
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
            let details = vec![
                ("erased".into(), stats.erased.to_string()),
                ("segments".into(), stats.segments.to_string()),
                ("log_bytes".into(), stats.log_bytes.to_string()),
                ("index_files".into(), stats.index_files.to_string()),
                ("index_bytes".into(), stats.index_bytes.to_string()),
                ("appends_since_open".into(), stats.appends.to_string()),
                ("syncs_since_open".into(), stats.syncs.to_string()),
            ];
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

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        let (log, runtime, file) = (self.log.clone(), self.runtime.clone(), self.file.clone());
        Box::pin(async move {
            let close = move || {
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
            if let Some(revision) = log.revision_nowait(&stream) {
                return revision.map_err(read_error);
            }
            let look = move || log.revision(&stream).map_err(read_error);
            blocking(runtime, look).await
        })
    }

    fn erase(
        &self,
        cuts: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        let (log, runtime) = (self.log.clone(), self.runtime.clone());
        let begin = async move {
            let (tell, told) = mpsc::channel(ERASE_TOLD);
            let options = erase_options(bytes_per_second);
            // The task ends by itself when nobody listens any more.
            drop(runtime.spawn_blocking(move || erase(&log, &cuts, options, &tell)));
            stream::unfold(told, |mut told| async move {
                let next = told.recv().await?;
                Some((next, told))
            })
        };
        Box::pin(stream::once(begin).flatten())
    }

    fn is_exclusive(&self) -> bool {
        true
    }
}

/// Everything under the cuts is to go, so the newest segment is closed if need be.
fn erase_options(bytes_per_second: Option<u64>) -> ScavengeOptions {
    let options = ScavengeOptions::default().with_seal_newest();
    match bytes_per_second {
        Some(bytes) => options.with_bytes_per_second(bytes),
        None => options,
    }
}

/// Scavenges the log and tells how far it is, until it is done or nobody listens.
fn erase(
    log: &Log,
    cuts: &[Truncation],
    options: ScavengeOptions,
    tell: &mpsc::Sender<Result<ScavengeProgress, ReadError>>,
) {
    let cuts: Vec<_> = cuts
        .iter()
        .map(|cut| log::Truncation {
            stream: cut.stream.clone(),
            before: cut.before,
        })
        .collect();
    let progress = |done: &log::ScavengeProgress| {
        ScavengeProgress::of(
            done.segments_done,
            done.segments_total,
            done.events_erased,
            done.bytes_reclaimed,
        )
    };
    let ended = log.scavenge(&cuts, options, &mut |done| match tell
        .blocking_send(Ok(progress(done)))
    {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    let last = match ended {
        Ok(done) => Ok(ScavengeProgress {
            finished: done.is_finished(),
            ..progress(&done)
        }),
        Err(error) => Err(ReadError::Unavailable {
            cause: Arc::new(error),
        }),
    };
    // If nobody listens any more, nobody wants to know.
    let _ = tell.blocking_send(last);
}

/// Runs a blocking step off the runtime's threads.
async fn blocking<T: Send + 'static>(
    runtime: Handle,
    step: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    match runtime.spawn_blocking(step).await {
        Ok(result) => result,
        Err(panicked) => Err(ReadError::Unavailable {
            cause: Arc::new(panicked),
        }),
    }
}

enum ReadStream {
    NotBegun(Log, Read),
    Begun(Box<Cursor>),
}

impl ReadStream {
    fn begin(log: &Log, read: &Read) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let begin = || {
            let mut cursor = log.read(read)?.with_batch_bytes(BATCH_BYTES);
            let events = cursor.next_batch()?;
            Ok((cursor, events))
        };
        Self::first(begin()).map(Some)
    }

    /// There is a first batch also if it has no events: it brings the token.
    fn first(first: Result<FirstBatch, log::ReadError>) -> Result<(ReadBatch, Self), ReadError> {
        let (cursor, events) = first.map_err(read_error)?;
        let cursor = cursor.with_batch_bytes(BATCH_BYTES);
        Ok(Self::batch(Box::new(cursor), events.unwrap_or_default()))
    }

    fn go_on(mut cursor: Box<Cursor>) -> Result<Option<(ReadBatch, Self)>, ReadError> {
        let events = cursor.next_batch().map_err(read_error)?;
        Ok(events.map(|events| Self::batch(cursor, events)))
    }

    fn batch(cursor: Box<Cursor>, events: Vec<RecordedEvent>) -> (ReadBatch, Self) {
        let token = cursor.token();
        (ReadBatch { events, token }, Self::Begun(cursor))
    }
}

struct SubscriptionStream {
    follower: Follower,
    runtime: Handle,
}

impl SubscriptionStream {
    /// Waits for the next delivery. `None`: the log was closed.
    async fn step(mut self) -> Result<Option<(Delivery, Self)>, ReadError> {
        loop {
            let wake = self.follower.listen_for_matches();
            let closed = self.follower.is_closed();
            if let Some(passed) = self.follower.skip_unmatched() {
                return Ok(Some((delivery(passed), self)));
            }
            if !self.follower.is_current() {
                task::coop::consume_budget().await;
                let delivered = match self.follower.try_next_nowait() {
                    Some(delivered) => delivered.map_err(read_error)?,
                    None => {
                        let mut follower = self.follower;
                        let look = move || Ok((follower.try_next().map_err(read_error)?, follower));
                        let (delivered, follower) = blocking(self.runtime.clone(), look).await?;
                        self.follower = follower;
                        delivered
                    }
                };
                if let Some(delivered) = delivered {
                    return Ok(Some((delivery(delivered), self)));
                }
            }
            if closed {
                return Ok(None);
            }
            let pause = {
                // Polled by any runtime or none, but woken by the store's.
                let _timers = self.runtime.enter();
                tokio::time::sleep(CHECKPOINT_PAUSE)
            };
            future::select(wake, pin!(pause)).await;
        }
    }
}

fn delivery(delivered: LogDelivery) -> Delivery {
    Delivery {
        events: delivered.events,
        through: delivered.through,
        caught_up: delivered.caught_up,
    }
}

struct Listing {
    log: Log,
    list: ListStreams,
    remaining: u64,
    walk: Option<Streams>,
}

impl Listing {
    fn step(mut self) -> Result<Option<(Vec<StreamInfo>, Self)>, ReadError> {
        let walk = match &mut self.walk {
            Some(walk) => walk,
            None => {
                let walk = self
                    .log
                    .streams(&self.list.prefix, self.list.after.as_ref());
                self.walk.insert(walk.map_err(read_error)?)
            }
        };
        let wanted = usize::try_from(self.remaining)
            .unwrap_or(usize::MAX)
            .min(BATCH_STREAMS);
        let entries = walk.next_batch(wanted).map_err(read_error)?;
        if entries.is_empty() {
            return Ok(None);
        }
        self.remaining -= entries.len() as u64;
        let info = |entry: log::StreamInfo| StreamInfo {
            stream: entry.stream,
            events: entry.events,
            revision: entry.revision,
            position: entry.position,
            time: entry.time,
        };
        Ok(Some((entries.into_iter().map(info).collect(), self)))
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
