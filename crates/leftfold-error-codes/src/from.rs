//! The codes of the contract's errors.
//!
//! **Owns:** the way from an error of the model or of a store to its [`ErrorCode`]. **Does not know:** errors of opening.
//! **Invariants:** an error of a kind that is not known here counts as the worst that it may be.

use leftfold_model::{Conflict, ModelError};
use leftfold_store::{AppendError, ReadError, consumers::ConsumerError};

use crate::ErrorCode;

impl From<&ModelError> for ErrorCode {
    fn from(_: &ModelError) -> Self {
        Self::InvalidRequest
    }
}

impl From<&Conflict> for ErrorCode {
    fn from(conflict: &Conflict) -> Self {
        match conflict {
            Conflict::StreamDeleted { .. } => Self::StreamDeleted,
            Conflict::ConditionFailed { .. } => Self::ConditionFailed,
            Conflict::PartlyStored { .. } => Self::PartlyStored,
            _ => Self::WrongRevision,
        }
    }
}

impl From<&AppendError> for ErrorCode {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::Conflict(conflict) => conflict.into(),
            AppendError::Invalid { .. } => Self::InvalidRequest,
            AppendError::AccessDenied { .. } => Self::AccessDenied,
            AppendError::Unavailable { .. } => Self::StoreUnavailable,
            // An append may have happened unless its error says otherwise.
            _ => Self::OutcomeUnknown,
        }
    }
}

impl From<&ReadError> for ErrorCode {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Invalid { .. } => Self::InvalidRequest,
            ReadError::StreamDeleted { .. } => Self::StreamDeleted,
            ReadError::AccessDenied { .. } => Self::AccessDenied,
            ReadError::Corrupt { .. } => Self::Corrupt,
            _ => Self::StoreUnavailable,
        }
    }
}

impl From<&ConsumerError> for ErrorCode {
    fn from(error: &ConsumerError) -> Self {
        match error {
            ConsumerError::Held { .. } => Self::ConsumerHeld,
            ConsumerError::Lost { .. } | ConsumerError::Moved { .. } => Self::ConsumerClaimLost,
            ConsumerError::NotFound { .. } | ConsumerError::NotParked { .. } => {
                Self::ConsumerNotFound
            }
            ConsumerError::Damaged { .. } => Self::Corrupt,
            ConsumerError::AccessDenied { .. } => Self::AccessDenied,
            ConsumerError::Unavailable { .. } => Self::StoreUnavailable,
            _ => Self::InvalidRequest,
        }
    }
}
