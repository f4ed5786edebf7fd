//! The lifecycle of streams over any back end: metadata, retention, deletion, tombstones, scavenging.
//!
//! **Owns:** [`BackendStore`], the one place that applies the rules of a stream's lifecycle.
//! **Does not know:** how a back end stores; wire protocols and their words for these rules.
//! **Invariants:** the newest event of its metadata stream defines a stream's lifecycle; every append checks, atomically
//! with its commit, the lifecycle state it was planned against; retention limits reads of one stream only, and reads of the
//! log return every event until it is erased.
//! **Reading order:** [`BackendStore`], `lifecycle`, `plan`, `write`, `read`, `sweep`,
//! `storage`.

mod lifecycle;
mod plan;
mod read;
mod storage;
mod sweep;
mod write;

use std::{collections::HashSet, fmt, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, TryStreamExt, future, stream};
use leftfold_model::{Append, Appended, Position, Read, Revision, Scope, StreamName, Timestamp};

pub use self::write::append_in_transaction;
use self::{
    lifecycle::{LifecycleCache, Phase},
    storage::Storage,
};
use crate::{
    AppendError, Backend, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch,
    ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState,
    StreamStatus, Subscription, UnknownOutcomes, consumers::Consumers,
};

/// A store: a back end with the rules of stream lifecycles.
///
/// Clones share the back end.
pub struct BackendStore<B: ?Sized> {
    lifecycles: Arc<LifecycleCache>,
    outcomes: Arc<UnknownOutcomes>,
    clock: Clock,
    backend: Arc<B>,
}

/// The clock by which events age.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

impl<B: ?Sized> Clone for BackendStore<B> {
    fn clone(&self) -> Self {
        Self {
            lifecycles: Arc::clone(&self.lifecycles),
            outcomes: Arc::clone(&self.outcomes),
            clock: Arc::clone(&self.clock),
            backend: Arc::clone(&self.backend),
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for BackendStore<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)
    }
}

impl<B: Backend> BackendStore<B> {
    /// Creates the store over this back end, in which events age by the system's clock.
    #[must_use]
    pub fn from_backend(backend: B) -> Self {
        Self::from_backend_with_clock(backend, crate::clock::system_time)
    }

    /// Creates the store over this back end, in which events age by this clock.
    #[must_use]
    pub fn from_backend_with_clock(
        backend: B,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            lifecycles: Arc::new(LifecycleCache::new()),
            outcomes: Arc::default(),
            clock: Arc::new(clock),
            backend: Arc::new(backend),
        }
    }

    /// Returns the back end.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    async fn state(&self, stream: StreamName) -> Result<StreamState, ReadError> {
        let window = self.window(&stream).await?;
        let last = self.backend.current(stream.clone()).await?.0;
        let next = last.map_or(Revision::FIRST, Revision::next);
        let status = match (window.lifecycle.phase, last) {
            (Phase::Tombstoned, _) => StreamStatus::Tombstoned,
            // The metadata of a deleted stream is still there: it tells of the deletion.
            (Phase::Deleted, Some(_)) if stream.is_metadata_stream() => StreamStatus::Present,
            (Phase::Deleted, _) => StreamStatus::Deleted,
            (Phase::Live, None) => StreamStatus::Absent,
            (Phase::Live, Some(_)) => StreamStatus::Present,
        };
        let first = match status {
            StreamStatus::Present => self.first_readable(&window, &stream, next).await?,
            _ => next,
        };
        Ok(StreamState {
            status,
            first,
            last,
            metadata: window.lifecycle.metadata(),
            metadata_revision: window.lifecycle.revision.0,
        })
    }

    /// Returns the streams of a listing that are not deleted.
    async fn undeleted(&self, infos: Vec<StreamInfo>) -> Result<Vec<StreamInfo>, ReadError> {
        if self.lifecycles.is_known_empty(&*self.backend).await? {
            return Ok(infos);
        }
        let described = self.described(&infos).await?;
        let mut kept = Vec::with_capacity(infos.len());
        for info in infos {
            let phase = match described.contains(&info.stream) {
                true => {
                    self.lifecycles
                        .of(&*self.backend, &info.stream)
                        .await?
                        .phase
                }
                false => Phase::Live,
            };
            if phase == Phase::Live {
                kept.push(info);
            }
        }
        Ok(kept)
    }

    /// Returns those of a run of streams, in the order of their names, that may have metadata, by one listing instead of
    /// a lookup for each.
    async fn described(&self, infos: &[StreamInfo]) -> Result<HashSet<StreamName>, ReadError> {
        let mut names = infos
            .iter()
            .filter_map(|info| info.stream.metadata_stream());
        let Some(first) = names.next() else {
            return Ok(HashSet::new());
        };
        let last = names.next_back().unwrap_or_else(|| first.clone());
        let mut found: HashSet<_> = first.described_stream().into_iter().collect();
        let mut listed = self.backend.streams(ListStreams {
            prefix: "$$".into(),
            after: Some(first),
            limit: None,
        });
        while let Some(infos) = listed.try_next().await? {
            let within = infos.iter().take_while(|info| info.stream <= last);
            found.extend(within.filter_map(|info| info.stream.described_stream()));
            if infos.last().is_none_or(|info| info.stream > last) {
                break;
            }
        }
        Ok(found)
    }
}

impl<B: Backend> EventStore for BackendStore<B> {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(self.write(append))
    }

    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // Where other processes write too, an append uses the cached lifecycle and its checks verify it.
            if self.backend.is_exclusive() {
                // The append repeats this lookup and reports its error.
                let _ = self.lifecycles.of(&*self.backend, stream).await;
            }
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        let Scope::Stream(stream) = read.scope.clone() else {
            return self.backend.read(read);
        };
        let this = self.clone();
        Box::pin(stream::once(async move { this.read_retained(stream, read).await }).try_flatten())
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let this = self.clone();
        let begin = async move {
            let after = subscription.after;
            // Asked before anything else about the stream: what is appended behind it is shown in any case.
            let head = this.backend.head().await?;
            if after > head {
                return Err(ReadError::Invalid {
                    reason: format!(
                        "checkpoint {after} is behind the end of the log, position {head}: it is that of another log, or \
                         of one that lost its end"
                    ),
                });
            }
            let current = (after == head).then(|| {
                Ok(Delivery {
                    events: Vec::new(),
                    through: head,
                    caught_up: true,
                })
            });
            let deliveries = match subscription.scope.clone() {
                Scope::Stream(stream) => {
                    this.subscribe_retained(stream, subscription, head).await?
                }
                _ => this.backend.subscribe(subscription),
            };
            Ok(stream::iter(current).chain(deliveries))
        };
        Box::pin(stream::once(begin).try_flatten())
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.backend.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.backend.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        Box::pin(self.state(stream))
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(self.end(delete))
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.clone().sweep(scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        let this = self.clone();
        let limit = list.limit.unwrap_or(u64::MAX);
        // Some of those listed may be deleted, so the back end is not bound: dropping its stream ends its work.
        let all = self.backend.streams(ListStreams {
            limit: None,
            ..list
        });
        let undeleted = all.and_then(move |infos| {
            let this = this.clone();
            async move { this.undeleted(infos).await }
        });
        let bounded = undeleted.scan(limit, |remaining, infos| {
            let within = infos.map(|mut infos: Vec<StreamInfo>| {
                infos.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= infos.len() as u64;
                infos
            });
            // A batch of deleted streams is empty; a batch beyond the limit is too, and ends the listing.
            let done = *remaining == 0 && matches!(&within, Ok(infos) if infos.is_empty());
            future::ready((!done).then_some(within))
        });
        Box::pin(bounded.try_filter(|infos| future::ready(!infos.is_empty())))
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

    fn storage(&self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Storage {
            backend: Arc::clone(&self.backend),
            lifecycles: Arc::clone(&self.lifecycles),
        }))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.backend.close()
    }
}
