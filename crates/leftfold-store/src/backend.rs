//! What a kind of storage has to do; the rules about the lives of streams come on top.
//!
//! **Owns:** [`Backend`], [`AppendTransaction`] and the values that only it uses.
//! **Does not know:** metadata, retention, deletion: [`crate::RetentionStore`] adds them, once for every back end.
//! **Invariants:** as [`EventStore`](crate::EventStore), whose methods of the same names say what is promised.

use std::{fmt::Debug, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{
    Append, Appended, CurrentRevision, Position, Read, RecordedEvent, Revision, StreamName,
};

use crate::{
    AppendError, Capabilities, Delivery, ListStreams, ReadBatch, ReadError, ScavengeProgress,
    SnapshotStore, StoreStats, StreamInfo, Subscription,
};

/// A place where events are stored and found again. It treats all streams alike, metadata streams included.
///
/// Each method is the one of the same name of [`EventStore`](crate::EventStore), without retention and deletion.
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

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>>;

    /// The revision of a stream's newest event, be it erased or not.
    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>>;

    /// Reclaims the space of the events that `cuts` name, telling from time to time how far it is. Their places stay
    /// taken; no read or subscription delivers them afterwards. Cuts come in any order, each stream at most once.
    fn erase(
        &self,
        cuts: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>>;

    /// Whether nobody writes to this storage but through this value and its clones. Then what was learned of streams may
    /// be kept in memory.
    fn is_exclusive(&self) -> bool;
}

/// A transaction of an application's own in the back end's storage: what it has written already counts, nobody else sees
/// it yet. [`crate::append_in_transaction`] appends in it under the rules of a stream's life.
pub trait AppendTransaction: Send + Sync {
    /// As [`Backend::append`]; the lives of streams cannot change any more between this and the end of the transaction.
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>>;

    /// The newest event of a stream.
    fn newest(&self, stream: StreamName)
    -> BoxFuture<'_, Result<Option<RecordedEvent>, ReadError>>;

    /// As [`Backend::current`].
    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>>;
}

/// All events of a stream below a revision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// The stream.
    pub stream: StreamName,
    /// The first revision that stays.
    pub before: Revision,
}
