//! Errors of the server, and what each proves about the outcome of an append.
//!
//! **Owns:** [`OpenError`], `Failure`, and whether a failed insert certainly changed nothing.
//! **Does not know:** which operation failed.
//! **Invariants:** an outcome is unknown unless proved; only a refusal by the server itself proves that nothing was written.

use std::{error::Error, sync::Arc, time::Duration};

use leftfold_model::Position;
use leftfold_store::{AppendError, ReadError};
use mongodb::error::{ErrorKind, WriteFailure};

/// The code of a server that already holds a document with this key.
const DUPLICATE_KEY: i32 = 11_000;

/// The code of a server that has no collection of this name.
const NAMESPACE_NOT_FOUND: i32 = 26;

/// Why a store over MongoDB could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The address is invalid.
    #[error("invalid MongoDB address: {reason}")]
    Address {
        /// What is wrong with it. Never its password.
        reason: String,
    },
    /// The server could not be reached, or it refused the connection.
    #[error("cannot connect to MongoDB")]
    Connect {
        /// The driver's error.
        #[source]
        cause: Box<dyn Error + Send + Sync>,
    },
    /// An option allows the server to lose what it has acknowledged.
    #[error(
        "unsafe option {option}={value}: acknowledged events could be lost; expected {expected}, \
         or unsafe_allow_lost_commits=true"
    )]
    Unsafe {
        /// The option of the address.
        option: &'static str,
        /// Its value.
        value: String,
        /// The values that are safe.
        expected: &'static str,
    },
    /// The collections were made by a newer Leftfold, which this one must not touch.
    #[error("store {store} has format version {found}; this program reads up to version {known}")]
    Newer {
        /// Database and prefix of the collections.
        store: String,
        /// The version found.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The collections were made by an older Leftfold whose format is no longer read.
    #[error(
        "store {store} has format version {found}; this program reads version {known}: \
         export it with the program that wrote it, and import it into another database"
    )]
    Older {
        /// Database and prefix of the collections.
        store: String,
        /// The version found.
        found: i64,
        /// The version known here.
        known: i64,
    },
}

impl OpenError {
    pub(crate) fn address(reason: impl Into<String>) -> Self {
        Self::Address {
            reason: reason.into(),
        }
    }

    pub(crate) fn connect(failure: Failure) -> Self {
        Self::Connect {
            cause: Box::new(failure),
        }
    }
}

/// Why an operation of the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    #[error("MongoDB operation failed")]
    Driver(#[source] Arc<mongodb::error::Error>),
    #[error("MongoDB operation timed out after {0:?}")]
    TimedOut(Duration),
    #[error("unexpected answer from MongoDB: {0}")]
    Unexpected(String),
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    #[error("head of the log went back from {known} to {found}: the server lost commits")]
    HeadWentBack { known: Position, found: Position },
    #[error("a server that lags behind answered: commit {0} is missing there")]
    Stale(i64),
    #[error("gave up after {0:?}: other writers committed first every time")]
    Contended(Duration),
    #[error("store is closed")]
    Closed,
    #[error("the store's tasks are gone: their runtime ended")]
    RuntimeEnded,
}

impl From<mongodb::error::Error> for Failure {
    fn from(error: mongodb::error::Error) -> Self {
        Self::Driver(Arc::new(error))
    }
}

impl Failure {
    /// Whether another document with this key is there already.
    pub(crate) fn is_duplicate_key(&self) -> bool {
        let Self::Driver(error) = self else {
            return false;
        };
        match &*error.kind {
            ErrorKind::Write(WriteFailure::WriteError(error)) => error.code == DUPLICATE_KEY,
            ErrorKind::InsertMany(error) => error
                .write_errors
                .iter()
                .flatten()
                .any(|error| error.code == DUPLICATE_KEY),
            ErrorKind::Command(error) => error.code == DUPLICATE_KEY,
            _ => false,
        }
    }

    /// Whether the operation was about a collection that is not there yet.
    pub(crate) fn is_missing_collection(&self) -> bool {
        match self {
            Self::Driver(error) => matches!(
                &*error.kind,
                ErrorKind::Command(error) if error.code == NAMESPACE_NOT_FOUND
            ),
            _ => false,
        }
    }

    /// Whether the server itself refused the write, so that nothing was written.
    pub(crate) fn is_refusal(&self) -> bool {
        let Self::Driver(error) = self else {
            return false;
        };
        match &*error.kind {
            ErrorKind::Write(WriteFailure::WriteError(_)) => true,
            ErrorKind::Authentication { .. } | ErrorKind::InvalidArgument { .. } => true,
            // A command that failed with a state change of the server may have been applied before it.
            ErrorKind::Command(_) => {
                !error.contains_label(mongodb::error::RETRYABLE_WRITE_ERROR)
                    && !error.contains_label("RetryableError")
            }
            _ => false,
        }
    }

    /// Whether the same operation may succeed when it is repeated.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Stale(_) => true,
            Self::Driver(error) => {
                matches!(
                    &*error.kind,
                    ErrorKind::Io(_)
                        | ErrorKind::ConnectionPoolCleared { .. }
                        | ErrorKind::ServerSelection { .. }
                        | ErrorKind::DnsResolve { .. }
                ) || error.contains_label(mongodb::error::RETRYABLE_WRITE_ERROR)
            }
            _ => false,
        }
    }

    pub(crate) fn into_read_error(self) -> ReadError {
        match self {
            Self::Damaged(_) => ReadError::Corrupt {
                cause: Arc::new(self),
            },
            Self::HeadWentBack { .. } => ReadError::Invalid {
                reason: self.to_string(),
            },
            other => ReadError::Unavailable {
                cause: Arc::new(other),
            },
        }
    }

    /// The error of an append of which nothing was written.
    pub(crate) fn not_written(self) -> AppendError {
        AppendError::Unavailable {
            cause: Arc::new(self),
        }
    }

    /// The error of an append that may stand in the log.
    pub(crate) fn outcome_unknown(self) -> AppendError {
        AppendError::OutcomeUnknown {
            cause: Arc::new(self),
        }
    }
}
