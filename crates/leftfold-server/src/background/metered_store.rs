//! A store that counts the calls it forwards.
//!
//! **Owns:** [`MeteredStore`]. **Does not know:** protocols; every call of theirs passes through it.
//! **Invariants:** results pass unchanged; the events of a read count when the caller takes them.

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::StreamExt;
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_store::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch, ReadError,
    Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState, Subscription,
    consumers::Consumers,
};
use tokio::time::Instant;

use crate::background::metrics::Metrics;

/// A store that counts the calls of another.
#[derive(Debug)]
pub(crate) struct MeteredStore {
    store: Arc<dyn EventStore>,
    metrics: Arc<Metrics>,
}

impl MeteredStore {
    pub(crate) fn new(store: Arc<dyn EventStore>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { store, metrics })
    }

    fn note_outcome(&self, outcome: &Result<Appended, AppendError>, begun: Instant) {
        let word = match outcome {
            Ok(appended) if appended.repeated => "repeated",
            Ok(_) => "written",
            Err(AppendError::Conflict(_)) => "conflict",
            Err(AppendError::Invalid { .. }) => "invalid",
            Err(AppendError::AccessDenied { .. }) => "denied",
            Err(AppendError::Unavailable { .. }) => "unavailable",
            // Of what is new here the worst must be expected.
            Err(_) => "unknown",
        };
        self.metrics
            .appends
            .get_or_create(&[("outcome", word)])
            .inc();
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.append_duration.observe(seconds);
    }
}

/// A subscription that is open until this is dropped.
struct Open(Arc<Metrics>);

impl Open {
    fn counted(metrics: &Arc<Metrics>) -> Self {
        metrics.subscriptions.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.subscriptions.dec();
    }
}

fn note_failure(metrics: &Metrics, error: &ReadError) {
    let word = match error {
        ReadError::StreamDeleted { .. } => "deleted",
        ReadError::Corrupt { .. } => "corrupt",
        ReadError::Invalid { .. } => "invalid",
        ReadError::AccessDenied { .. } => "denied",
        _ => "unavailable",
    };
    metrics.failures.get_or_create(&[("reason", word)]).inc();
}

impl EventStore for MeteredStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let events = append.event_count() as u64;
            let bytes: usize = append
                .events()
                .map(|event| event.data().len() + event.metadata().len())
                .sum();
            let outcome = self.store.append(append).await;
            self.note_outcome(&outcome, begun);
            if outcome.as_ref().is_ok_and(|appended| !appended.repeated) {
                self.metrics.events_appended.inc_by(events);
                self.metrics.bytes_appended.inc_by(bytes as u64);
            }
            outcome
        })
    }

    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        self.store.prepare(stream)
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.metrics.reads.inc();
        let metrics = Arc::clone(&self.metrics);
        let counted = self.store.read(read).inspect(move |batch| match batch {
            Ok(batch) => {
                metrics.events_read.inc_by(batch.events.len() as u64);
            }
            Err(error) => note_failure(&metrics, error),
        });
        counted.boxed()
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let open = Open::counted(&self.metrics);
        let counted = self
            .store
            .subscribe(subscription)
            .inspect(move |delivery| match delivery {
                Ok(delivery) => {
                    open.0.events_delivered.inc_by(delivery.events.len() as u64);
                }
                Err(error) => note_failure(&open.0, error),
            });
        counted.boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.store.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.store.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.store.stream_state(stream)
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let begun = Instant::now();
            let outcome = self.store.delete(delete).await;
            self.note_outcome(&outcome, begun);
            outcome
        })
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.store.scavenge(scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.store.streams(list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.store.stats()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.store.snapshots()
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.store.consumers()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.store.close()
    }
}
