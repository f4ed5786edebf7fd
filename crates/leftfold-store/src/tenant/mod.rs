//! Tenants: one store for several customers who cannot reach each other's events.
//!
//! **Owns:** [`TenantStore`]: the contract for one tenant, over any store that other tenants use too.
//! **Does not know:** how the store works, what a tenant is to the application.
//! **Invariants:**
//! - Every name, tag and id that reaches the store is one of the tenant; every answer holds the tenant's own.
//! - Every query that reaches the store names a tag or a stream of the tenant, so another tenant's events neither match a
//!   condition nor cost a read anything.
//! - Each event of a tenant carries the tenant's tag, those that the store adds by itself included.
//! - Positions are the store's: they rise, with gaps where other tenants append.

mod beside;
mod listing;
mod name;
mod translate;

use std::sync::Arc;

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use tokio::sync::watch;

pub(crate) use self::name::tags_of_tenants;
pub use self::name::{InvalidTenantName, TenantName};
use self::{
    beside::{TenantConsumers, TenantSnapshots},
    name::{Names, Unstorable},
};
use crate::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch, ReadError,
    Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState, Subscription,
    consumers::Consumers,
};

/// The store of one tenant, within a store that others use too.
///
/// Streams, tags, event ids, idempotency keys, conditions, consumers and snapshots of two tenants never meet: each tenant
/// has its own, under any names. Works over every store, and over another tenant's store: tenants can be nested.
///
/// Stored names begin with `@`, the encoded name of the tenant and `/`; calls and answers hold the names without it.
///
/// | what | is |
/// |---|---|
/// | positions, [`Self::head`], checkpoints, tokens | those of the store, with gaps: they tell how much others append |
/// | recorded time, [`Self::capabilities`], [`Self::check`] | those of the store |
/// | [`Self::stats`] | sums over the tenant's streams |
/// | [`Self::scavenge`], [`Self::storage`] | refused, and `None`: they concern all tenants |
/// | [`Self::close`] | closes this value, not the store |
///
/// # Limits
/// A stream's name is shorter than elsewhere by the tenant's part and 3 bytes, a tag and a consumer's name by the
/// tenant's part. An
/// event has one tag less. A stream cannot be named `$$`, nor begin with `$$$$`.
///
/// # Cost
/// Each event has one tag more. A query by types alone becomes one by types and that tag.
///
/// ```
/// # use std::sync::Arc;
/// # use leftfold_store::{EventStore, MemoryStore, TenantName, TenantStore};
/// # use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
/// let acme = TenantStore::new(Arc::clone(&store), TenantName::new("acme")?);
/// let other = TenantStore::new(store, TenantName::new("other")?);
/// let room = StreamName::new("room-101")?;
/// for tenant in [&acme, &other] {
///     let event = NewEvent::json(EventType::new("RoomBooked")?, "{}");
///     tenant.append(Append::to(room.clone(), ExpectedRevision::NoStream, vec![event])?).await?;
/// }
/// assert_eq!(acme.stats().await?.events, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TenantStore {
    inner: Arc<dyn EventStore>,
    names: Arc<Names>,
    closed: watch::Sender<bool>,
}

/// A call came after the tenant's store was closed.
#[derive(Debug, thiserror::Error)]
#[error("store of tenant {0} is closed")]
struct Closed(TenantName);

impl TenantStore {
    /// Creates the store of a tenant within `store`.
    #[must_use]
    pub fn new(store: Arc<dyn EventStore>, tenant: TenantName) -> Self {
        Self {
            inner: store,
            names: Arc::new(Names::new(tenant)),
            closed: watch::Sender::new(false),
        }
    }

    /// Returns the tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &TenantName {
        &self.names.tenant
    }

    /// Returns an append of the tenant as the store below gets it: for a call of that store itself, such as an append in an
    /// application's own transaction.
    ///
    /// # Errors
    /// [`AppendError::Invalid`] if a name or an event cannot be stored for a tenant.
    pub fn stored_append(&self, append: Append) -> Result<Append, AppendError> {
        let stored = self.names.append(append);
        stored.map_err(Unstorable::into_append_error)
    }

    fn closed(&self) -> Arc<Closed> {
        Arc::new(Closed(self.names.tenant.clone()))
    }

    fn check_open(&self) -> Result<(), AppendError> {
        if *self.closed.borrow() {
            let cause = self.closed();
            return Err(AppendError::Unavailable { cause });
        }
        Ok(())
    }

    async fn count(&self) -> Result<StoreStats, ReadError> {
        let mut stats = StoreStats::default();
        let mut streams: u64 = 0;
        let mut pages = self.streams(ListStreams::default());
        while let Some(page) = pages.try_next().await? {
            streams += page.len() as u64;
            stats.events += page.iter().map(|info| info.events).sum::<u64>();
        }
        let mut newest = self.read(Read::all().backwards().limit(1));
        while let Some(batch) = newest.try_next().await? {
            let last = batch.events.first().map(|event| event.position);
            stats.head = last.unwrap_or(stats.head);
        }
        stats.details = vec![("streams".into(), streams.to_string())];
        Ok(stats)
    }
}

fn failed<T: Send + 'static>(error: ReadError) -> BoxStream<'static, Result<T, ReadError>> {
    stream::iter([Err(error)]).boxed()
}

impl EventStore for TenantStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            self.check_open()?;
            let appended = self.inner.append(self.stored_append(append)?).await;
            let names = &self.names;
            appended
                .map(|appended| names.appended(appended))
                .map_err(|error| names.append_error(error))
        })
    }

    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if let Ok(stored) = self.names.stream(stream) {
                self.inner.prepare(&stored).await;
            }
        })
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        let (scope, query) = match self.names.selection(&read.scope, &read.query) {
            Ok(selection) => selection,
            Err(error) => return failed(error.into_read_error()),
        };
        let names = Arc::clone(&self.names);
        let batches = self.inner.read(Read {
            scope,
            query,
            ..read
        });
        let own = batches.map(move |batch| match batch {
            Ok(ReadBatch { events, token }) => Ok(ReadBatch {
                events: names.own_events(events),
                token,
            }),
            Err(error) => Err(names.read_error(error)),
        });
        own.boxed()
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        let Subscription {
            scope,
            query,
            after,
        } = subscription;
        let (scope, query) = match self.names.selection(&scope, &query) {
            Ok(selection) => selection,
            Err(error) => return failed(error.into_read_error()),
        };
        let names = Arc::clone(&self.names);
        let deliveries = self.inner.subscribe(Subscription {
            scope,
            query,
            after,
        });
        let own = deliveries.map(move |delivery| match delivery {
            Ok(Delivery {
                events,
                through,
                caught_up,
            }) => Ok(Delivery {
                events: names.own_events(events),
                through,
                caught_up,
            }),
            Err(error) => Err(names.read_error(error)),
        });
        let mut closed = self.closed.subscribe();
        let closed = async move {
            if closed.wait_for(|closed| *closed).await.is_err() {
                // The tenant's store was dropped without being closed: the subscription goes on.
                std::future::pending::<()>().await;
            }
        };
        own.take_until(Box::pin(closed)).boxed()
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.inner.head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        if *self.closed.borrow() {
            let cause = self.closed();
            return Box::pin(std::future::ready(Err(ReadError::Unavailable { cause })));
        }
        self.inner.check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        Box::pin(async move {
            let stored = self.names.stream(&stream);
            let stored = stored.map_err(Unstorable::into_read_error)?;
            let state = self.inner.stream_state(stored).await;
            state.map_err(|error| self.names.read_error(error))
        })
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            self.check_open()?;
            let stream = self.names.stream(&delete.stream);
            let stream = stream.map_err(Unstorable::into_append_error)?;
            let stored = Delete { stream, ..delete };
            let names = &self.names;
            let deleted = self.inner.delete(stored).await;
            deleted
                .map(|deleted| names.appended(deleted))
                .map_err(|error| names.append_error(error))
        })
    }

    fn scavenge(
        &self,
        _scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        let tenant = &self.names.tenant;
        failed(ReadError::AccessDenied {
            reason: format!(
                "tenant {tenant} may not scavenge, because a scavenge concerns all tenants; scavenge the store itself"
            ),
        })
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        listing::list(self.inner.as_ref(), Arc::clone(&self.names), list)
    }

    /// Sums over the streams that [`Self::streams`] lists. `head` is the position of the tenant's newest event.
    ///
    /// # Cost
    /// Lists all streams of the tenant.
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(self.count())
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(TenantSnapshots {
            inner: self.inner.snapshots(),
            names: Arc::clone(&self.names),
        })
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(TenantConsumers {
            inner: self.inner.consumers(),
            names: Arc::clone(&self.names),
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.closed.send_replace(true);
        Box::pin(std::future::ready(Ok(())))
    }
}
