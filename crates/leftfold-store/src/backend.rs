//! The contract of a back end: storage without the rules of a stream's lifecycle.
//!
//! **Owns:** [`Backend`], [`AppendTransaction`] and the values that only they use.
//! **Does not know:** metadata, retention, deletion: [`crate::BackendStore`] adds them, once for every back end.
//! **Invariants:** those of [`EventStore`](crate::EventStore) for methods of equal names.

use std::{fmt::Debug, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{
    Append, Appended, CurrentRevision, EventId, EventType, Position, Read, RecordedEvent, Revision,
    StreamName, Tag,
};

use crate::{
    AppendError, Capabilities, Delivery, ListStreams, ReadBatch, ReadError, ScavengeProgress,
    SnapshotStore, StoreStats, StreamInfo, Subscription,
    consumers::{Consumers, UnsupportedConsumers},
};

/// A storage of events. It treats all streams alike, metadata streams included.
///
/// Each method is the one of that name of [`EventStore`](crate::EventStore), without retention and deletion.
/// [`BackendStore`](crate::BackendStore) makes a store of a back end:
///
/// ```
/// use leftfold_model::Position;
/// use leftfold_store::{Backend, EventStore, MemoryStore, BackendStore};
///
/// fn store(backend: impl Backend) -> impl EventStore {
///     BackendStore::from_backend(backend)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), leftfold_store::ReadError> {
/// // The back end of a store is reachable, for what goes beyond the contract.
/// let memory = MemoryStore::new();
/// assert_eq!(memory.backend().head().await?, Position::START);
/// assert!(store(memory.backend().clone()).stats().await?.events == 0);
/// # Ok(())
/// # }
/// ```
#[expect(
    missing_docs,
    reason = "the methods are described where callers meet them"
)]
pub trait Backend: Debug + Send + Sync + 'static {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>>;

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>>;

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>>;

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        Box::pin(async move { self.head().await.map(drop) })
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>>;

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>>;

    fn capabilities(&self) -> Capabilities;

    fn snapshots(&self) -> Arc<dyn SnapshotStore>;

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(UnsupportedConsumers {
            store: std::any::type_name::<Self>(),
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Returns the revision of a stream's newest event, erased or not.
    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>>;

    /// Reads the log behind `after` up to its head when this is first polled: every position in order, erased ones included.
    /// Events are as reads return them.
    fn entries(&self, after: Position) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>>;

    /// Erases the events that `truncations` name, and reports progress. Their positions stay in use; no read or
    /// subscription delivers them afterwards. Truncations come in any order, each stream at most once.
    ///
    /// Of each stream the oldest events are erased first, so that a run that ends early leaves no event in front of an erased
    /// one.
    fn erase(
        &self,
        truncations: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>>;

    /// Returns whether all writes to this storage go through this value and its clones. If so, callers may cache lifecycles
    /// of streams.
    fn is_exclusive(&self) -> bool;
}

/// A transaction of the application in the back end's storage. It sees its own writes; other sessions do not, yet.
/// [`crate::append_in_transaction`] appends in it under the rules about streams.
pub trait AppendTransaction: Send + Sync {
    /// As [`Backend::append`]. The lifecycle of the streams cannot change between this and the end of the transaction.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// Returns the newest event of a stream.
    fn newest(&self, stream: StreamName)
    -> BoxFuture<'_, Result<Option<RecordedEvent>, ReadError>>;

    /// As [`Backend::current`].
    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>>;
}

/// A position of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogEntry {
    /// An event.
    Event(RecordedEvent),
    /// The place of an event that was erased.
    Erased(ErasedEvent),
}

impl LogEntry {
    /// The position.
    #[must_use]
    pub fn position(&self) -> Position {
        match self {
            Self::Event(event) => event.position,
            Self::Erased(erased) => erased.position,
        }
    }

    /// What stays when the event is erased.
    #[must_use]
    pub fn erased(&self) -> ErasedEvent {
        match self {
            Self::Event(event) => ErasedEvent::of(event),
            Self::Erased(erased) => erased.clone(),
        }
    }
}

/// What is left of an event that was erased: its places, and what it is found and recognized by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErasedEvent {
    /// The position in the log.
    pub position: Position,
    /// The stream.
    pub stream: StreamName,
    /// The revision in the stream.
    pub revision: Revision,
    /// The id.
    pub id: EventId,
    /// The type.
    pub event_type: EventType,
    /// The tags, sorted, without duplicates.
    pub tags: Vec<Tag>,
}

impl ErasedEvent {
    /// What would be left of `event` if it were erased.
    #[must_use]
    pub fn of(event: &RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream: event.stream.clone(),
            revision: event.revision,
            id: event.id,
            event_type: event.event_type.clone(),
            tags: event.tags.clone(),
        }
    }
}

/// All events of a stream below a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// The stream.
    pub stream: StreamName,
    /// The first revision that stays.
    pub before: Revision,
}
