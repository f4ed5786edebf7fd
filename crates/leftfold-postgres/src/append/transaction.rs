//! Appending within an application's own transaction.
//!
//! **Owns:** [`append_in`]. **Does not know:** what else the transaction does, and the rules about the lives of streams.
//! **Invariants:** nothing is committed here; what is asked is asked of the same transaction, which sees what it wrote
//! itself; a transaction that stands still with the lock in its hand is ended by the server after a while.

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

/// Decides and writes one append as a part of `transaction`, under the rules of a stream's life.
pub(crate) async fn append_in(
    transaction: &Transaction<'_>,
    append: Append,
    options: &PostgresOptions,
) -> Result<Appended, AppendError> {
    let own = TransactionAppender {
        transaction,
        options,
    };
    append_in_transaction(&own, append).await
}

/// An application's transaction, and where the store is.
struct TransactionAppender<'a> {
    transaction: &'a Transaction<'a>,
    options: &'a PostgresOptions,
}

impl AppendTransaction for TransactionAppender<'_> {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            // Whatever happens, nothing of this is committed yet.
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
        !options.lost_commits,
    );
    let call = call(&quoted(options.schema()));
    let params = columns.params();
    let limit = options.idle_timeout.as_millis().to_string();
    let limits = "select set_config('idle_in_transaction_session_timeout', $1, true)";
    let (limited, answered) = futures_util::future::join(
        transaction.query_typed(limits, &[(&limit, Type::TEXT)]),
        transaction.query_typed(&call, &params),
    )
    .await;
    limited?;
    let rows = answered?;
    let row = rows
        .first()
        .ok_or_else(|| Failure::Foreign("no row".to_owned()))?;
    let outcome = outcomes(row, group.appends())?.pop();
    let outcome = outcome.ok_or_else(|| Failure::Foreign("no outcome".to_owned()))?;
    if outcome.as_ref().is_ok_and(|appended| !appended.repeated) {
        transaction
            .query_typed(&follow::notify(options), &[])
            .await?;
    }
    Ok(outcome)
}
