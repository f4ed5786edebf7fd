//! The contract of every store: its methods, and the values they take and return.
//!
//! **Owns:** [`EventStore`] and the values that only it uses.
//! **Does not know:** how any store works; back ends; retention.
//! **Invariants:** object-safe, so that no caller carries a store type parameter; every stream is lazy and
//! holds a bounded number of bytes; dropping a future or a stream releases what it holds.

mod listing;
mod reading;
pub(crate) mod stream_metadata;
mod stream_state;

use std::{fmt::Debug, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};

pub use self::{
    listing::{ListStreams, StoreStats, StreamInfo},
    reading::{Delivery, ReadBatch, Subscription},
    stream_metadata::{
        DELETED_STREAM_TRUNCATE_BEFORE, METADATA_EVENT_TYPE, StreamMetadata, TOMBSTONE_EVENT_TYPE,
    },
    stream_state::{Delete, Scavenge, ScavengeProgress, StreamState, StreamStatus},
};
use crate::{
    AppendError, Backend, ReadError, SnapshotStore, TransactionAppender,
    consumers::{Consumers, UnsupportedConsumers},
};

/// A store of events. Cheap to share behind an `Arc`; every method may be called from many tasks at once.
///
/// ```
/// use futures_util::TryStreamExt;
/// use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, StreamName};
/// use leftfold_store::{EventStore, MemoryStore};
/// use std::sync::Arc;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
/// let stream = StreamName::new("account-1")?;
/// let deposit = NewEvent::json(EventType::new("DepositMade")?, r#"{"amount":100}"#);
/// store.append(Append::to(stream.clone(), ExpectedRevision::NoStream, vec![deposit])?).await?;
///
/// let mut batches = store.read(Read::stream(stream));
/// while let Some(batch) = batches.try_next().await? {
///     for event in &batch.events {
///         assert_eq!(event.event_type.as_str(), "DepositMade");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub trait EventStore: Debug + Send + Sync + 'static {
    /// Appends all events of `append` or none, and resolves when they are durable.
    ///
    /// # Guarantees
    /// After `Ok` the events survive whatever [`Capabilities::durable`] promises, and every read that starts
    /// later sees them. Positions are dense and follow the order of commits.
    ///
    /// If the events of an append are stored already, by id, where it would put them, it resolves to their original
    /// positions with [`Appended::repeated`]. With an exact revision or "no stream" this holds without a limit, with
    /// "any" and "exists" for the newest [`Capabilities::recent_ids`] events of the store.
    ///
    /// # Errors
    /// [`AppendError`]; [`AppendError::is_definitely_not_written`] says whether to repeat, or to reload and decide again.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the append.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Looks up what appends to this stream depend on, so that an append is submitted at its first poll.
    ///
    /// Await this before each append if you pipeline several and need them decided in the order you first poll them.
    /// Errors are ignored here; the append will report them.
    ///
    /// # Cost
    /// Nothing for a stream that was prepared lately, otherwise about a read of one event.
    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        let _ = stream;
        Box::pin(std::future::ready(()))
    }

    /// Reads events as of the first poll.
    ///
    /// A read of one stream returns what its metadata retains ([`crate::StreamMetadata`]). Every other read returns all
    /// events that [`Self::scavenge`] has not erased.
    ///
    /// Yields at least one batch, even if nothing matches, so that the caller gets a
    /// [`ReadBatch::token`]. All batches of one read carry the same token. An error ends the stream.
    ///
    /// # Errors
    /// [`ReadError`]; an error never looks like the end.
    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>>;

    /// Subscribes to the log: stored events, then new ones, in order, without a gap or a repetition.
    ///
    /// If nothing is stored after the checkpoint, the first delivery is empty and caught up. The stream
    /// ends after an error or when the store is closed.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Invalid`] for a checkpoint beyond the end of the log. Such a checkpoint belongs to another
    /// log, or the log was restored to an earlier head. Waiting for it would skip the events appended until then.
    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>>;

    /// Returns the position of the newest committed event; [`Position::START`] if there is none.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>>;

    /// Checks that the store accepts reads and appends, as far as that is known without one. For health probes, so it
    /// costs little.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] with the reason: the store is closed, read-only since its disk failed, not reached.
    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move { self.head().await.map(drop) })
    }

    /// Returns the state of a stream: whether it exists, its first readable revision, and its metadata.
    ///
    /// # Errors
    /// [`ReadError`].
    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>>;

    /// Deletes a stream: see [`Delete`]. Resolves when that is durable.
    ///
    /// # Errors
    /// [`AppendError`]: a wrong revision if the stream is not as expected or does not exist, a deleted stream if it has
    /// a tombstone.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the deletion.
    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Erases the events that no stream read can return, and reclaims their space, while the store continues to work.
    /// Positions and revisions stay. Reads of the log and queries skip erased events too.
    ///
    /// Dropping the stream stops the scavenge after its current step. What is erased stays erased, and the next run
    /// erases the rest.
    ///
    /// # Errors
    /// [`ReadError`].
    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>>;

    /// Lists streams in the byte order of their names, without those that are deleted.
    ///
    /// # Errors
    /// [`ReadError`].
    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>>;

    /// Returns counts and sizes, for people and dashboards.
    ///
    /// # Errors
    /// [`ReadError`].
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>>;

    /// Returns what this store promises where stores may differ.
    fn capabilities(&self) -> Capabilities;

    /// Returns the store of snapshots, which is beside the log and never part of it.
    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    /// Returns the store of consumers, which is beside the log and never part of it.
    ///
    /// By default, every call is an error: [`ConsumerError::Unsupported`].
    ///
    /// [`ConsumerError::Unsupported`]: crate::consumers::ConsumerError::Unsupported
    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(UnsupportedConsumers {
            store: std::any::type_name::<Self>(),
        })
    }

    /// The storage under this store's rules about streams, for exact copies ([`crate::restore`]); `None` if it is not
    /// reachable from here, as over a network.
    ///
    /// What is appended through it heeds no metadata, and this value may remember the state of streams from before.
    fn storage(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// Returns what appends in transactions of the store's database that the application drives; `None` if the store is in no
    /// such database.
    fn transaction_appender(&self) -> Option<Arc<dyn TransactionAppender>> {
        None
    }

    /// Stops accepting appends, finishes the accepted ones, and releases the store's resources.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] if the store could not close cleanly; acknowledged events are safe in any case.
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>>;
}

/// The promises in which stores may differ. All others are the contract's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Acknowledged events survive the end of the process and a power cut.
    pub durable: bool,
    /// How many of the newest events are remembered by id for retries with "any" and "exists".
    pub recent_ids: u64,
}

impl Capabilities {
    /// Creates the capabilities of a store.
    #[must_use]
    pub const fn new(durable: bool, recent_ids: u64) -> Self {
        Self {
            durable,
            recent_ids,
        }
    }
}
