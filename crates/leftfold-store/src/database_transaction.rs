//! Appending in a transaction that an application drives by a database driver of its own.
//!
//! **Owns:** [`DatabaseTransaction`], which the driver's side implements, and [`TransactionAppender`], which a store in that
//! database implements. **Does not know:** any driver, any statement, rules about streams.
//! **Invariants:** values have PostgreSQL's binary format; nothing here commits or rolls back.

use std::fmt::Debug;

use futures_core::future::BoxFuture;
use leftfold_model::{Append, Appended, Bytes, CurrentRevision, Position, StreamName, Timestamp};

use crate::AppendError;

/// A parameter or a column of a statement, in PostgreSQL's binary format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseValue {
    /// The object id of its type.
    pub type_oid: u32,
    /// Its bytes; `None` is null.
    pub bytes: Option<Bytes>,
}

/// Why a statement of a [`DatabaseTransaction`] failed. The transaction can only be rolled back.
#[derive(Debug, Clone, thiserror::Error)]
#[error("statement failed: {message}")]
pub struct StatementError {
    /// The SQLSTATE of the server; `None` if the failure is not the server's response, such as a lost connection.
    pub code: Option<String>,
    /// The driver's message.
    pub message: String,
}

/// The rows of a statement.
pub type DatabaseRows = Vec<Vec<DatabaseValue>>;

/// A transaction of a PostgreSQL database, driven by whatever driver the application uses.
///
/// Its isolation level must be read committed.
pub trait DatabaseTransaction: Send {
    /// Executes one statement, whose parameters are `$1` and so on, and returns its rows.
    ///
    /// # Errors
    /// [`StatementError`].
    fn query<'a>(
        &'a mut self,
        statement: &'a str,
        parameters: Vec<DatabaseValue>,
    ) -> BoxFuture<'a, Result<DatabaseRows, StatementError>>;
}

/// What the next append of a transaction continues, as that transaction sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEnd {
    /// The position of the newest event.
    pub head: Position,
    /// The database's clock.
    pub time: Timestamp,
    /// The revision of each stream that was named, in the order of the names.
    pub revisions: Vec<CurrentRevision>,
}

/// Appends in transactions of the store's own database, under the rules of stream lifecycles:
/// [`EventStore::transaction_appender`](crate::EventStore::transaction_appender).
pub trait TransactionAppender: Debug + Send + Sync {
    /// Returns whether the transaction is one of the store's database.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`]: the database cannot be asked.
    fn is_same_database<'a>(
        &'a self,
        transaction: &'a mut dyn DatabaseTransaction,
    ) -> BoxFuture<'a, Result<bool, AppendError>>;

    /// Returns where the log and some streams end. With `lock` this holds until the transaction ends, and all other appends
    /// wait for that; without, others may append at any moment.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`].
    fn log_end<'a>(
        &'a self,
        transaction: &'a mut dyn DatabaseTransaction,
        streams: &'a [StreamName],
        lock: bool,
    ) -> BoxFuture<'a, Result<LogEnd, AppendError>>;

    /// Appends as a part of the transaction. All other appends then wait until it ends: append last and commit at once.
    ///
    /// # Errors
    /// As [`EventStore::append`](crate::EventStore::append). If the commit itself fails, its outcome is unknown: repeat the
    /// append with the same event ids.
    fn append<'a>(
        &'a self,
        transaction: &'a mut dyn DatabaseTransaction,
        append: Append,
    ) -> BoxFuture<'a, Result<Appended, AppendError>>;
}
