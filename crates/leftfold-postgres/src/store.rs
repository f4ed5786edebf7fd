//! The store: the contract over PostgreSQL, and what this store adds to it.
//!
//! **Owns:** [`PostgresStore`]. **Does not know:** SQL.
//! **Invariants:** clones are the same store. No lock of this process is held while a call waits for the server.

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_store::{
    AppendError, Backend, BackendStore, Capabilities, Delete, Delivery, EventStore, ListStreams,
    ReadBatch, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo,
    StreamState, Subscription, TransactionAppender,
    consumers::{Claim, ConsumerChange, ConsumerError, Consumers},
};
use tokio_postgres::Transaction;

use crate::{
    Connection, DatabaseError, Migration, OpenError, PostgresOptions, Report, append,
    backend::PostgresBackend, consumers, pool::Pool, schema, session::Session, verify,
};

/// An event store in a PostgreSQL database.
///
/// Several processes may share one store. Several stores may share a database, each in a schema of its own. A store must be
/// opened inside a tokio runtime with time and I/O enabled, which must outlive it. Clones are the same store.
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
    inner: BackendStore<PostgresBackend>,
}

impl PostgresStore {
    /// Opens the store at an address that [`PostgresOptions`] parses. Creates or migrates its schema if necessary.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(address: &str) -> Result<Self, OpenError> {
        Self::open_with(address.parse()?).await
    }

    /// Opens the store with these options. Creates or migrates its schema if necessary.
    ///
    /// # Errors
    /// [`OpenError`] if the server is unreachable, unsafe or unsupported, or if the schema has another version.
    pub async fn open_with(options: PostgresOptions) -> Result<Self, OpenError> {
        let backend = PostgresBackend::open(options).await?;
        Ok(Self {
            inner: BackendStore::from_backend(backend),
        })
    }

    /// Brings the schema to [`crate::SCHEMA_VERSION`] and returns the migrations that ran.
    ///
    /// All migrations run in one transaction under a lock. On an error the schema is unchanged. Several processes may call
    /// this at the same time.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn migrate(options: &PostgresOptions) -> Result<Vec<Migration>, OpenError> {
        options.check_schema()?;
        let session = Session::open(options).await?;
        schema::migrate(&session, options).await
    }

    /// Returns all migrations of a store with these options, for operators who run them by hand.
    #[must_use]
    pub fn migrations(options: &PostgresOptions) -> Vec<Migration> {
        schema::migrations(options)
    }

    /// Opens a connection to the same database for an application's own transactions, outside the pool of the store.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn connection(&self) -> Result<Connection, OpenError> {
        Connection::open(self.pool().options()).await
    }

    /// Appends as a part of an application's transaction. The commit makes both durable, or neither.
    ///
    /// # Guarantees
    /// Those of [`EventStore::append`], once the transaction is committed. No other session sees the events before that.
    /// # Limits
    /// The isolation level must be read committed. The call acquires the lock of appends and the transaction holds it to its
    /// end, so all other appends wait. Append last and commit at once. The server ends a transaction that stays idle
    /// afterwards ([`PostgresOptions::with_idle_timeout`]).
    /// # Errors
    /// [`AppendError::Conflict`] leaves the transaction usable. After [`AppendError::Unavailable`] it can only be rolled back.
    /// If the commit itself fails, its outcome is unknown: repeat the append with the same event ids.
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
        self.inner.backend().pool()
    }

    /// Advances a consumer as a part of an application's transaction: with the effects of the events, or not at all.
    ///
    /// Returns the claim to continue with after the commit. After a rollback, continue with the one that was passed.
    ///
    /// # Guarantees
    /// Effects that are written in the transaction are committed exactly once: a holder that was overtaken, and a second
    /// task under the same claim, wait for this transaction to end and then get an error.
    /// # Limits
    /// Those of [`Consumers::advance`]. Other changes of the consumer, renewing its claim included, wait until the
    /// transaction ends: advance last and commit at once.
    /// # Errors
    /// [`ConsumerError::Lost`], [`ConsumerError::Full`], and [`ConsumerError::Moved`], also if the checkpoint is at `to`
    /// already: these effects were committed before. The transaction stays usable, but roll it back. After
    /// [`ConsumerError::Unavailable`] it can only be rolled back.
    /// # Example
    /// ```no_run
    /// # use std::time::Duration;
    /// # use leftfold_postgres::PostgresStore;
    /// # use leftfold_store::{EventStore, consumers::{ClaimRequest, ConsumerName}};
    /// # async fn run(store: PostgresStore) -> Result<(), Box<dyn std::error::Error>> {
    /// let request = ClaimRequest::new(ConsumerName::new("balances")?, "host-1", Duration::from_secs(10));
    /// let mut claim = store.consumers().claim(&request).await?;
    /// let mut connection = store.connection().await?;
    /// let transaction = connection.transaction().await?;
    /// let to = claim.position.next();
    /// transaction.execute("update balances set total = total + 5", &[]).await?;
    /// let advanced = store.advance_in(&transaction, &claim, to, &[]).await?;
    /// transaction.commit().await?;
    /// claim = advanced;
    /// # Ok(()) }
    /// ```
    pub async fn advance_in(
        &self,
        transaction: &Transaction<'_>,
        claim: &Claim,
        to: Position,
        changes: &[ConsumerChange],
    ) -> Result<Claim, ConsumerError> {
        consumers::advance_in(transaction, claim, to, changes, self.pool().options()).await
    }

    /// Reads the whole log and checks its invariants. Changes nothing.
    ///
    /// # Errors
    /// [`DatabaseError`] if a query fails. A violated invariant is not an error but one of [`Report::findings`].
    /// # Cost
    /// Several passes over all tables and indexes, without a time limit.
    pub async fn verify(&self) -> Result<Report, DatabaseError> {
        Ok(verify::verify(self.pool()).await?)
    }
}

impl EventStore for PostgresStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.inner.append(append)
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.inner.read(read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.inner.subscribe(subscription)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.inner.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.inner.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.inner.stream_state(stream)
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.inner.delete(delete)
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.inner.scavenge(scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.inner.streams(list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.inner.stats()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.inner.snapshots()
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.inner.consumers()
    }

    fn storage(&self) -> Option<Arc<dyn Backend>> {
        self.inner.storage()
    }

    fn transaction_appender(&self) -> Option<Arc<dyn TransactionAppender>> {
        let pool = Arc::clone(self.pool());
        Some(Arc::new(append::PostgresTransactionAppender::new(pool)))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.inner.close()
    }
}
