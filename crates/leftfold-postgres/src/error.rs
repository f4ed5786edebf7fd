//! What can go wrong with a server, and what it says about an append.
//!
//! **Owns:** [`OpenError`], `Failure`, and the judgement whether a failed statement certainly changed nothing.
//! **Does not know:** statements.
//! **Invariants:** in doubt an outcome is unknown; only an answer of the server that ends the transaction proves that
//! nothing was written.

use std::{error::Error, sync::Arc};

use leftfold_store::{AppendError, ReadError};
use tokio_postgres::error::SqlState;

/// Why a store over PostgreSQL could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address cannot be understood.
    #[error("address of the database is not valid: {reason}")]
    Address {
        /// What is wrong with it. Never its password.
        reason: String,
    },
    /// The server could not be reached, or refused.
    #[error("cannot connect to the database")]
    Connect {
        /// The driver's error.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// The server is set so that it may lose what it has committed. See [`crate::PostgresOptions::unsafe_allow_lost_commits`].
    #[error("the server may lose what it has committed: {setting} is {value}")]
    Unsafe {
        /// The name of the setting.
        setting: &'static str,
        /// What it is set to.
        value: String,
    },
    /// The server or the database is of a kind that this store cannot work on.
    #[error("the database cannot be used: {what} is {found}, needed is {needed}")]
    Unsuited {
        /// What does not fit.
        what: &'static str,
        /// What was found.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// The schema was made by a newer Leftfold, which this one must not touch.
    #[error("schema {schema} has version {found}, this program knows up to {known}")]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i32,
        /// The newest version known here.
        known: i32,
    },
    /// The schema is older than this program needs, and migrating was left to a person.
    #[error("schema {schema} has version {found}, needed is {needed}; run `leftfold migrate`")]
    NotMigrated {
        /// The schema.
        schema: String,
        /// Its version; 0: there is none.
        found: i32,
        /// The version that is needed.
        needed: i32,
    },
    /// A migration failed; the schema is as it was.
    #[error("migration {version} failed")]
    Migration {
        /// Its number.
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

/// A statement beside the log failed. What it would have written may or may not be there, if the connection was lost.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the database could not be asked")]
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

/// Why a statement of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no connection to the database")]
    NoConnection(#[source] Arc<OpenError>),
    #[error("the database did not answer as expected")]
    Statement(#[source] Arc<tokio_postgres::Error>),
    #[error(
        "committed locally, but the server gave up waiting for its standby: {0}; it might not have been replicated"
    )]
    NotReplicated(String),
    #[error("the database answered what this program does not understand: {0}")]
    Foreign(String),
    #[error("stored data is damaged")]
    Damaged(#[source] leftfold_store::Cause),
    #[error("store is closed")]
    Closed,
    #[error("the store's tasks are gone; its runtime ended")]
    Gone,
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
    /// Whether the statement certainly changed nothing, if it was one transaction of its own.
    pub(crate) fn proves_nothing_written(&self) -> bool {
        match self {
            Self::NoConnection(_) | Self::Closed => true,
            Self::Statement(error) => error.as_db_error().is_some_and(|answer| {
                let code = answer.code();
                // An error ends the transaction before its commit. FATAL and PANIC end the session at any moment.
                answer.severity() == "ERROR"
                    && *code != SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
                    && *code != SqlState::TRANSACTION_RESOLUTION_UNKNOWN
            }),
            _ => false,
        }
    }

    /// Whether an append was refused for an id that is stored, and which was not looked up.
    pub(crate) fn is_known_id(&self) -> bool {
        let Self::Statement(error) = self else {
            return false;
        };
        let code = error.code().map(SqlState::code);
        matches!(code, Some("23505" | "LF004"))
    }

    /// Whether another connection may do better.
    pub(crate) fn is_of_connection(&self) -> bool {
        match self {
            Self::NoConnection(error) => matches!(**error, OpenError::Connect { .. }),
            Self::Statement(error) => error
                .as_db_error()
                .is_none_or(|answer| answer.severity() != "ERROR"),
            _ => false,
        }
    }

    pub(crate) fn into_append_error(self) -> AppendError {
        let cause = Arc::new(self.clone());
        if self.proves_nothing_written() {
            AppendError::Unavailable { cause }
        } else {
            AppendError::OutcomeUnknown { cause }
        }
    }

    pub(crate) fn into_read_error(self) -> ReadError {
        ReadError::Unavailable {
            cause: Arc::new(self),
        }
    }
}
