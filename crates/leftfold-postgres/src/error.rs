//! Errors of the store, and what each proves about the outcome of an append.
//!
//! **Owns:** [`OpenError`], [`DatabaseError`], `Failure`, and whether a failed statement certainly changed nothing.
//! **Does not know:** statements.
//! **Invariants:** an outcome is unknown unless proved. Only an error of the server that aborts the transaction proves that
//! nothing was written.

use std::{error::Error, sync::Arc, time::Duration};

use leftfold_model::Position;
use leftfold_store::{AppendError, ReadError, StatementError};
use tokio_postgres::error::SqlState;

/// Why a store over PostgreSQL could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is invalid.
    #[error("invalid database address: {reason}")]
    Address {
        /// What is wrong with it; never the password.
        reason: String,
    },
    /// The server is unreachable, or it rejected the connection.
    #[error("connection to the database failed")]
    Connect {
        /// The driver's error.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The settings of the server allow it to lose committed transactions.
    /// See [`crate::PostgresOptions::unsafe_allow_lost_commits`].
    #[error("server may lose committed events: {setting} is {value}; expected on")]
    Unsafe {
        /// The name of the setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// A table of the schema is unlogged: the server empties it after a crash.
    /// See [`crate::PostgresOptions::unsafe_allow_lost_commits`].
    #[error(
        "server may lose committed events: table {schema}.{table} is unlogged; expected logged: \
         alter table {schema}.{table} set logged"
    )]
    Unlogged {
        /// The schema.
        schema: String,
        /// The table.
        table: String,
    },
    /// The store does not support this server or database.
    #[error("unsupported database: {what} is {found}, expected {needed}")]
    Unsupported {
        /// The property that is not supported.
        what: &'static str,
        /// Its value.
        found: String,
        /// The supported values.
        needed: &'static str,
    },
    /// A newer release of Leftfold created or migrated the schema.
    #[error("schema {schema} has version {found}; expected {known} or older: upgrade this program")]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i32,
        /// The newest version that this release supports.
        known: i32,
    },
    /// The schema is older than this release expects, and the options forbid migrating it.
    #[error("schema {schema} has version {found}; expected {needed}: run `leftfold migrate`")]
    NotMigrated {
        /// The schema.
        schema: String,
        /// Its version; 0 if the schema does not exist.
        found: i32,
        /// The version that this release expects.
        needed: i32,
    },
    /// A migration failed; the schema is unchanged.
    #[error("migration {version} failed")]
    Migration {
        /// The version it leads to.
        version: i32,
        /// The driver's error.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
}

impl OpenError {
    pub(crate) fn address(reason: impl Into<String>) -> Self {
        Self::Address {
            reason: reason.into(),
        }
    }

    pub(crate) fn connect(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Connect {
            cause: cause.into(),
        }
    }
}

/// A database query failed. If the connection was lost, what the query writes may have been written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("database query failed")]
pub struct DatabaseError(#[source] Failure);

impl From<Failure> for DatabaseError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self(error.into())
    }
}

/// Why a statement failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection to the database")]
    NoConnection(#[source] Arc<OpenError>),
    #[error("statement failed")]
    Statement(#[source] Arc<tokio_postgres::Error>),
    #[error("committed locally, but possibly not replicated to the standby: {0}")]
    NotReplicated(String),
    /// The statement was sent, and its response did not come in time.
    #[error("no response from the database within {0:?}")]
    Timeout(Duration),
    /// All connections were in use for too long.
    #[error("no free connection within {0:?}: raise leftfold_connections")]
    PoolTimeout(Duration),
    /// The search lane is full.
    #[error(
        "{0} appends wait for searches of their conditions: give conditions the token of the read they rest on"
    )]
    TooManySearches(usize),
    /// The log ends before a position that was read from it: the server was restored or failed over, and lost events.
    #[error("head of the log went back from {known} to {found}: the server lost events")]
    HeadWentBack { known: Position, found: Position },
    /// The application's driver executed the statement.
    #[error(transparent)]
    Driven(#[from] StatementError),
    #[error("parameter cannot be encoded: {0}")]
    Parameter(String),
    #[error("unexpected response from the database: {0}")]
    UnexpectedResponse(String),
    #[error("stored data is damaged")]
    Corrupt(#[source] leftfold_store::Cause),
    #[error("store is closed")]
    Closed,
    #[error("tasks of the store ended with their runtime")]
    RuntimeEnded,
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(Arc::new(error))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::NoConnection(Arc::new(error))
    }
}

impl Failure {
    /// Returns whether the statement certainly changed nothing, provided that it was a transaction of its own.
    pub(crate) fn proves_nothing_written(&self) -> bool {
        match self {
            Self::NoConnection(_)
            | Self::PoolTimeout(_)
            | Self::TooManySearches(_)
            | Self::Closed => true,
            Self::Statement(error) => error.as_db_error().is_some_and(|answer| {
                let code = answer.code();
                // ERROR aborts the transaction before its commit. FATAL and PANIC end the session at any moment.
                answer.severity() == "ERROR"
                    && *code != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
                    && *code != SqlState::TRANSACTION_RESOLUTION_UNKNOWN
            }),
            _ => false,
        }
    }

    /// Returns whether the server refused an append because an event id is stored already.
    pub(crate) fn is_duplicate_id(&self) -> bool {
        let Self::Statement(error) = self else {
            return false;
        };
        let code = error.code().map(SqlState::code);
        matches!(code, Some("23505" | "LF004"))
    }

    /// Returns the message of the server if it refused an append for its data, so that repeating it cannot help.
    pub(crate) fn data_error(&self) -> Option<String> {
        let (code, message) = match self {
            Self::Statement(error) => {
                let answer = error.as_db_error();
                let answer = answer.filter(|answer| answer.severity() == "ERROR")?;
                (answer.code().code(), answer.message())
            }
            Self::Driven(error) => (error.code.as_deref()?, error.message.as_str()),
            _ => return None,
        };
        // Data exceptions, violated constraints, exceptions of triggers, and exceeded limits of the program.
        let classes = ["22", "23", "P0", "54"];
        let refused = classes.iter().any(|class| code.starts_with(class));
        refused.then(|| message.to_owned())
    }

    /// Returns whether the same statement may succeed on another connection.
    pub(crate) fn is_connection_error(&self) -> bool {
        match self {
            Self::NoConnection(error) => matches!(**error, OpenError::Connect { .. }),
            Self::Statement(error) => error
                .as_db_error()
                .is_none_or(|answer| answer.severity() != "ERROR"),
            Self::Timeout(_) => true,
            _ => false,
        }
    }

    pub(crate) fn into_append_error(self) -> AppendError {
        if let Some(reason) = self.data_error() {
            return AppendError::Invalid { reason };
        }
        let cause = Arc::new(self.clone());
        if self.proves_nothing_written() {
            AppendError::Unavailable { cause }
        } else {
            AppendError::OutcomeUnknown { cause }
        }
    }

    pub(crate) fn into_read_error(self) -> ReadError {
        match self {
            Self::Corrupt(cause) => ReadError::Corrupt { cause },
            Self::HeadWentBack { .. } => ReadError::Invalid {
                reason: self.to_string(),
            },
            _ => ReadError::Unavailable {
                cause: Arc::new(self),
            },
        }
    }
}
