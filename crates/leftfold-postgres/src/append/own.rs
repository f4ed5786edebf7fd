//! Appending within an application's own transaction.
//!
//! **Owns:** [`append_in`]. **Does not know:** what else the transaction does.
//! **Invariants:** nothing is committed here; a transaction that stands still with the lock in its hand is ended by the
//! server after a while.

use std::sync::Arc;

use leftfold_model::{Append, Appended};
use leftfold_store::AppendError;
use tokio_postgres::{Transaction, types::Type};

use super::{
    answer::outcomes,
    columns::{Columns, call},
    group::Group,
    seen::Seen,
};
use crate::{PostgresOptions, error::Failure, follow, schema::quoted};

/// Decides and writes one append as a part of `transaction`.
pub(crate) async fn append_in(
    transaction: &Transaction<'_>,
    append: Append,
    options: &PostgresOptions,
) -> Result<Appended, AppendError> {
    // Whatever happens, nothing of this is committed yet.
    let unavailable = |failure: Failure| AppendError::Unavailable {
        cause: Arc::new(failure),
    };
    let group = Group::of(append);
    let outcome = write(transaction, &group, options)
        .await
        .map_err(unavailable)?;
    Ok(outcome?)
}

async fn write(
    transaction: &Transaction<'_>,
    group: &Group,
    options: &PostgresOptions,
) -> Result<Result<Appended, leftfold_model::Conflict>, Failure> {
    let columns = Columns::of(group, &Seen::default(), true, !options.lost_commits);
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
