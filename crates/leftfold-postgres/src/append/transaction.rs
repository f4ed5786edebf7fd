//! Appending as a part of an application's transaction.
//!
//! **Owns:** [`append_in`], and where the log ends as a transaction sees it. **Does not know:** what else the transaction does;
//! the rules of stream lifecycles.
//! **Invariants:** nothing is committed here. All queries run in the same transaction, which sees its own writes. The server
//! ends a transaction that holds the lock of appends and stays idle.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use leftfold_model::{
    Append, Appended, CurrentRevision, Direction, Position, Query, RecordedEvent, Scope, StreamName,
};
use leftfold_store::{AppendError, AppendTransaction, LogEnd, ReadError, append_in_transaction};
use tokio_postgres::types::Type;

use super::{
    columns::{Columns, call},
    group::Group,
    response::{Decision, decisions},
    revision_cache::RevisionCache,
};
use crate::{
    PostgresOptions,
    error::Failure,
    listing,
    read::{Bounds, PageRequest, Select, events},
    schema::quoted,
    statements::{ResultRow, Statements},
    subscribe,
    value::{PgTimestamp, number},
};

/// Decides and writes one append as a part of a transaction, under the rules of stream lifecycles.
pub(crate) async fn append_in(
    statements: &impl Statements,
    append: Append,
    options: &PostgresOptions,
) -> Result<Appended, AppendError> {
    let appender = TransactionAppends {
        statements,
        options,
    };
    append_in_transaction(&appender, append).await
}

/// Returns where the log and some streams end. With `lock` no other session appends before the end of the transaction.
pub(crate) async fn log_end(
    statements: &impl Statements,
    streams: &[StreamName],
    lock: bool,
    options: &PostgresOptions,
) -> Result<LogEnd, Failure> {
    if lock {
        // A call for no append takes the lock and decides nothing.
        let columns = Columns::none(!options.allow_lost_commits);
        let call = call(&quoted(options.schema()));
        bounded(options, statements.rows(&call, &columns.params())).await?;
    }
    let end = format!(
        "select coalesce(max(e.position), 0), clock_timestamp() from {}.events e",
        quoted(options.schema())
    );
    let rows = bounded(options, statements.rows(&end, &[])).await?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))?;
    let head = row.value(0).map_err(Failure::UnexpectedResponse)?;
    let time = row.value::<PgTimestamp>(1);
    let mut revisions = Vec::with_capacity(streams.len());
    for stream in streams {
        let current = listing::current(statements, options, stream);
        revisions.push(bounded(options, current).await?);
    }
    Ok(LogEnd {
        head: Position::new(number(head)),
        time: time.map_err(Failure::UnexpectedResponse)?.0,
        revisions,
    })
}

/// An application's transaction, and the options of the store it appends to.
struct TransactionAppends<'a, S> {
    statements: &'a S,
    options: &'a PostgresOptions,
}

impl<S: Statements> AppendTransaction for TransactionAppends<'_, S> {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            let error = |failure: Failure| match failure {
                // The statement may still complete, and a commit of the application would then include it.
                Failure::Timeout(_) => failure.into_append_error(),
                _ if failure.data_error().is_some() => failure.into_append_error(),
                // Nothing of this is committed yet, whatever the failure.
                _ => AppendError::Unavailable {
                    cause: Arc::new(failure),
                },
            };
            let group = Group::of(append);
            let outcome = bounded(self.options, write(self.statements, &group, self.options));
            Ok(outcome.await.map_err(error)??)
        })
    }

    fn newest(
        &self,
        stream: StreamName,
    ) -> BoxFuture<'_, Result<Option<RecordedEvent>, ReadError>> {
        Box::pin(async move {
            let newest = self.newest(stream).await;
            newest.map_err(Failure::into_read_error)
        })
    }

    fn current(&self, stream: StreamName) -> BoxFuture<'_, Result<CurrentRevision, ReadError>> {
        Box::pin(async move {
            let current = listing::current(self.statements, self.options, &stream);
            let current = bounded(self.options, current).await;
            current.map_err(Failure::into_read_error)
        })
    }
}

impl<S: Statements> TransactionAppends<'_, S> {
    async fn newest(&self, stream: StreamName) -> Result<Option<RecordedEvent>, Failure> {
        let request = PageRequest {
            scope: Scope::Stream(stream),
            query: Query::All,
            direction: Direction::Backwards,
            bounds: Bounds::ALL,
            limit: 1,
            with_head: false,
            last: None,
        };
        let select = Select::of(&quoted(self.options.schema()), &request);
        let rows = bounded(self.options, async {
            let params = select.params();
            self.statements.rows(&select.sql, &params).await
        });
        Ok(events(&rows.await?)?.pop())
    }
}

/// Waits for a response no longer than its time limit.
async fn bounded<T>(
    options: &PostgresOptions,
    response: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let limit = options.response_limit();
    let outcome = tokio::time::timeout(limit, response).await;
    outcome.unwrap_or(Err(Failure::Timeout(limit)))
}

async fn write(
    statements: &impl Statements,
    group: &Group,
    options: &PostgresOptions,
) -> Result<Result<Appended, leftfold_model::Conflict>, Failure> {
    let columns = Columns::of(
        group,
        &RevisionCache::default(),
        true,
        !options.allow_lost_commits,
        None,
    );
    let call = call(&quoted(options.schema()));
    let params = columns.params();
    let limit = options.idle_timeout.as_millis().to_string();
    let limits = "select set_config('idle_in_transaction_session_timeout', $1, true)";
    let (limited, response) = futures_util::future::join(
        statements.rows(limits, &[(&limit, Type::TEXT)]),
        statements.rows(&call, &params),
    )
    .await;
    limited?;
    let rows = response?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))?;
    let Some(Decision::Made(outcome)) = decisions(row, group.appends())?.pop() else {
        return Err(Failure::UnexpectedResponse("no outcome".to_owned()));
    };
    if outcome.as_ref().is_ok_and(|appended| !appended.repeated) {
        statements.rows(&subscribe::notify(options), &[]).await?;
    }
    Ok(outcome)
}
