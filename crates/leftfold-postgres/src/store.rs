//! The store: the contract over PostgreSQL, and what goes beyond it.
//!
//! **Owns:** [`PostgresStore`]. **Does not know:** SQL; the rooms below do.
//! **Invariants:** clones are the same store; nothing waits for a lock of this process while it waits for the server.

use std::sync::{Arc, Mutex, PoisonError};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read};
use leftfold_store::{
    AppendError, Capabilities, Delivery, EventStore, ListStreams, ReadBatch, ReadError,
    SnapshotStore, StoreStats, StreamInfo, Subscription,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_postgres::Transaction;

use crate::{
    Checkpoints, Connection, DatabaseError, Leases, Migration, OpenError, Parked, PostgresOptions,
    Report,
    append::{self, Pending, Writer},
    connect::Link,
    error::Failure,
    follow::{self, Heads},
    listing,
    pool::Pool,
    read, schema,
    snapshots::PostgresSnapshots,
    verify,
};

/// A store in a PostgreSQL database. Several processes may share one; so may several stores, each in its schema.
///
/// Must be opened inside a tokio runtime with time and I/O enabled, which must live as long. Clones are the same store.
///
/// # Example
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use leftfold_postgres::PostgresStore;
/// let store = PostgresStore::open("postgres://app@localhost/shop").await?;
/// # let _ = store; Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: Arc<Pool>,
    heads: Arc<Heads>,
    snapshots: Arc<PostgresSnapshots>,
    /// The way to the writing task, until the store is closed.
    queue: Mutex<Option<mpsc::Sender<Pending>>>,
    writing: Mutex<Option<JoinHandle<()>>>,
}

impl PostgresStore {
    /// Opens the store at an address as [`PostgresOptions`] reads it, making or migrating its schema if need be.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(address: &str) -> Result<Self, OpenError> {
        Self::open_with(address.parse()?).await
    }

    /// Opens the store with these options.
    ///
    /// # Errors
    /// [`OpenError`]: not reached, not safe, not suited, or of another version.
    pub async fn open_with(options: PostgresOptions) -> Result<Self, OpenError> {
        let link = Link::open(&options).await?;
        schema::settle(&link, &options).await?;
        let partitioned = schema::is_partitioned(&link, &options).await?;
        drop(link);
        let pool = Pool::new(options);
        let heads = Heads::new(Arc::clone(&pool));
        let (queue, writing) = Writer::start(Arc::clone(&pool), Arc::clone(&heads), partitioned);
        Ok(Self {
            inner: Arc::new(Inner {
                snapshots: Arc::new(PostgresSnapshots::new(Arc::clone(&pool))),
                pool,
                heads,
                queue: Mutex::new(Some(queue)),
                writing: Mutex::new(Some(writing)),
            }),
        })
    }

    /// Brings the schema at an address to the newest version; returns what was run.
    ///
    /// All steps run in one transaction under a lock: on an error the schema is as it was, and several may try at once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn migrate(options: &PostgresOptions) -> Result<Vec<Migration>, OpenError> {
        let link = Link::open(options).await?;
        schema::migrate(&link, options).await
    }

    /// All migrations of a store with these options, for those who run them by hand.
    #[must_use]
    pub fn migrations(options: &PostgresOptions) -> Vec<Migration> {
        schema::migrations(options)
    }

    /// A connection to the same database for an application's own transactions. It is none of the store's.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn connection(&self) -> Result<Connection, OpenError> {
        Connection::open(self.inner.pool.options()).await
    }

    /// Appends as a part of an application's own transaction: both are committed, or neither is.
    ///
    /// # Guarantees
    /// As [`EventStore::append`], once the transaction is committed. Until then no one sees the events.
    /// # Limits
    /// The transaction must be read committed. It takes the lock of appends here and keeps it until it ends: everybody else's
    /// appends wait for that. Append last, and commit at once. A transaction that then stands still is ended by the server
    /// ([`PostgresOptions::with_idle_timeout`]).
    /// # Errors
    /// [`AppendError::Conflict`] leaves the transaction usable; after [`AppendError::Unavailable`] it can only be rolled
    /// back. Whether a commit that failed has happened is for the application to find out: repeat the append with the same
    /// ids.
    /// # Example
    /// See `examples/own_table.rs`.
    pub async fn append_in(
        &self,
        transaction: &Transaction<'_>,
        append: Append,
    ) -> Result<Appended, AppendError> {
        append::append_in(transaction, append, self.inner.pool.options()).await
    }

    /// Where consumers keep how far they are.
    #[must_use]
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(Arc::clone(&self.inner.pool))
    }

    /// Who does what, when only one process may.
    #[must_use]
    pub fn leases(&self) -> Leases {
        Leases::new(Arc::clone(&self.inner.pool))
    }

    /// Events that a consumer has put aside.
    #[must_use]
    pub fn parked(&self) -> Parked {
        Parked::new(Arc::clone(&self.inner.pool))
    }

    /// Reads all of the log and compares what must agree; changes nothing.
    ///
    /// # Errors
    /// [`DatabaseError`]. What does not agree is no error but a [`Report::findings`].
    /// # Cost
    /// Several passes over tables and indexes, without a limit of time.
    pub async fn verify(&self) -> Result<Report, DatabaseError> {
        Ok(verify::verify(&self.inner.pool).await?)
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

impl EventStore for PostgresStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let queued = self.queue()?.send(Pending { append, answer }).await;
            queued.map_err(|_| Self::closed())?;
            // A sender that is dropped without an answer went down with its runtime, maybe in the middle of a commit.
            outcome
                .await
                .unwrap_or_else(|_| Err(Failure::Gone.into_append_error()))
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        read::read(Arc::clone(&self.inner.pool), read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        follow::subscribe(
            Arc::clone(&self.inner.pool),
            &self.inner.heads,
            subscription,
        )
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        let pool = &self.inner.pool;
        Box::pin(read::patiently(pool, move || async move {
            let lent = pool.get().await?;
            read::head(lent.link()?, pool.options().schema()).await
        }))
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        listing::streams(Arc::clone(&self.inner.pool), list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        let pool = &self.inner.pool;
        Box::pin(read::patiently(pool, move || listing::stats(pool)))
    }

    fn capabilities(&self) -> Capabilities {
        // Ids are unique for ever.
        Capabilities::new(!self.inner.pool.options().lost_commits, u64::MAX)
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::clone(&self.inner.snapshots) as Arc<dyn SnapshotStore>
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
            let writing = self
                .inner
                .writing
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let finished = match writing {
                Some(writing) => writing.await,
                None => Ok(()),
            };
            self.inner.heads.close();
            finished.map_err(|error| AppendError::Unavailable {
                cause: Arc::new(error),
            })
        })
    }
}
