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
    AppendError, ReadError, SnapshotStore,
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
    /// Repeating an append whose events (by id) already stand where it would put them answers their original
    /// places with [`Appended::repeated`]. With an exact revision or "no stream" this holds without a limit; with
    /// "any" and "exists" for the newest [`Capabilities::recent_ids`] events of the store.
    ///
    /// # Errors
    /// [`AppendError`]; its [`AppendError::is_definitely_not_written`] tells whether to repeat or to reload and decide again.
    ///
    /// # Cancel safety
    /// Dropping the future does not take back the append.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Looks up what appends to this stream depend on, so that an append is submitted at its first poll.
    ///
    /// Await this before each append if you pipeline several and need them decided in the order you first poll them.
    /// Errors are ignored here; the append will report them.
    ///
    /// # Cost
    /// Nothing for a stream that was prepared lately, else about a read of one event.
    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        let _ = stream;
        Box::pin(std::future::ready(()))
    }

    /// Reads events as of the first poll.
    ///
    /// A read of one stream keeps to what its metadata leaves of it ([`crate::StreamMetadata`]); every other read gives all
    /// events that have not been reclaimed by [`Self::scavenge`].
    ///
    /// Yields at least one batch, also when nothing matches, so that the caller gets a
    /// [`ReadBatch::token`]. All batches of one read carry the same token. An error ends the stream.
    ///
    /// # Errors
    /// [`ReadError`]; never a silent end.
    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>>;

    /// Subscribes to the log: first what is stored, then what is committed, in order, without a gap or a repetition.
    ///
    /// If nothing is stored after the checkpoint, the first delivery is empty and says that it is caught up. The stream
    /// ends after an error or when the store is closed.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Invalid`] for a checkpoint behind the end of the log. Such a checkpoint belongs to another
    /// log, or the log was restored to an earlier head: waiting for it would skip what is appended until then.
    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>>;

    /// The position of the newest committed event; [`Position::START`] if there is none.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`].
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>>;

    /// Whether the store works: it can be read and takes appends, as far as that is known without one. For probes, so it
    /// costs little.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] with the reason: the store is closed, read-only since its disk failed, not reached.
    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move { self.head().await.map(drop) })
    }

    /// What a stream is now: there, absent or deleted, from where it can be read, and its metadata.
    ///
    /// # Errors
    /// [`ReadError`].
    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>>;

    /// Deletes a stream, or what stands in it by now: see [`Delete`]. Resolves when that is durable.
    ///
    /// # Errors
    /// [`AppendError`]: a wrong revision if the stream is not as expected or not there at all, a deleted stream if it is
    /// deleted for good.
    ///
    /// # Cancel safety
    /// Dropping the future does not take back the deletion.
    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Reclaims the space of events that no stream read can deliver any more, while the store goes on working.
    /// Positions and revisions stay; reads of the log and queries lose these events too.
    ///
    /// Dropping the stream stops the work after the part that is under way; what is done stays done, and the next run
    /// does the rest.
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

    /// Counts and sizes, for people and dashboards.
    ///
    /// # Errors
    /// [`ReadError`].
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>>;

    /// What this store promises where stores may differ.
    fn capabilities(&self) -> Capabilities;

    /// Where snapshots of what streams add up to are kept: beside the log, and never part of it.
    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    /// Where consumers of this store's events are kept: beside the log, and never part of it.
    ///
    /// A store that has no place for them answers every call with [`ConsumerError::Unsupported`].
    ///
    /// [`ConsumerError::Unsupported`]: crate::consumers::ConsumerError::Unsupported
    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(UnsupportedConsumers {
            store: std::any::type_name::<Self>(),
        })
    }

    /// Stops accepting appends, finishes what was accepted, and releases what the store holds.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] if the store could not stop cleanly; everything acknowledged is safe anyway.
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>>;
}

/// Where stores may differ. Everything else is the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Acknowledged events survive the end of the process and a power cut.
    pub durable: bool,
    /// How many of the newest events are remembered by id for retries with "any" and "exists".
    pub recent_ids: u64,
}

impl Capabilities {
    /// The capabilities of a store.
    #[must_use]
    pub const fn new(durable: bool, recent_ids: u64) -> Self {
        Self {
            durable,
            recent_ids,
        }
    }
}
