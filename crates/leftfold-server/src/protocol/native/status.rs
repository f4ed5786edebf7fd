//! Errors of the store as statuses of this protocol.
//!
//! **Owns:** the table from errors to gRPC codes and [`ErrorDetail`] messages. **Does not know:** why something failed.
//! **Invariants:** every error of the contract has a message of its own; texts are bounded, because they travel in headers.

use std::sync::Arc;

use leftfold_model::{Conflict, ErrorChain, ModelError, StreamName, truncate_for_display};
use leftfold_proto::{
    google::rpc,
    leftfold::v1::{
        ErrorDetail,
        error_detail::{
            CauseChain, CheckpointMoved, ClaimLost, ConditionFailed, ConsumerFull, ConsumerHeld,
            ConsumerNotFound, EventNotParked, Invalid, Kind, PartlyStored, StreamDeleted,
            WrongRevision,
        },
    },
    prost::Message,
    prost_types::Any,
};
use leftfold_store::{AppendError, Cause, ReadError, SnapshotError, consumers::ConsumerError};
use tonic::{Code, Status};

use super::encode;
use crate::connection::BudgetExhausted;

/// The type URL of the detail of a status.
const ERROR_DETAIL_URL: &str = "type.googleapis.com/leftfold.v1.ErrorDetail";
/// Maximum length of the chain of causes in a status.
const CAUSES_MAX: usize = 8;
/// Maximum bytes of one text.
const TEXT_BYTES_MAX: usize = 512;

/// The error of a request.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    code: Code,
    kind: Kind,
    text: String,
}

impl ErrorResponse {
    /// The request is invalid.
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        let reason = bounded(&reason.into());
        Self {
            code: Code::InvalidArgument,
            text: reason.clone(),
            kind: Kind::Invalid(Invalid { reason }),
        }
    }

    /// The caller's rights do not allow the request.
    pub(super) fn access_denied(reason: &str) -> Self {
        let reason = bounded(reason);
        Self {
            code: Code::PermissionDenied,
            text: format!("access denied: {reason}"),
            kind: Kind::AccessDenied(Invalid { reason }),
        }
    }

    /// The memory for requests is exhausted.
    pub(super) fn overloaded(full: BudgetExhausted) -> Self {
        AppendError::Unavailable {
            cause: Arc::new(full),
        }
        .into()
    }

    /// The server is shutting down.
    pub(super) fn stopping() -> Self {
        Self {
            code: Code::Unavailable,
            kind: Kind::ShuttingDown(()),
            text: "server is shutting down".into(),
        }
    }

    fn of_conflict(conflict: &Conflict) -> Option<Self> {
        let (code, kind) = match conflict {
            Conflict::WrongRevision {
                stream,
                expected,
                actual,
            } => {
                let kind = WrongRevision {
                    stream: stream.to_string(),
                    expected: Some(encode::expected(*expected)),
                    actual: actual.0.map(leftfold_model::Revision::get),
                };
                (Code::Aborted, Kind::WrongRevision(kind))
            }
            Conflict::StreamDeleted { stream } => (Code::FailedPrecondition, deleted(stream)),
            Conflict::ConditionFailed {
                condition,
                position,
            } => {
                let kind = ConditionFailed {
                    condition: u32::try_from(*condition).unwrap_or(u32::MAX),
                    position: position.get(),
                };
                (Code::Aborted, Kind::ConditionFailed(kind))
            }
            Conflict::PartlyStored { id, position } => {
                let (id_high, id_low) = encode::id(*id);
                let kind = PartlyStored {
                    id_high,
                    id_low,
                    position: position.get(),
                };
                (Code::AlreadyExists, Kind::PartlyStored(kind))
            }
            _ => return None,
        };
        Some(Self {
            code,
            kind,
            text: bounded(&conflict.to_string()),
        })
    }

    fn caused(
        code: Code,
        error: &dyn std::error::Error,
        cause: &Cause,
        kind: fn(CauseChain) -> Kind,
    ) -> Self {
        let causes = causes(cause);
        let mut text = error.to_string();
        for cause in &causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        Self {
            code,
            kind: kind(CauseChain { causes }),
            text: bounded(&text),
        }
    }

    /// Returns the message for responses that carry errors themselves.
    pub(super) fn into_failure(self) -> ErrorDetail {
        ErrorDetail {
            kind: Some(self.kind),
        }
    }
}

impl From<ModelError> for ErrorResponse {
    fn from(error: ModelError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<AppendError> for ErrorResponse {
    fn from(error: AppendError) -> Self {
        let response = match &error {
            AppendError::Conflict(conflict) => Self::of_conflict(conflict),
            AppendError::Invalid { reason } => Some(Self::invalid(reason)),
            AppendError::AccessDenied { reason } => Some(Self::access_denied(reason)),
            AppendError::Unavailable { cause } => Some(Self::caused(
                Code::Unavailable,
                &error,
                cause,
                Kind::Unavailable,
            )),
            AppendError::OutcomeUnknown { cause } => Some(Self::caused(
                Code::Unknown,
                &error,
                cause,
                Kind::OutcomeUnknown,
            )),
            _ => None,
        };
        // Of an error that this protocol has no word for, the client must expect the worst.
        response.unwrap_or_else(|| {
            let text = bounded(&error.to_string());
            Self {
                code: Code::Unknown,
                kind: Kind::OutcomeUnknown(CauseChain {
                    causes: vec![text.clone()],
                }),
                text,
            }
        })
    }
}

impl From<ReadError> for ErrorResponse {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Invalid { reason } => Self::invalid(reason),
            ReadError::AccessDenied { reason } => Self::access_denied(reason),
            ReadError::StreamDeleted { stream } => Self {
                code: Code::NotFound,
                kind: deleted(stream),
                text: bounded(&error.to_string()),
            },
            ReadError::Corrupt { cause } => {
                Self::caused(Code::DataLoss, &error, cause, Kind::Corrupt)
            }
            ReadError::Unavailable { cause } => {
                Self::caused(Code::Unavailable, &error, cause, Kind::Unavailable)
            }
            _ => {
                let text = bounded(&error.to_string());
                let causes = vec![text.clone()];
                Self {
                    code: Code::Unavailable,
                    kind: Kind::Unavailable(CauseChain { causes }),
                    text,
                }
            }
        }
    }
}

impl From<SnapshotError> for ErrorResponse {
    fn from(error: SnapshotError) -> Self {
        let text = bounded(&error.to_string());
        match &error {
            SnapshotError::Damaged { stream } => Self {
                code: Code::DataLoss,
                kind: Kind::SnapshotCorrupt(StreamDeleted {
                    stream: stream.to_string(),
                }),
                text,
            },
            SnapshotError::AccessDenied { reason } => Self::access_denied(reason),
            SnapshotError::Unavailable { cause } => {
                Self::caused(Code::Unavailable, &error, cause, Kind::Unavailable)
            }
            _ => Self {
                code: Code::Unavailable,
                kind: Kind::Unavailable(CauseChain {
                    causes: vec![text.clone()],
                }),
                text,
            },
        }
    }
}

impl From<ConsumerError> for ErrorResponse {
    fn from(error: ConsumerError) -> Self {
        if let Some(refused) = of_claim(&error) {
            return refused;
        }
        let (code, kind) = match &error {
            ConsumerError::Invalid { .. } | ConsumerError::Name(_) => {
                return Self::invalid(error.to_string());
            }
            ConsumerError::Unavailable { cause } => {
                return Self::caused(Code::Unavailable, &error, cause, Kind::Unavailable);
            }
            ConsumerError::Damaged { detail, cause } => {
                let mut texts = vec![bounded(detail)];
                texts.extend(cause.iter().flat_map(causes));
                let causes = CauseChain { causes: texts };
                (Code::DataLoss, Kind::ConsumersCorrupt(causes))
            }
            ConsumerError::NotFound { consumer } => {
                let consumer = consumer.to_string();
                let kind = Kind::ConsumerNotFound(ConsumerNotFound { consumer });
                (Code::NotFound, kind)
            }
            ConsumerError::NotParked { consumer, position } => {
                let kind = Kind::EventNotParked(EventNotParked {
                    consumer: consumer.to_string(),
                    position: position.get(),
                });
                (Code::NotFound, kind)
            }
            ConsumerError::Unsupported { .. } => {
                (Code::Unimplemented, Kind::ConsumersUnsupported(()))
            }
            _ => {
                let causes = vec![bounded(&error.to_string())];
                (Code::Unavailable, Kind::Unavailable(CauseChain { causes }))
            }
        };
        Self {
            code,
            kind,
            text: bounded(&error.to_string()),
        }
    }
}

/// The refusals that depend on who holds a consumer and how far it is.
fn of_claim(error: &ConsumerError) -> Option<ErrorResponse> {
    let (code, kind) = match error {
        ConsumerError::Held {
            consumer,
            holder,
            remaining,
        } => {
            let kind = Kind::ConsumerHeld(ConsumerHeld {
                consumer: consumer.to_string(),
                holder: holder.clone(),
                remaining: encode::micros(*remaining),
            });
            (Code::FailedPrecondition, kind)
        }
        ConsumerError::Lost {
            consumer,
            term,
            newest,
        } => {
            let kind = Kind::ClaimLost(ClaimLost {
                consumer: consumer.to_string(),
                term: *term,
                newest: *newest,
            });
            (Code::Aborted, kind)
        }
        ConsumerError::Moved {
            consumer,
            expected,
            actual,
        } => {
            let kind = Kind::CheckpointMoved(CheckpointMoved {
                consumer: consumer.to_string(),
                expected: expected.get(),
                actual: actual.get(),
            });
            (Code::Aborted, kind)
        }
        ConsumerError::Full { consumer, limit } => {
            let kind = Kind::ConsumerFull(ConsumerFull {
                consumer: consumer.to_string(),
                limit: *limit,
            });
            (Code::FailedPrecondition, kind)
        }
        _ => return None,
    };
    Some(ErrorResponse {
        code,
        kind,
        text: bounded(&error.to_string()),
    })
}

impl From<ErrorResponse> for Status {
    fn from(refusal: ErrorResponse) -> Self {
        let ErrorResponse { code, kind, text } = refusal;
        let failure = ErrorDetail { kind: Some(kind) };
        let whole = rpc::Status {
            code: code.into(),
            message: text.clone(),
            details: vec![Any {
                type_url: ERROR_DETAIL_URL.into(),
                value: failure.encode_to_vec(),
            }],
        };
        Self::with_details(code, text, whole.encode_to_vec().into())
    }
}

fn deleted(stream: &StreamName) -> Kind {
    Kind::StreamDeleted(StreamDeleted {
        stream: stream.to_string(),
    })
}

/// Returns the texts of the cause and its sources.
fn causes(cause: &Cause) -> Vec<String> {
    let texts = ErrorChain(cause.as_ref()).texts().take(CAUSES_MAX);
    texts.map(|text| bounded(&text)).collect()
}

fn bounded(text: &str) -> String {
    truncate_for_display(text, TEXT_BYTES_MAX).into_owned()
}
