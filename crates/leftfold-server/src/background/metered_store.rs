//! A store that counts the calls it forwards, and charges the memory of their queries.
//!
//! **Owns:** [`MeteredStore`]. **Does not know:** protocols; every call of theirs passes through it.
//! **Invariants:** results pass unchanged; the events of a read count when the caller takes them; what a query takes is charged
//! to its request's connection before the store gets it, and for as long as it is evaluated.

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, stream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_store::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch, ReadError,
    Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState, Subscription,
    consumers::Consumers,
};
use tokio::time::Instant;

use crate::{
    background::metrics::Metrics,
    call,
    connection::{BudgetExhausted, Reservation},
};

/// Memory of a type or tag of a query while it is evaluated: its name, and up to 128 of its postings, which few have.
const TERM_BYTES: usize = 512;
/// Terms that need no charge: what is charged for an open call covers them.
const FREE_TERMS: usize = 8;

/// Charges the memory of a query of this many terms, until the reservation is dropped.
fn reserve_terms(terms: usize) -> Result<Option<Reservation>, BudgetExhausted> {
    match terms.saturating_sub(FREE_TERMS) {
        0 => Ok(None),
        charged => call::reserve(charged * TERM_BYTES),
    }
}

fn unavailable<T: Send + 'static>(
    exhausted: BudgetExhausted,
) -> BoxStream<'static, Result<T, ReadError>> {
    let cause = Arc::new(exhausted);
    stream::once(async { Err(ReadError::Unavailable { cause }) }).boxed()
}

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
struct Open {
    metrics: Arc<Metrics>,
    _reserved: Option<Reservation>,
}

impl Open {
    fn counted(metrics: &Arc<Metrics>, reserved: Option<Reservation>) -> Self {
        metrics.subscriptions.inc();
        Self {
            metrics: Arc::clone(metrics),
            _reserved: reserved,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.subscriptions.dec();
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
            let outcome = match reserve_terms(append.condition_terms()) {
                Ok(_until_it_is_decided) => self.store.append(append).await,
                Err(exhausted) => Err(AppendError::Unavailable {
                    cause: Arc::new(exhausted),
                }),
            };
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
        let reserved = match reserve_terms(read.query.term_count()) {
            Ok(reserved) => reserved,
            Err(exhausted) => return unavailable(exhausted),
        };
        let counted = self.store.read(read).inspect(move |batch| {
            let _until_the_read_ends = &reserved;
            match batch {
                Ok(batch) => {
                    metrics.events_read.inc_by(batch.events.len() as u64);
                }
                Err(error) => note_failure(&metrics, error),
            }
        });
        counted.boxed()
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let reserved = match reserve_terms(subscription.query.term_count()) {
            Ok(reserved) => reserved,
            Err(exhausted) => return unavailable(exhausted),
        };
        let open = Open::counted(&self.metrics, reserved);
        let counted = self
            .store
            .subscribe(subscription)
            .inspect(move |delivery| match delivery {
                Ok(delivery) => {
                    let delivered = &open.metrics.events_delivered;
                    delivered.inc_by(delivery.events.len() as u64);
                }
                Err(error) => note_failure(&open.metrics, error),
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
