//! The store: the contract over PostgreSQL, and what goes beyond it.
//!
//! **Owns:** [`PostgresStore`]. **Does not know:** SQL; the rooms below do.
//! **Invariants:** clones are the same store; nothing waits for a lock of this process while it waits for the server.

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_store::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch, ReadError,
    RetentionStore, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState,
    Subscription,
};
use tokio_postgres::Transaction;

use crate::{
    Checkpoints, Connection, DatabaseError, Leases, Migration, OpenError, Parked, PostgresOptions,
    Report, append, backend::PostgresBackend, connect::Session, pool::Pool, schema, verify,
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
    retained: RetentionStore<PostgresBackend>,
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
        let backend = PostgresBackend::open(options).await?;
        Ok(Self {
            retained: RetentionStore::from_backend(backend),
        })
    }

    /// Brings the schema at an address to the newest version; returns what was run.
    ///
    /// All steps run in one transaction under a lock: on an error the schema is as it was, and several may try at once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn migrate(options: &PostgresOptions) -> Result<Vec<Migration>, OpenError> {
        let link = Session::open(options).await?;
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
        Connection::open(self.pool().options()).await
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
        append::append_in(transaction, append, self.pool().options()).await
    }

    fn pool(&self) -> &Arc<Pool> {
        self.retained.backend().pool()
    }

    /// Where consumers keep how far they are.
    #[must_use]
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(Arc::clone(self.pool()))
    }

    /// Who does what, when only one process may.
    #[must_use]
    pub fn leases(&self) -> Leases {
        Leases::new(Arc::clone(self.pool()))
    }

    /// Events that a consumer has put aside.
    #[must_use]
    pub fn parked(&self) -> Parked {
        Parked::new(Arc::clone(self.pool()))
    }

    /// Reads all of the log and compares what must agree; changes nothing.
    ///
    /// # Errors
    /// [`DatabaseError`]. What does not agree is no error but a [`Report::findings`].
    /// # Cost
    /// Several passes over tables and indexes, without a limit of time.
    pub async fn verify(&self) -> Result<Report, DatabaseError> {
        Ok(verify::verify(self.pool()).await?)
    }
}

impl EventStore for PostgresStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.retained.append(append)
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.retained.read(read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.retained.subscribe(subscription)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.retained.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.retained.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.retained.stream_state(stream)
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.retained.delete(delete)
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.retained.scavenge(scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.retained.streams(list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.retained.stats()
    }

    fn capabilities(&self) -> Capabilities {
        self.retained.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.retained.snapshots()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.retained.close()
    }
}
