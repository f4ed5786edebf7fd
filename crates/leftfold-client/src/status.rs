//! Decoding failed calls into the contract's errors.
//!
//! **Owns:** rebuilding errors from statuses and their details. **Does not know:** whether to retry.
//! **Invariants:** a status without details did not come from the store and proves nothing about the outcome,
//! unless it denies access.

use std::{sync::Arc, time::Duration};

use leftfold_model::{
    Conflict, CurrentRevision, EventId, ExpectedRevision, ModelError, Position, Revision,
    StreamName,
};
use leftfold_proto::{
    google::rpc,
    leftfold::v1::{
        ErrorDetail,
        error_detail::{CauseChain, Invalid, Kind},
    },
    prost::Message,
};
use leftfold_store::{
    AppendError, Cause, ReadError, SnapshotError,
    consumers::{ConsumerError, ConsumerName},
};
use tonic::{Code, Status};

use crate::{RpcError, decode};

const ERROR_DETAIL_TYPE: &str = "leftfold.v1.ErrorDetail";

/// The meaning of a status.
#[derive(Debug)]
pub(crate) enum StatusKind {
    /// The store returned an error.
    Store(ErrorDetail),
    /// The server did not begin, because it is shutting down.
    ShuttingDown,
    /// The request was invalid or not allowed; a retry does not help.
    Rejected(Cause),
    /// No response arrived.
    NoResponse(Cause),
}

impl StatusKind {
    pub(crate) fn of(status: Status, address: &str) -> Self {
        if let Some(failure) = failure(&status) {
            return match failure.kind {
                Some(Kind::ShuttingDown(_)) => Self::ShuttingDown,
                _ => Self::Store(failure),
            };
        }
        // A server says so before it asks its store.
        if matches!(
            status.code(),
            Code::PermissionDenied | Code::Unauthenticated
        ) {
            let reason = status.message().to_owned();
            let kind = Some(Kind::AccessDenied(Invalid { reason }));
            return Self::Store(ErrorDetail { kind });
        }
        let not_taken = matches!(
            status.code(),
            Code::Unimplemented
                | Code::InvalidArgument
                | Code::OutOfRange
                | Code::ResourceExhausted
                | Code::NotFound
        );
        let cause: Cause = Arc::new(status);
        if not_taken {
            Self::Rejected(RpcError::Rejected { cause }.cause())
        } else {
            let address = address.to_owned();
            Self::NoResponse(RpcError::Connection { address, cause }.cause())
        }
    }
}

fn failure(status: &Status) -> Option<ErrorDetail> {
    let whole = rpc::Status::decode(status.details()).ok()?;
    let detail = whole
        .details
        .into_iter()
        .find(|detail| detail.type_url.ends_with(ERROR_DETAIL_TYPE))?;
    ErrorDetail::decode(detail.value.as_slice()).ok()
}

/// Returns the error of an append.
pub(crate) fn append_error(failure: ErrorDetail) -> AppendError {
    match failure.kind {
        Some(Kind::Invalid(invalid)) => AppendError::Invalid {
            reason: invalid.reason,
        },
        Some(Kind::AccessDenied(denied)) => AppendError::AccessDenied {
            reason: denied.reason,
        },
        Some(Kind::Unavailable(caused)) => AppendError::Unavailable {
            cause: cause_from(caused),
        },
        Some(Kind::ShuttingDown(_)) => AppendError::Unavailable {
            cause: RpcError::ShuttingDown.cause(),
        },
        Some(Kind::OutcomeUnknown(caused)) => AppendError::OutcomeUnknown {
            cause: cause_from(caused),
        },
        Some(kind) => match conflict(kind) {
            Ok(Some(conflict)) => AppendError::Conflict(conflict),
            Ok(None) => unknown("it is no answer to an append"),
            Err(error) => unknown(error.to_string()),
        },
        None => unknown("a failure without a kind"),
    }
}

fn unknown(what: impl Into<String>) -> AppendError {
    AppendError::OutcomeUnknown {
        cause: RpcError::not_understood(what).cause(),
    }
}

fn conflict(kind: Kind) -> Result<Option<Conflict>, ModelError> {
    Ok(Some(match kind {
        Kind::WrongRevision(wrong) => Conflict::WrongRevision {
            stream: StreamName::new(wrong.stream)?,
            expected: wrong
                .expected
                .map_or(ExpectedRevision::Any, decode::expected),
            actual: CurrentRevision(wrong.actual.map(Revision::new)),
        },
        Kind::StreamDeleted(deleted) => Conflict::StreamDeleted {
            stream: StreamName::new(deleted.stream)?,
        },
        Kind::ConditionFailed(failed) => Conflict::ConditionFailed {
            condition: usize::try_from(failed.condition).unwrap_or(usize::MAX),
            position: Position::new(failed.position),
        },
        Kind::PartlyStored(partly) => Conflict::PartlyStored {
            id: EventId::from(uuid::Uuid::from_u64_pair(partly.id_high, partly.id_low)),
            position: Position::new(partly.position),
        },
        _ => return Ok(None),
    }))
}

/// Returns the error of a read.
pub(crate) fn read_error(failure: ErrorDetail) -> ReadError {
    match failure.kind {
        Some(Kind::Invalid(invalid)) => ReadError::Invalid {
            reason: invalid.reason,
        },
        Some(Kind::AccessDenied(denied)) => ReadError::AccessDenied {
            reason: denied.reason,
        },
        Some(Kind::StreamDeleted(deleted)) => match StreamName::new(deleted.stream) {
            Ok(stream) => ReadError::StreamDeleted { stream },
            Err(error) => unreadable(RpcError::not_understood(error.to_string())),
        },
        Some(Kind::Corrupt(caused)) => ReadError::Corrupt {
            cause: cause_from(caused),
        },
        Some(Kind::Unavailable(caused)) => ReadError::Unavailable {
            cause: cause_from(caused),
        },
        Some(Kind::ShuttingDown(_)) => unreadable(RpcError::ShuttingDown),
        _ => unreadable(RpcError::not_understood("it is no answer to a read")),
    }
}

/// Returns the read error with this cause.
pub(crate) fn unreadable(error: RpcError) -> ReadError {
    ReadError::Unavailable {
        cause: error.cause(),
    }
}

/// Returns the error of a read or subscription whose server has a shorter log than was read of it, as after a restore.
pub(crate) fn log_went_back(head: Position, seen: Position) -> ReadError {
    let reason = format!(
        "the server's log ends at {head}, but events up to {seen} were seen: it is not the log it was"
    );
    ReadError::Invalid { reason }
}

/// Returns the error of a read that ends with this status.
pub(crate) fn to_read_error(said: StatusKind) -> ReadError {
    match said {
        StatusKind::Store(failure) => read_error(failure),
        StatusKind::Rejected(cause) | StatusKind::NoResponse(cause) => {
            ReadError::Unavailable { cause }
        }
        StatusKind::ShuttingDown => unreadable(RpcError::ShuttingDown),
    }
}

/// Returns the error of a snapshot.
pub(crate) fn snapshot_error(failure: ErrorDetail) -> SnapshotError {
    let cause = match failure.kind {
        Some(Kind::SnapshotCorrupt(damaged)) => match StreamName::new(damaged.stream) {
            Ok(stream) => return SnapshotError::Damaged { stream },
            Err(error) => RpcError::not_understood(error.to_string()).cause(),
        },
        Some(Kind::AccessDenied(denied)) => {
            return SnapshotError::AccessDenied {
                reason: denied.reason,
            };
        }
        Some(Kind::Unavailable(caused)) => cause_from(caused),
        Some(Kind::Invalid(invalid)) => RpcError::Server {
            text: invalid.reason,
            cause: None,
        }
        .cause(),
        Some(Kind::ShuttingDown(_)) => RpcError::ShuttingDown.cause(),
        _ => RpcError::not_understood("it is no answer about a snapshot").cause(),
    };
    SnapshotError::Unavailable { cause }
}

/// The error of a call about consumers.
pub(crate) fn consumer_error(failure: ErrorDetail) -> ConsumerError {
    rebuilt(failure.kind).unwrap_or_else(|error| ConsumerError::Unavailable {
        cause: error.cause(),
    })
}

fn rebuilt(kind: Option<Kind>) -> Result<ConsumerError, RpcError> {
    let name = |text: String| {
        ConsumerName::new(text).map_err(|error| RpcError::not_understood(error.to_string()))
    };
    Ok(match kind {
        Some(Kind::Invalid(invalid)) => ConsumerError::Invalid {
            what: "request",
            value: invalid.reason,
            expected: "what the server's release takes".to_owned(),
        },
        Some(Kind::Unavailable(caused)) => ConsumerError::Unavailable {
            cause: cause_from(caused),
        },
        Some(Kind::ConsumerHeld(held)) => ConsumerError::Held {
            consumer: name(held.consumer)?,
            holder: held.holder,
            remaining: Duration::from_micros(held.remaining),
        },
        Some(Kind::ClaimLost(lost)) => ConsumerError::Lost {
            consumer: name(lost.consumer)?,
            term: lost.term,
            newest: lost.newest,
        },
        Some(Kind::CheckpointMoved(moved)) => ConsumerError::Moved {
            consumer: name(moved.consumer)?,
            expected: Position::new(moved.expected),
            actual: Position::new(moved.actual),
        },
        Some(Kind::ConsumerFull(full)) => ConsumerError::Full {
            consumer: name(full.consumer)?,
            limit: full.limit,
        },
        Some(Kind::ConsumerNotFound(absent)) => ConsumerError::NotFound {
            consumer: name(absent.consumer)?,
        },
        Some(Kind::EventNotParked(absent)) => ConsumerError::NotParked {
            consumer: name(absent.consumer)?,
            position: Position::new(absent.position),
        },
        Some(Kind::ConsumersCorrupt(mut caused)) => {
            let detail = (!caused.causes.is_empty()).then(|| caused.causes.remove(0));
            ConsumerError::Damaged {
                detail: detail.unwrap_or_default(),
                cause: (!caused.causes.is_empty()).then(|| cause_from(caused)),
            }
        }
        Some(Kind::ConsumersUnsupported(())) => ConsumerError::Unsupported {
            store: "the store of the server",
        },
        Some(Kind::ShuttingDown(())) => return Err(RpcError::ShuttingDown),
        _ => {
            let what = "it is no answer about a consumer";
            return Err(RpcError::not_understood(what));
        }
    })
}

/// Rebuilds the chain of causes that the server sent.
fn cause_from(caused: CauseChain) -> Cause {
    let chain = caused.causes.into_iter().rev();
    let whole = chain.fold(None, |cause, text| {
        Some(RpcError::Server { text, cause }.cause())
    });
    whole.unwrap_or_else(|| RpcError::not_understood("a failure without a cause").cause())
}
