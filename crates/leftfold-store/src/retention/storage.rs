//! The storage below the rules about streams, as others get it.
//!
//! **Owns:** [`Storage`], which announces what is written below to the cache of lifecycles above.
//! **Does not know:** what is written, and why. **Invariants:** no metadata is written that the cache does not hear of.

use std::{fmt, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, CurrentRevision, Position, Read, StreamName};

use super::lifecycle::LifecycleCache;
use crate::{
    AppendError, Backend, Capabilities, Delivery, ListStreams, LogEntry, ReadBatch, ReadError,
    ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, Subscription, Truncation,
    consumers::Consumers,
};

/// A back end whose writes change the lifecycles that a store above it has cached.
pub(super) struct Storage<B> {
    pub(super) backend: Arc<B>,
    pub(super) lifecycles: Arc<LifecycleCache>,
}

impl<B: fmt::Debug> fmt::Debug for Storage<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

impl<B: Backend> Backend for Storage<B> {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let writes = append.writes().iter();
            let described = writes.filter_map(|write| write.stream.described_stream());
            let change = self.lifecycles.change(described.collect());
            let outcome = self.backend.append(append).await;
            if !matches!(outcome, Err(AppendError::OutcomeUnknown { .. })) {
                change.finish();
            }
            outcome
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.backend.read(read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.backend.subscribe(subscription)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.backend.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.backend.check()
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.backend.streams(list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.backend.stats()
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.backend.snapshots()
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.backend.consumers()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.backend.close()
    }

    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>> {
        self.backend.current(stream)
    }

    fn entries(&self, after: Position) -> BoxStream<'static, Result<Vec<LogEntry>, ReadError>> {
        self.backend.entries(after)
    }

    fn erase(
        &self,
        truncations: Vec<Truncation>,
        bytes_per_second: Option<u64>,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.backend.erase(truncations, bytes_per_second)
    }

    fn is_exclusive(&self) -> bool {
        self.backend.is_exclusive()
    }
}
