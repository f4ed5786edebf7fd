//! The back end: the modules of this crate as one [`Backend`].
//!
//! **Owns:** [`PostgresBackend`].
//! **Does not know:** SQL; stream lifecycles, which [`BackendStore`](leftfold_store::BackendStore) adds.
//! **Invariants:** clones are the same storage. No lock of this process is held while a call waits for the server.

use std::sync::{Arc, Mutex, PoisonError};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, CurrentRevision, Position, Read, StreamName};
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
    OpenError, PostgresOptions,
    append::{Pending, Writer},
    consumers::PostgresConsumers,
    erase,
    error::Failure,
    listing,
    pool::Pool,
    read, schema,
    session::Session,
    snapshots::PostgresSnapshotStore,
    subscribe::{self, Tail},
};

/// The storage of a [`crate::PostgresStore`].
#[derive(Clone, Debug)]
pub(crate) struct PostgresBackend {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    tail: Arc<Tail>,
    snapshots: Arc<PostgresSnapshotStore>,
    consumers: Arc<PostgresConsumers>,
    /// The queue of the writer task; `None` once the store is closed.
    queue: Mutex<Option<mpsc::Sender<Pending>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl PostgresBackend {
    pub(crate) async fn open(options: PostgresOptions) -> Result<Self, OpenError> {
        options.check_schema()?;
        let session = Session::open(&options).await?;
        schema::ensure_schema(&session, &options).await?;
        drop(session);
        let pool = Pool::new(options);
        let tail = Tail::new(pool.options().clone());
        let (queue, writer) = Writer::start(pool.options().clone(), Arc::clone(&tail));
        Ok(Self {
            inner: Arc::new(Inner {
                snapshots: Arc::new(PostgresSnapshotStore::new(Arc::clone(&pool))),
                consumers: Arc::new(PostgresConsumers::new(Arc::clone(&pool))),
                pool,
                tail,
                queue: Mutex::new(Some(queue)),
                writer: Mutex::new(Some(writer)),
            }),
        })
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }

    fn closed() -> AppendError {
        AppendError::Unavailable {
            cause: Arc::new(Failure::Closed),
        }
    }

    fn queue(&self) -> Result<mpsc::Sender<Pending>, AppendError> {
        let queue = self
            .inner
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queue.clone().ok_or_else(Self::closed)
    }
}

impl Backend for PostgresBackend {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let (sender, outcome) = oneshot::channel();
            let queued = self.queue()?.send(Pending::new(append, sender)).await;
            queued.map_err(|_| Self::closed())?;
            // The writer task ended with its runtime, maybe in the middle of a commit.
            outcome
                .await
                .unwrap_or_else(|_| Err(Failure::RuntimeEnded.into_append_error()))
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        read::read(Arc::clone(&self.inner.pool), read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        subscribe::subscribe(
            Arc::clone(&self.inner.pool),
            Arc::clone(&self.inner.tail),
            subscription,
        )
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        let pool = &self.inner.pool;
        Box::pin(read::with_retry(pool, move || async move {
            let pooled = pool.get().await?;
            read::head(pooled.session()?, pool.options().schema()).await
        }))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async {
            let accepts_appends = self.queue().is_ok_and(|queue| !queue.is_closed());
            if !accepts_appends {
                return Err(Failure::Closed.into_read_error());
            }
            self.head().await.map(drop)
        })
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        listing::streams(Arc::clone(&self.inner.pool), list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        let pool = &self.inner.pool;
        Box::pin(read::with_retry(pool, move || listing::stats(pool)))
    }

    fn capabilities(&self) -> Capabilities {
        // Event ids stay unique for the lifetime of the log.
        Capabilities::new(!self.inner.pool.options().allow_lost_commits, u64::MAX)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.inner.snapshots) as Arc<dyn SnapshotStore>
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::clone(&self.inner.consumers) as Arc<dyn Consumers>
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async move {
            drop(
                self.inner
                    .queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(),
            );
            let writer = self
                .inner
                .writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let finished = match writer {
                Some(writer) => writer.await,
                None => Ok(()),
            };
            self.inner.tail.close();
            finished.map_err(|error| AppendError::Unavailable {
                cause: Arc::new(error),
            })
        })
    }

    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>> {
        let pool = &self.inner.pool;
        Box::pin(async move {
            read::with_retry(pool, || async {
                let pooled = pool.get().await?;
                listing::current_in(pooled.session()?, pool.options(), &stream).await
            })
            .await
        })
    }

    fn entries(&self, after: Position) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
        read::entries(Arc::clone(&self.inner.pool), after)
    }

    fn erase(
        &self,
        truncations: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        erase::erase(Arc::clone(&self.inner.pool), truncations, bytes_per_second)
    }

    fn is_exclusive(&self) -> bool {
        // Any number of processes may append to the database.
        false
    }
}
