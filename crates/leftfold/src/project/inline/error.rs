//! Why a projection is not inline, or an append with its views was refused.
//!
//! **Owns:** [`InlineError`], and the failures of an attempt. **Does not know:** how appends and views are written.
//! **Invariants:** every reason names the projection; one about an event names the event and its place too.

use std::sync::Arc;

use leftfold_model::{Position, RecordedEvent, Revision, StreamName};
use leftfold_store::{AppendError, ReadError};

use crate::{
    HandlerError, LoadError,
    project::{ProjectionError, ProjectionId},
    reason::{bounded, chain},
};

/// Why a projection cannot be inline.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InlineError {
    /// The store's events are in no PostgreSQL database, so an append and a view cannot be one transaction.
    #[error(
        "store cannot append in a transaction of a view; projection {projection} expects a store over PostgreSQL: \
         start it with `spawn`, and wait for your events with `wait_for`"
    )]
    UnsupportedStore {
        /// The projection.
        projection: &'static str,
    },
    /// The store is that of a tenant, whose names are stored in another form than the view is written from.
    #[error(
        "store is that of a tenant; projection {projection} expects a store without one: start it with `spawn`"
    )]
    Tenant {
        /// The projection.
        projection: &'static str,
    },
    /// The view is not in the database of the store, or it does not find its tables by the search path of the other inline views.
    #[error(
        "view of projection {projection} is in another database or schema; expected {expected}"
    )]
    OtherDatabase {
        /// The projection.
        projection: &'static str,
        /// Where the view has to be.
        expected: &'static str,
    },
    /// The projection parks events that fail. Inline, an event that fails is refused, so none can be parked.
    #[error(
        "projection {projection} parks events; expected `stop_on_failure`, because its appends are refused instead"
    )]
    Parks {
        /// The projection.
        projection: &'static str,
    },
    /// The version could not be built from the log.
    #[error("inline projection was not built")]
    NotBuilt(#[from] ProjectionError),
    /// The view cannot be reached, or the role of its connections may not append.
    #[error("view or log cannot be used")]
    Unavailable(#[from] AppendError),
    /// The projection's events cannot be selected.
    #[error("events of a projection cannot be selected")]
    Selection(#[from] LoadError),
}

/// Why an append was not written with its views. Nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Failure {
    #[error(
        "projection {of} failed on event {event_type}, revision {revision} of stream {stream}, at position {position}: {reason}"
    )]
    Event {
        of: ProjectionId,
        event_type: String,
        stream: StreamName,
        revision: Revision,
        position: Position,
        reason: String,
        /// The database failed, and not the projection.
        is_transient: bool,
    },
    #[error("projection {of} is superseded by version {by}; expected a program with that version")]
    Superseded { of: ProjectionId, by: u32 },
    #[error(
        "projection {of} has {events} parked events; expected none: retry them with `park_on_failure` and `spawn`"
    )]
    Parked { of: ProjectionId, events: u64 },
    #[error("projection {of} is not built yet, or is built again")]
    NotBuilt { of: ProjectionId },
    #[error(
        "checkpoint {checkpoint} of projection {of} is behind the end of the log at {head}: the log was restored"
    )]
    OtherLog {
        of: ProjectionId,
        checkpoint: Position,
        head: Position,
    },
    #[error("projection {of} lacks events up to position {head}; expected at most {max}")]
    Behind {
        of: ProjectionId,
        head: Position,
        max: usize,
    },
    #[error("views of {projections} were not written within {budget:?}")]
    TimedOut {
        projections: String,
        budget: std::time::Duration,
    },
    #[error("other appends came first in {attempts} attempts")]
    Overtaken { attempts: u32 },
    #[error("view of {of} cannot be written")]
    View {
        of: ProjectionId,
        #[source]
        cause: Arc<sqlx::Error>,
    },
    #[error("events that projection {of} lacks cannot be read")]
    Read {
        of: ProjectionId,
        #[source]
        cause: ReadError,
    },
    #[error("database of the views cannot be used")]
    Database(#[source] Arc<sqlx::Error>),
    #[error(transparent)]
    Append(AppendError),
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl Failure {
    pub(super) fn event(
        of: ProjectionId,
        event: &RecordedEvent,
        reason: &str,
        is_transient: bool,
    ) -> Self {
        Self::Event {
            of,
            event_type: event.event_type.to_string(),
            stream: event.stream.clone(),
            revision: event.revision,
            position: event.position,
            reason: bounded(reason),
            is_transient,
        }
    }

    pub(super) fn view(of: ProjectionId, cause: sqlx::Error) -> Self {
        Self::View {
            of,
            cause: Arc::new(cause),
        }
    }

    pub(super) fn database(cause: sqlx::Error) -> Self {
        Self::Database(Arc::new(cause))
    }

    /// Returns whether the projection itself refused the append: a repetition cannot help.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Event { is_transient, .. } => !is_transient,
            Self::Superseded { .. } | Self::Parked { .. } | Self::OtherLog { .. } => true,
            _ => false,
        }
    }

    /// Returns the error of an append of which nothing was committed.
    pub(super) fn into_append_error(self) -> AppendError {
        match self {
            // What has no commit has not happened.
            Self::Append(AppendError::OutcomeUnknown { cause }) => {
                AppendError::Unavailable { cause }
            }
            Self::Append(error) => error,
            failure if failure.is_final() => AppendError::Invalid {
                reason: chain(&failure),
            },
            failure => AppendError::Unavailable {
                cause: Arc::new(failure),
            },
        }
    }
}

/// Returns whether a handler failed because its database did.
pub(super) fn is_transient(error: &HandlerError) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Database(answer)) => {
            let code = answer.code().unwrap_or_default();
            // Lost connections, aborted and timed out transactions, exhausted resources, objects in use, operators, the system.
            let classes = ["08", "25P0", "40", "53", "55", "57", "58"];
            classes.iter().any(|class| code.starts_with(class))
        }
        Some(error) => matches!(
            error,
            sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
        ),
        None => false,
    }
}
