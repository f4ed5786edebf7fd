//! A store whose appends write projections.
//!
//! **Owns:** [`InlineStore`]: which views an append changes, and how often it is attempted. **Does not know:** the order of a
//! transaction.
//! **Invariants:** an append runs to its end even if its caller does not wait; one that no view is made of goes to the store
//! below as it is; other methods are those of the store below.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_store::{
    AppendError, Backend, Capabilities, Delete, Delivery, EventStore, ListStreams, ReadBatch,
    ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState,
    Subscription, TransactionAppender, consumers::Consumers,
};
use sqlx::PgPool;
use tokio::time::{Instant, timeout_at};

use super::{
    attempt::{Attempt, Outcome},
    error::Failure,
    view::InlineView,
};
use crate::Store;

/// Attempts that do not hold other appends up while views are written.
const ATTEMPTS_WITHOUT_LOCK: u32 = 3;
/// Maximum attempts of an append.
const ATTEMPTS_MAX: u32 = 8;

/// See the module. Clones are the same store.
#[derive(Clone)]
pub(crate) struct InlineStore(Arc<Inner>);

struct Inner {
    /// The store without inline projections.
    plain: Store,
    pool: PgPool,
    appender: Arc<dyn TransactionAppender>,
    /// By name.
    views: Vec<Arc<dyn InlineView>>,
}

impl fmt::Debug for InlineStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InlineStore")
            .field("plain", &self.0.plain)
            .field("views", &self.0.views)
            .finish_non_exhaustive()
    }
}

impl InlineStore {
    pub(super) fn new(
        plain: Store,
        pool: PgPool,
        appender: Arc<dyn TransactionAppender>,
        mut views: Vec<Arc<dyn InlineView>>,
    ) -> Self {
        views.sort_by_key(|view| view.id());
        Self(Arc::new(Inner {
            plain,
            pool,
            appender,
            views,
        }))
    }

    /// The store without inline projections.
    pub(super) fn plain(&self) -> &Store {
        &self.0.plain
    }

    /// The connections of the views.
    pub(super) fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    pub(super) fn views(&self) -> &[Arc<dyn InlineView>] {
        &self.0.views
    }

    fn below(&self) -> &Arc<dyn EventStore> {
        self.0.plain.event_store()
    }
}

impl Inner {
    /// The views that an append changes.
    fn views_of(&self, append: &Append) -> Vec<Arc<dyn InlineView>> {
        let changes = |view: &&Arc<dyn InlineView>| {
            let query = view.query();
            let mut events = append.events();
            events.any(|event| query.matches(event.event_type(), event.tags()))
        };
        self.views.iter().filter(changes).cloned().collect()
    }

    async fn append(
        &self,
        views: &[Arc<dyn InlineView>],
        append: Append,
    ) -> Result<Appended, AppendError> {
        let stored = match self.plain.erasure() {
            None => append.clone(),
            Some(erasure) => {
                let sealed = erasure.seal(append.clone()).await;
                sealed.map_err(|error| AppendError::Unavailable {
                    cause: Arc::new(error),
                })?
            }
        };
        let budgets = views.iter().map(|view| view.budget());
        let budget = budgets.min().unwrap_or(Duration::ZERO);
        let deadline = Instant::now() + budget;
        let mut attempts = 0;
        while attempts < ATTEMPTS_MAX {
            let attempt = Attempt {
                pool: &self.pool,
                appender: &*self.appender,
                views,
                append: &append,
                stored: &stored,
                lock: attempts >= ATTEMPTS_WITHOUT_LOCK,
                deadline,
                budget,
            };
            attempts += 1;
            match attempt.run().await {
                Ok(Outcome::Appended(appended)) => return Ok(appended),
                Ok(Outcome::Overtaken) => {}
                Err(error) => match behind(&error) {
                    Some(head) if self.caught_up(views, head, deadline).await => {}
                    _ => return Err(error),
                },
            }
        }
        Err(Failure::Overtaken { attempts }.into_append_error())
    }

    /// Waits until the tasks of the projections have written everything up to `head`.
    async fn caught_up(
        &self,
        views: &[Arc<dyn InlineView>],
        head: Position,
        deadline: Instant,
    ) -> bool {
        for view in views {
            let caught_up = view.progress().caught_up(head);
            if !timeout_at(deadline, caught_up).await.unwrap_or(false) {
                return false;
            }
        }
        true
    }
}

/// Returns the end of the log that a view is too far behind to be written with an append.
fn behind(error: &AppendError) -> Option<Position> {
    let AppendError::Unavailable { cause } = error else {
        return None;
    };
    match cause.downcast_ref::<Failure>() {
        Some(Failure::Behind { head, .. }) => Some(*head),
        _ => None,
    }
}

impl EventStore for InlineStore {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let views = self.0.views_of(&append);
            if views.is_empty() {
                return self.below().append(append).await;
            }
            let inner = Arc::clone(&self.0);
            let appending = async move { inner.append(&views, append).await };
            let appended = tokio::spawn(appending).await;
            // The runtime ended, maybe in the middle of a commit.
            appended.unwrap_or_else(|error| {
                Err(AppendError::OutcomeUnknown {
                    cause: Arc::new(error),
                })
            })
        })
    }

    fn prepare<'a>(&'a self, stream: &'a StreamName) -> BoxFuture<'a, ()> {
        self.below().prepare(stream)
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.below().read(read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.below().subscribe(subscription)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.below().head()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), ReadError>> {
        self.below().check()
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        self.below().stream_state(stream)
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.below().delete(delete)
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.below().scavenge(scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.below().streams(list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.below().stats()
    }

    fn capabilities(&self) -> Capabilities {
        self.below().capabilities()
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.below().snapshots()
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        self.below().consumers()
    }

    fn storage(&self) -> Option<Arc<dyn Backend>> {
        self.below().storage()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.below().close()
    }
}
