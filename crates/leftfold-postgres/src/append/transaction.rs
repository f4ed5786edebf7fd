//! Appending as a part of an application's transaction.
//!
//! **Owns:** [`append_in`]. **Does not know:** what else the transaction does; the rules of stream lifecycles.
//! **Invariants:** nothing is committed here. All queries run in the same transaction, which sees its own writes. The server
//! ends a transaction that holds the lock of appends and stays idle.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use leftfold_model::{
    Append, Appended, CurrentRevision, Direction, Query, RecordedEvent, Scope, StreamName,
};
use leftfold_store::{AppendError, AppendTransaction, ReadError, append_in_transaction};
use tokio_postgres::{Transaction, types::Type};

use super::{
    columns::{Columns, call},
    group::Group,
    response::outcomes,
    revision_cache::RevisionCache,
};
use crate::{
    PostgresOptions,
    error::Failure,
    follow, listing,
    read::{Bounds, Select, events},
    schema::quoted,
};

/// Decides and writes one append as a part of `transaction`, under the rules of stream lifecycles.
pub(crate) async fn append_in(
    transaction: &Transaction<'_>,
    append: Append,
    options: &PostgresOptions,
) -> Result<Appended, AppendError> {
    let appender = TransactionAppender {
        transaction,
        options,
    };
    append_in_transaction(&appender, append).await
}

/// An application's transaction, and the options of the store it appends to.
struct TransactionAppender<'a> {
    transaction: &'a Transaction<'a>,
    options: &'a PostgresOptions,
}

impl AppendTransaction for TransactionAppender<'_> {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            // Nothing of this is committed yet, whatever the failure.
            let unavailable = |failure: Failure| AppendError::Unavailable {
                cause: Arc::new(failure),
            };
            let group = Group::of(append);
            let outcome = write(self.transaction, &group, self.options).await;
            Ok(outcome.map_err(unavailable)??)
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
            let current = listing::current(self.transaction, self.options, &stream).await;
            current.map_err(Failure::into_read_error)
        })
    }
}

impl TransactionAppender<'_> {
    async fn newest(&self, stream: StreamName) -> Result<Option<RecordedEvent>, Failure> {
        let select = Select::of(
            &quoted(self.options.schema()),
            &Scope::Stream(stream),
            &Query::All,
            Direction::Backwards,
            Bounds::ALL,
            1,
        );
        let rows = self
            .transaction
            .query_typed(&select.sql, &select.params())
            .await?;
        Ok(events(&rows)?.pop())
    }
}

async fn write(
    transaction: &Transaction<'_>,
    group: &Group,
    options: &PostgresOptions,
) -> Result<Result<Appended, leftfold_model::Conflict>, Failure> {
    let columns = Columns::of(
        group,
        &RevisionCache::default(),
        true,
        !options.allow_lost_commits,
    );
    let call = call(&quoted(options.schema()));
    let params = columns.params();
    let limit = options.idle_timeout.as_millis().to_string();
    let limits = "select set_config('idle_in_transaction_session_timeout', $1, true)";
    let (limited, response) = futures_util::future::join(
        transaction.query_typed(limits, &[(&limit, Type::TEXT)]),
        transaction.query_typed(&call, &params),
    )
    .await;
    limited?;
    let rows = response?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))?;
    let outcome = outcomes(row, group.appends())?.pop();
    let outcome = outcome.ok_or_else(|| Failure::UnexpectedResponse("no outcome".to_owned()))?;
    if outcome.as_ref().is_ok_and(|appended| !appended.repeated) {
        transaction
            .query_typed(&follow::notify(options), &[])
            .await?;
    }
    Ok(outcome)
}
