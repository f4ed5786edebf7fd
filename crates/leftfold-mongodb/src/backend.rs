//! The back end: the modules of this crate as one [`Backend`].
//!
//! **Owns:** [`MongoBackend`]. **Does not know:** filters and documents; stream lifecycles, which `BackendStore` adds.
//! **Invariants:** clones are the same storage; no lock of this process is held while a call waits for the server.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, CurrentRevision, Position, Read, StreamName, Timestamp};
use leftfold_store::{
    AppendError, Backend, Capabilities, Delivery, ListStreams, LogEntry, ReadBatch, ReadError,
    ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, Subscription, Truncation,
    consumers::Consumers,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    MongoOptions, OpenError,
    append::{Pending, Writer},
    consumers::MongoConsumers,
    document::to_u64,
    entries, erase,
    error::Failure,
    listing,
    log::Log,
    read::{self, with_retry},
    snapshots::MongoSnapshotStore,
    tail::{self, Tail},
};

/// The storage of a [`crate::MongoStore`].
#[derive(Clone, Debug)]
pub(crate) struct MongoBackend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    tail: Arc<Tail>,
    snapshots: Arc<MongoSnapshotStore>,
    consumers: Arc<MongoConsumers>,
    /// The sender to the writer task, until the store is closed.
    queue: Mutex<Option<mpsc::Sender<Pending>>>,
    writing: Mutex<Option<JoinHandle<()>>>,
}

/// Returns the time of the system's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the clock that gives events their recorded time"
)]
fn system_time() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

impl MongoBackend {
    pub(crate) async fn open(options: MongoOptions) -> Result<Self, OpenError> {
        let log = Log::open(options).await?;
        let tail = Tail::new(log.clone());
        let (queue, writing) = Writer::start(log.clone(), Arc::clone(&tail), system_time);
        Ok(Self {
            inner: Arc::new(Inner {
                snapshots: Arc::new(MongoSnapshotStore::new(log.clone())),
                consumers: Arc::new(MongoConsumers::new(log.clone(), system_time)),
                log,
                tail,
                queue: Mutex::new(Some(queue)),
                writing: Mutex::new(Some(writing)),
            }),
        })
    }

    pub(crate) fn log(&self) -> &Log {
        &self.inner.log
    }

    fn queue(&self) -> Result<mpsc::Sender<Pending>, AppendError> {
        let queue = self
            .inner
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queue.clone().ok_or_else(|| Failure::Closed.not_written())
    }
}

impl Backend for MongoBackend {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let queued = self.queue()?.send(Pending { append, answer }).await;
            queued.map_err(|_| Failure::Closed.not_written())?;
            // A sender that is dropped without an answer ended with its runtime, maybe in the middle of an insert.
            outcome
                .await
                .unwrap_or_else(|_| Err(Failure::RuntimeEnded.outcome_unknown()))
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        read::read(self.inner.log.clone(), read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        tail::subscribe(self.inner.log.clone(), &self.inner.tail, subscription)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        Box::pin(async {
            let log = &self.inner.log;
            with_retry(log, || log.head())
                .await
                .map_err(Failure::into_read_error)
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async {
            let writes = self.queue().is_ok_and(|queue| !queue.is_closed());
            if !writes {
                return Err(Failure::Closed.into_read_error());
            }
            self.head().await.map(drop)
        })
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        listing::streams(self.inner.log.clone(), list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(async {
            let log = &self.inner.log;
            let newest = with_retry(log, || log.newest())
                .await
                .map_err(Failure::into_read_error)?;
            let (commits, last) = newest.map_or((0, 0), |newest| (newest.number, newest.last));
            let head = to_u64(last).map_err(Failure::into_read_error)?;
            let mut stats = StoreStats::default();
            stats.events = head;
            stats.head = Position::new(head);
            stats.details = vec![("commits".into(), commits.to_string())];
            Ok(stats)
        })
    }

    fn capabilities(&self) -> Capabilities {
        // Every id is found by an index, however old it is.
        Capabilities::new(!self.inner.log.options().lost_commits, u64::MAX)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.inner.snapshots) as Arc<dyn SnapshotStore>
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::clone(&self.inner.consumers) as Arc<dyn Consumers>
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            let take_queue = || {
                self.inner
                    .queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
            };
            drop(take_queue());
            let take_task = || {
                self.inner
                    .writing
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take()
            };
            let finished = match take_task() {
                Some(writing) => writing.await,
                None => Ok(()),
            };
            self.inner.tail.close();
            finished.map_err(|error| AppendError::Unavailable {
                cause: Arc::new(error),
            })
        })
    }

    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>> {
        Box::pin(async move {
            let log = &self.inner.log;
            let found = with_retry(log, || listing::current(log, &stream)).await;
            found.map(CurrentRevision).map_err(Failure::into_read_error)
        })
    }

    fn entries(&self, after: Position) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
        entries::entries(self.inner.log.clone(), after)
    }

    fn erase(
        &self,
        truncations: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        erase::erase(self.inner.log.clone(), truncations, bytes_per_second)
    }

    fn is_exclusive(&self) -> bool {
        // Any number of processes may share the database.
        false
    }
}
