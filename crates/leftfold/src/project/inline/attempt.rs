//! One attempt to write an append with its views.
//!
//! **Owns:** [`Attempt`]: the order of a transaction. **Does not know:** how often it is attempted.
//! **Invariants:** views come first and the append last, so the lock of all appends is held for the append and the commit alone,
//! unless [`Attempt::lock`] takes it before; locks of views are taken in the order of their names; nothing is committed before
//! the append is found where the views were told it would be.

use std::{sync::Arc, time::Duration};

use leftfold_model::{Append, Appended, Position, StreamName};
use leftfold_store::{AppendError, LogEnd, TransactionAppender};
use sqlx::PgPool;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    PgTransaction,
    driver::SqlxTransaction,
    error::Failure,
    places::{Places, with_time},
    view::{AfterCommit, InlineView, MISSED_EVENTS_MAX, OpenView},
};

/// How long a commit may take before its outcome counts as unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Begins a transaction as appends expect it, whatever the default of the view's connections is.
const BEGIN: &str = "begin isolation level read committed";

/// What one attempt needs.
pub(super) struct Attempt<'a> {
    pub(super) pool: &'a PgPool,
    pub(super) appender: &'a dyn TransactionAppender,
    /// The views that the append changes, by name.
    pub(super) views: &'a [Arc<dyn InlineView>],
    /// The append as views see it.
    pub(super) append: &'a Append,
    /// The append as it is stored: its personal fields are sealed.
    pub(super) stored: &'a Append,
    /// Takes the lock of all appends before the views are written.
    pub(super) lock: bool,
    pub(super) deadline: Instant,
    pub(super) budget: Duration,
}

/// How an attempt ended.
pub(super) enum Outcome {
    /// The append is committed, or was before.
    Appended(Appended),
    /// Another append came between: nothing was written.
    Overtaken,
}

/// What is ready to be committed.
struct Written {
    transaction: PgTransaction,
    appended: Appended,
    after_commit: Vec<AfterCommit>,
    last: Position,
}

impl Attempt<'_> {
    /// Writes the append with its views.
    pub(super) async fn run(&self) -> Result<Outcome, AppendError> {
        let writing = timeout_at(self.deadline, self.write()).await;
        let written = match writing.unwrap_or_else(|_| Err(self.timed_out())) {
            Ok(Some(written)) => written,
            Ok(None) => return Ok(Outcome::Overtaken),
            Err(failure) if failure.is_final() => return self.explained(failure).await,
            Err(failure) => return Err(failure.into_append_error()),
        };
        if written.appended.repeated {
            // The views have these events since their first commit.
            roll_back(written.transaction).await;
            return Ok(Outcome::Appended(written.appended));
        }
        commit(written.transaction).await?;
        for after_commit in written.after_commit {
            after_commit(written.last);
        }
        Ok(Outcome::Appended(written.appended))
    }

    /// Writes everything but the commit; `None` if another append came between.
    async fn write(&self) -> Result<Option<Written>, Failure> {
        let mut transaction = self.begin().await?;
        let mut open = Vec::with_capacity(self.views.len());
        for view in self.views {
            let opened;
            (transaction, opened) = view.open(transaction).await?;
            open.push(opened);
        }
        let streams = super::places::streams(self.append);
        let end = self.log_end(&mut transaction, &streams).await?;
        let places = Places::behind(&end, &streams, self.append);
        let mut after_commit = Vec::with_capacity(open.len());
        for (view, open) in self.views.iter().zip(open) {
            let mut events = self.missed(&**view, &open, end.head).await?;
            events.extend_from_slice(&places.events);
            let written;
            (transaction, written) = view.write(transaction, open, &events).await?;
            after_commit.push(written);
        }
        let append = with_time(self.stored.clone(), end.time).map_err(|error| {
            Failure::Append(AppendError::Invalid {
                reason: error.to_string(),
            })
        })?;
        let mut driver = SqlxTransaction(&mut transaction);
        let appended = self.appender.append(&mut driver, append).await?;
        if !appended.repeated && !places.are_those_of(&appended) {
            roll_back(transaction).await;
            return Ok(None);
        }
        Ok(Some(Written {
            transaction,
            appended,
            after_commit,
            last: places.last(),
        }))
    }

    /// Begins a transaction that the server ends if this process stands still.
    async fn begin(&self) -> Result<PgTransaction, Failure> {
        let transaction = self.pool.begin_with(BEGIN).await;
        let mut transaction = transaction.map_err(Failure::database)?;
        let limit = self.budget.as_millis().to_string();
        let limits = "select set_config('statement_timeout', $1, true), \
                      set_config('idle_in_transaction_session_timeout', $1, true)";
        let limited = sqlx::query(limits).bind(limit).execute(&mut *transaction);
        limited.await.map_err(Failure::database)?;
        Ok(transaction)
    }

    async fn log_end(
        &self,
        transaction: &mut PgTransaction,
        streams: &[StreamName],
    ) -> Result<LogEnd, Failure> {
        let mut driver = SqlxTransaction(transaction);
        let end = self.appender.log_end(&mut driver, streams, self.lock);
        Ok(end.await?)
    }

    async fn missed(
        &self,
        view: &dyn InlineView,
        open: &OpenView,
        head: Position,
    ) -> Result<Vec<leftfold_model::RecordedEvent>, Failure> {
        let of = view.id();
        if open.complete > head {
            let checkpoint = open.complete;
            return Err(Failure::OtherLog {
                of,
                checkpoint,
                head,
            });
        }
        let missed = view.missed(open, head).await?;
        if missed.len() > MISSED_EVENTS_MAX {
            let max = MISSED_EVENTS_MAX;
            return Err(Failure::Behind { of, head, max });
        }
        Ok(missed)
    }

    /// Finds out whether a failed append would have been refused anyway, or was committed before: its views were then written
    /// from a state that is not the log's. Otherwise the failure is the views' own.
    async fn explained(&self, failure: Failure) -> Result<Outcome, AppendError> {
        let asking = async {
            let mut transaction = self.begin().await?;
            let mut driver = SqlxTransaction(&mut transaction);
            let asked = self.appender.append(&mut driver, self.stored.clone()).await;
            roll_back(transaction).await;
            Ok::<_, Failure>(asked)
        };
        match timeout(self.budget, asking).await {
            Ok(Ok(Err(conflict @ AppendError::Conflict(_)))) => Err(conflict),
            Ok(Ok(Ok(appended))) if appended.repeated => Ok(Outcome::Appended(appended)),
            _ => Err(failure.into_append_error()),
        }
    }

    fn timed_out(&self) -> Failure {
        let names: Vec<String> = self
            .views
            .iter()
            .map(|view| view.id().to_string())
            .collect();
        Failure::TimedOut {
            projections: names.join(", "),
            budget: self.budget,
        }
    }
}

async fn commit(transaction: PgTransaction) -> Result<(), AppendError> {
    let unknown = |cause| AppendError::OutcomeUnknown { cause };
    match timeout(COMMIT_TIMEOUT, transaction.commit()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unknown(Arc::new(error))),
        Err(elapsed) => Err(unknown(Arc::new(elapsed))),
    }
}

async fn roll_back(transaction: PgTransaction) {
    // A connection that is gone has rolled back.
    if let Err(error) = transaction.rollback().await {
        tracing::debug!(%error, "transaction of an append was not ended in order");
    }
}
