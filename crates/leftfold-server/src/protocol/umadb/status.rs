//! Errors as statuses that UmaDB's clients understand.
//!
//! **Owns:** which error becomes which kind and status. **Does not know:** requests.
//! **Invariants:** a client distinguishes errors by the message in the details, or by the status if there are none. An outage
//! has none, so that clients treat it as one.

use leftfold_model::{Conflict, ModelError};
use leftfold_proto::{
    prost::Message,
    umadb::v1::{ErrorResponse, error_response::ErrorType},
};
use leftfold_store::{AppendError, ReadError};
use tonic::{Code, Status};

use crate::call::QueryError;

/// The request breaks a rule; a retry cannot help.
pub(super) fn invalid(reason: impl ToString) -> Status {
    detailed(
        Code::InvalidArgument,
        ErrorType::InvalidArgument,
        reason.to_string(),
    )
}

pub(super) fn of_model(error: &ModelError) -> Status {
    invalid(error)
}

/// A condition failed, or progress does not advance: read again and decide again.
pub(super) fn integrity(reason: impl ToString) -> Status {
    detailed(
        Code::FailedPrecondition,
        ErrorType::Integrity,
        reason.to_string(),
    )
}

pub(super) fn of_append(error: &AppendError) -> Status {
    match error {
        AppendError::Conflict(conflict @ Conflict::StreamDeleted { .. }) => detailed(
            Code::FailedPrecondition,
            ErrorType::Io,
            conflict.to_string(),
        ),
        AppendError::Conflict(conflict) => integrity(conflict),
        AppendError::Invalid { .. } => invalid(error),
        AppendError::AccessDenied { .. } => Status::permission_denied(error.to_string()),
        AppendError::OutcomeUnknown { .. } => Status::unknown(format!(
            "{error}: read to find out; an append under a condition that fails because of its events can be repeated"
        )),
        _ => {
            tracing::warn!(error = error as &dyn std::error::Error, "append failed");
            Status::unavailable(error.to_string())
        }
    }
}

pub(super) fn of_read(error: &ReadError) -> Status {
    match error {
        ReadError::Invalid { .. } => invalid(error),
        ReadError::AccessDenied { .. } => Status::permission_denied(error.to_string()),
        ReadError::Corrupt { .. } => {
            tracing::error!(error = error as &dyn std::error::Error, "read failed");
            damaged(error)
        }
        _ => {
            tracing::warn!(error = error as &dyn std::error::Error, "read failed");
            Status::unavailable(error.to_string())
        }
    }
}

/// Returns the status if the progress of a source cannot be read.
pub(super) fn of_tracking(error: &ReadError) -> Status {
    match error {
        // Not an outage: no retry can help.
        ReadError::StreamDeleted { .. } => {
            detailed(Code::FailedPrecondition, ErrorType::Io, error.to_string())
        }
        error => of_read(error),
    }
}

/// Stored data is damaged.
pub(super) fn damaged(reason: impl ToString) -> Status {
    detailed(Code::DataLoss, ErrorType::Corruption, reason.to_string())
}

/// The status of a read that was not answered.
pub(super) fn of_query(unanswered: QueryError) -> Status {
    match unanswered {
        QueryError::ShuttingDown => stopping(),
        QueryError::TimedOut(_) => Status::deadline_exceeded(unanswered.to_string()),
    }
}

/// The server is shutting down.
pub(super) fn stopping() -> Status {
    Status::unavailable("server is stopping")
}

fn detailed(code: Code, kind: ErrorType, message: String) -> Status {
    let details = ErrorResponse {
        message: message.clone(),
        error_type: kind.into(),
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}
