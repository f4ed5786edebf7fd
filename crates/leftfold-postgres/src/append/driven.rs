//! Appending in a transaction that the application's own driver executes.
//!
//! **Owns:** [`PostgresTransactionAppender`]. **Does not know:** the driver; what else the transaction does.
//! **Invariants:** nothing is committed here.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use leftfold_model::{Append, Appended, EventId, StreamName};
use leftfold_store::{AppendError, DatabaseTransaction, LogEnd, TransactionAppender};
use tokio_postgres::types::Type;

use super::transaction::{append_in, log_end};
use crate::{
    error::Failure,
    pool::Pool,
    statements::{DrivenTransaction, ResultRow, Statements},
};

/// Appends in transactions of the store's database.
#[derive(Debug)]
pub(crate) struct PostgresTransactionAppender {
    pool: Arc<Pool>,
}

impl PostgresTransactionAppender {
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// Locks a number in the transaction that only this call knows, and looks whether a session of the store finds it locked:
    /// such locks are those of one database of one server.
    async fn finds_lock(&self, transaction: &mut dyn DatabaseTransaction) -> Result<bool, Failure> {
        let [.., a, b, c, d, e, f, g, h] = *EventId::fresh().as_bytes();
        let lock = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let param = [(&lock as _, Type::INT8)];
        let driven = DrivenTransaction::new(transaction);
        let locked = "select true from pg_advisory_xact_lock($1)";
        driven.rows(locked, &param).await?;
        let pooled = self.pool.get().await?;
        let find = "select pg_try_advisory_xact_lock_shared($1)";
        let rows = pooled.session()?.query(find, &param).await?;
        let is_free = rows.first().map(|row| row.value::<bool>(0)).transpose();
        Ok(is_free.map_err(Failure::UnexpectedResponse)? == Some(false))
    }
}

/// Nothing of the transaction is committed, whatever the failure.
fn unavailable(failure: Failure) -> AppendError {
    AppendError::Unavailable {
        cause: Arc::new(failure),
    }
}

impl TransactionAppender for PostgresTransactionAppender {
    fn is_same_database<'a>(
        &'a self,
        transaction: &'a mut dyn DatabaseTransaction,
    ) -> BoxFuture<'a, Result<bool, AppendError>> {
        Box::pin(async move {
            let same = self.finds_lock(transaction).await;
            same.map_err(unavailable)
        })
    }

    fn log_end<'a>(
        &'a self,
        transaction: &'a mut dyn DatabaseTransaction,
        streams: &'a [StreamName],
        lock: bool,
    ) -> BoxFuture<'a, Result<LogEnd, AppendError>> {
        Box::pin(async move {
            let driven = DrivenTransaction::new(transaction);
            let end = log_end(&driven, streams, lock, self.pool.options()).await;
            end.map_err(unavailable)
        })
    }

    fn append<'a>(
        &'a self,
        transaction: &'a mut dyn DatabaseTransaction,
        append: Append,
    ) -> BoxFuture<'a, Result<Appended, AppendError>> {
        Box::pin(async move {
            let driven = DrivenTransaction::new(transaction);
            append_in(&driven, append, self.pool.options()).await
        })
    }
}
