//! One projection that appends write.
//!
//! **Owns:** [`InlineView`]: locking a version's row, what the view lacks, and writing events and checkpoint in a transaction of
//! others. **Does not know:** appends, commits.
//! **Invariants:** a view is written only from its checkpoint on, without a gap; what this process knows of a view is at most
//! what is committed.

use std::{
    collections::BTreeSet,
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use leftfold_model::{Position, Query, Read, RecordedEvent};

use super::{
    PgTransaction,
    error::{Failure, is_transient},
};
use crate::{
    HandlerError, PostgresView, Projection, Recorded, Store,
    load::typed,
    panic_message,
    project::{
        handle::Progress,
        sql::{self, SqlTransaction},
        view::{ProjectionId, ViewChanges},
    },
    reason::chain,
};

/// Maximum number of events that an append writes to a view before its own. A view that lacks more catches up by its task.
pub(super) const MISSED_EVENTS_MAX: usize = 512;

/// Notes that everything up to a position is committed, and tells others of the events that were written.
pub(super) type AfterCommit = Box<dyn FnOnce(Position) + Send>;

/// A projection that appends write, of whatever type.
pub(super) trait InlineView: fmt::Debug + Send + Sync {
    fn id(&self) -> ProjectionId;

    /// The events that the projection is made of.
    fn query(&self) -> &Query;

    /// How long an append may take with its views.
    fn budget(&self) -> Duration;

    /// What the task of the projection publishes.
    fn progress(&self) -> &Progress;

    /// Locks the row of the version until the transaction ends.
    fn open(
        &self,
        transaction: PgTransaction,
    ) -> BoxFuture<'_, Result<(PgTransaction, OpenView), Failure>>;

    /// Reads the events that the view lacks up to `head`, at most one more than [`MISSED_EVENTS_MAX`].
    fn missed<'a>(
        &'a self,
        open: &'a OpenView,
        head: Position,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, Failure>>;

    /// Writes events and the checkpoint behind them.
    fn write<'a>(
        &'a self,
        transaction: PgTransaction,
        open: OpenView,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(PgTransaction, AfterCommit), Failure>>;
}

/// A version whose row is locked.
#[derive(Debug)]
pub(super) struct OpenView {
    /// The tables that the version wrote.
    tables: BTreeSet<String>,
    /// The view lacks no event up to here.
    pub(super) complete: Position,
}

/// See [`InlineView`].
pub(super) struct TypedView<P: Projection> {
    pub(super) projection: Arc<P>,
    /// The store without inline projections.
    pub(super) store: Store,
    pub(super) query: Query,
    pub(super) budget: Duration,
    pub(super) progress: Arc<Progress>,
    pub(super) known: Arc<Mutex<Known>>,
}

/// What this process knows of a view.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Known {
    /// The highest checkpoint.
    checkpoint: Position,
    /// The view lacks no event up to here.
    complete: Position,
}

impl<P: Projection> fmt::Debug for TypedView<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedView").field(&Self::ID).finish()
    }
}

impl<P: Projection> TypedView<P> {
    const ID: ProjectionId = ProjectionId {
        name: P::NAME,
        version: P::VERSION,
    };

    /// Returns up to where the view lacks nothing, given its checkpoint.
    fn complete(&self, checkpoint: Position) -> Position {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if checkpoint < known.checkpoint {
            // An operator moved it, or removed the version: nothing that was known holds.
            *known = Known::default();
            self.progress.moved_back();
        }
        known.checkpoint = known.checkpoint.max(checkpoint);
        known.complete = known.complete.max(checkpoint);
        known.complete
    }
}

impl<P: Projection<View = PostgresView>> TypedView<P> {
    async fn open_in(
        &self,
        transaction: PgTransaction,
    ) -> Result<(PgTransaction, OpenView), Failure> {
        let of = Self::ID;
        let begun = sql::begun_in(transaction, of).await;
        let (transaction, checkpoint) = begun.map_err(|error| Failure::view(of, error))?;
        let complete = self.complete(checkpoint.position);
        if let Some(by) = checkpoint.superseded_by {
            return Err(Failure::Superseded { of, by });
        }
        if checkpoint.is_new || !checkpoint.caught_up {
            return Err(Failure::NotBuilt { of });
        }
        if checkpoint.parked > 0 {
            let events = checkpoint.parked;
            return Err(Failure::Parked { of, events });
        }
        let (transaction, tables) = transaction.suspended();
        Ok((transaction, OpenView { tables, complete }))
    }

    async fn write_in(
        &self,
        transaction: PgTransaction,
        open: OpenView,
        events: &[RecordedEvent],
    ) -> Result<(PgTransaction, AfterCommit), Failure> {
        let of = Self::ID;
        let mut transaction = SqlTransaction::resumed(of, transaction, open.tables);
        let (mut written, mut last) = (Vec::new(), None);
        for event in events {
            if !self.query.matches(&event.event_type, &event.tags) {
                continue;
            }
            let values = typed::<P::Event>(event);
            let values =
                values.map_err(|error| Failure::event(of, event, &chain(&error), false))?;
            for value in &values {
                self.project(&mut transaction, value)
                    .await
                    .map_err(|(reason, is_transient)| {
                        Failure::event(of, event, &reason, is_transient)
                    })?;
            }
            written.extend(values);
            last = Some(event);
        }
        let Some(last) = last else {
            let after_commit = self.after_commit(Position::START, written);
            return Ok((transaction.suspended().0, after_commit));
        };
        let changes = ViewChanges {
            position: last.position,
            event: Some(last.id),
            ..ViewChanges::default()
        };
        let moved = sql::written(transaction, changes).await;
        let transaction = moved.map_err(|error| Failure::view(of, error))?;
        Ok((transaction, self.after_commit(last.position, written)))
    }

    /// Projects one value; an error is its reason, and whether the database is to blame.
    async fn project(
        &self,
        transaction: &mut SqlTransaction<sqlx::Postgres>,
        value: &Recorded<P::Event>,
    ) -> Result<(), (String, bool)> {
        let projecting = AssertUnwindSafe(self.projection.project(transaction, value));
        match projecting.catch_unwind().await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.reason(&error)),
            Err(panic) => {
                let message = panic_message::message(panic.as_ref());
                Err((format!("panicked: {message}"), false))
            }
        }
    }

    fn reason(&self, error: &HandlerError) -> (String, bool) {
        (chain(error.as_ref()), is_transient(error))
    }

    fn after_commit(&self, checkpoint: Position, written: Vec<Recorded<P::Event>>) -> AfterCommit {
        let (projection, progress) = (Arc::clone(&self.projection), Arc::clone(&self.progress));
        let known = Arc::clone(&self.known);
        Box::new(move |through| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.checkpoint = known.checkpoint.max(checkpoint);
            known.complete = known.complete.max(through);
            drop(known);
            progress.projected(written.len() as u64);
            progress.reached_inline(through);
            for event in &written {
                let notified = AssertUnwindSafe(|| projection.committed(event));
                if let Err(panic) = std::panic::catch_unwind(notified) {
                    let message = panic_message::message(panic.as_ref());
                    tracing::error!(projection = P::NAME, message, "`committed` panicked");
                }
            }
        })
    }

    async fn missed_up_to(
        &self,
        open: &OpenView,
        head: Position,
    ) -> Result<Vec<RecordedEvent>, Failure> {
        let mut missed = Vec::new();
        if open.complete >= head {
            return Ok(missed);
        }
        let read = Read::all()
            .matching(self.query.clone())
            .from_position(open.complete.next())
            .limit(MISSED_EVENTS_MAX as u64 + 1);
        let mut batches = self.store.event_store().read(read);
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|cause| Failure::Read {
                of: Self::ID,
                cause,
            })?;
            let within = |event: &RecordedEvent| event.position <= head;
            missed.extend(batch.events.into_iter().filter(within));
        }
        Ok(missed)
    }
}

impl<P: Projection<View = PostgresView>> InlineView for TypedView<P> {
    fn id(&self) -> ProjectionId {
        Self::ID
    }

    fn query(&self) -> &Query {
        &self.query
    }

    fn budget(&self) -> Duration {
        self.budget
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn open(
        &self,
        transaction: PgTransaction,
    ) -> BoxFuture<'_, Result<(PgTransaction, OpenView), Failure>> {
        self.open_in(transaction).boxed()
    }

    fn missed<'a>(
        &'a self,
        open: &'a OpenView,
        head: Position,
    ) -> BoxFuture<'a, Result<Vec<RecordedEvent>, Failure>> {
        self.missed_up_to(open, head).boxed()
    }

    fn write<'a>(
        &'a self,
        transaction: PgTransaction,
        open: OpenView,
        events: &'a [RecordedEvent],
    ) -> BoxFuture<'a, Result<(PgTransaction, AfterCommit), Failure>> {
        self.write_in(transaction, open, events).boxed()
    }
}
