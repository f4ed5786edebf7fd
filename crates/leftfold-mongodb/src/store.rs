//! The store: the contract over MongoDB.
//!
//! **Owns:** [`MongoStore`]. **Does not know:** documents; the modules below do.
//! **Invariants:** clones are the same store.

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_store::{
    AppendError, Backend, BackendStore, Capabilities, Delete, Delivery, EventStore, ListStreams,
    ReadBatch, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo,
    StreamState, Subscription, consumers::Consumers,
};

use crate::{
    MongoOptions, OpenError, Report, backend::MongoBackend, error::Failure, log::Log, verify,
};

/// A store in a MongoDB database. Several processes may share one; so may several stores, each with its prefix.
///
/// Must be opened inside a tokio runtime with time and I/O enabled, which must live as long. Clones are the same store.
///
/// # Limits
/// The names and tags of one append's events take at most 15 MiB, since one append is one document.
///
/// # Example
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use leftfold_mongodb::MongoStore;
/// let store = MongoStore::open("mongodb://localhost:27017/shop").await?;
/// # let _ = store; Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MongoStore {
    retained: BackendStore<MongoBackend>,
}

impl MongoStore {
    /// Opens the store at an address of [`MongoOptions`], creating its collections and indexes if necessary.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(address: &str) -> Result<Self, OpenError> {
        Self::open_with(address.parse()?).await
    }

    /// Opens the store with these options.
    ///
    /// # Errors
    /// [`OpenError`]: unreachable, unsafe, or created by a newer program.
    pub async fn open_with(options: MongoOptions) -> Result<Self, OpenError> {
        let backend = MongoBackend::open(options).await?;
        Ok(Self {
            retained: BackendStore::from_backend(backend),
        })
    }

    /// Removes a store: drops its collections, with all events in them. Other collections of the database stay.
    ///
    /// # Errors
    /// [`OpenError::Connect`]; some collections may be gone then.
    pub async fn remove(options: MongoOptions) -> Result<(), OpenError> {
        Log::open(options)
            .await?
            .remove()
            .await
            .map_err(OpenError::connect)
    }

    /// Reads the whole log and checks the checksum of every commit, and that it follows the one before.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] names the first commit or event that is damaged; [`ReadError::Unavailable`].
    /// # Cost
    /// One pass over all events.
    pub async fn verify(&self) -> Result<Report, ReadError> {
        verify::verify(self.retained.backend().log())
            .await
            .map_err(Failure::into_read_error)
    }
}

impl EventStore for MongoStore {
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

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.retained.consumers()
    }

    fn storage(&self) -> Option<Arc<dyn Backend>> {
        self.retained.storage()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.retained.close()
    }
}
