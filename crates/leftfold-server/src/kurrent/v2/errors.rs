//! Errors as the second protocol tells them: a status with details.
//!
//! **Owns:** every status of that protocol, and numbers that stand for states of streams. **Does not know:** when they occur.

use std::time::Duration;

use bytes::Bytes;
use leftfold_model::{
    Conflict, CurrentRevision, EventId, ExpectedRevision, ModelError, Revision, StreamName, limits,
};
use leftfold_proto::{
    google::rpc::Status as Whole,
    kurrentdb::protocol::v2::streams::errors::{
        AppendConsistencyViolationErrorDetails, AppendRecordSizeExceededErrorDetails,
        AppendTransactionSizeExceededErrorDetails, ConsistencyViolation,
        StreamAlreadyInAppendSessionErrorDetails, StreamRevisionConflictErrorDetails,
        StreamTombstonedErrorDetails,
        consistency_violation::{StreamStateViolation, Type},
    },
    prost::{Message, Name},
    prost_types::Any,
};
use leftfold_store::{AppendError, StreamState, StreamStatus};
use tonic::{Code, Status};

const NO_STREAM: i64 = -1;
const ANY: i64 = -2;
const EXISTS: i64 = -4;
/// A stream that can come back.
pub(super) const DELETED: i64 = -5;
const TOMBSTONED: i64 = -6;

/// A check that does not hold.
pub(super) struct Violation {
    pub(super) index: usize,
    pub(super) stream: StreamName,
    pub(super) expected: i64,
    pub(super) actual: i64,
}

fn told<M: Message + Name>(code: Code, message: impl Into<String>, detail: &M) -> Status {
    let message = message.into();
    let whole = Whole {
        code: code as i32,
        message: message.clone(),
        details: vec![Any {
            type_url: format!("type.googleapis.com/{}", M::full_name()),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, Bytes::from(whole.encode_to_vec()))
}

pub(super) fn invalid(error: &ModelError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn too_slow(bound: Duration) -> Status {
    Status::deadline_exceeded(format!("the records did not come within {bound:?}"))
}

/// The stream of this name.
pub(super) fn stream(name: &str) -> Result<StreamName, Status> {
    StreamName::new(name).map_err(|error| invalid(&error))
}

/// What a number expects.
pub(super) fn expectation(number: i64) -> Result<ExpectedRevision, Status> {
    Ok(match number {
        ANY => ExpectedRevision::Any,
        NO_STREAM => ExpectedRevision::NoStream,
        EXISTS => ExpectedRevision::StreamExists,
        number => match u64::try_from(number) {
            Ok(revision) => ExpectedRevision::Exact(Revision::new(revision)),
            Err(_) => {
                return Err(Status::invalid_argument(format!(
                    "{number} expects nothing: allowed are revisions, -1 (no stream), -2 (any) and -4 (exists)"
                )));
            }
        },
    })
}

/// The number of an expectation.
pub(super) fn expected(expected: ExpectedRevision) -> i64 {
    match expected {
        ExpectedRevision::Any => ANY,
        ExpectedRevision::NoStream => NO_STREAM,
        ExpectedRevision::StreamExists => EXISTS,
        ExpectedRevision::Exact(revision) => super::signed(revision.get()),
    }
}

/// The number of a state.
pub(super) fn actual(state: &StreamState) -> i64 {
    match state.status {
        StreamStatus::Tombstoned => TOMBSTONED,
        StreamStatus::Deleted => DELETED,
        StreamStatus::Absent | StreamStatus::Present => current(CurrentRevision(state.last)),
    }
}

fn current(current: CurrentRevision) -> i64 {
    current
        .0
        .map_or(NO_STREAM, |revision| super::signed(revision.get()))
}

pub(super) fn already_in_session(stream: &StreamName) -> Status {
    told(
        Code::Aborted,
        format!("stream {stream} is already part of this session; each can be appended to once"),
        &StreamAlreadyInAppendSessionErrorDetails {
            stream: stream.to_string(),
        },
    )
}

pub(super) fn record_too_large(stream: &StreamName, id: EventId, size: usize) -> Status {
    let max = limits::DATA_BYTES_MAX;
    told(
        Code::InvalidArgument,
        format!("record {id} has {size} bytes, allowed are {max}"),
        &AppendRecordSizeExceededErrorDetails {
            stream: stream.to_string(),
            record_id: id.to_string(),
            size: narrow(size),
            max_size: narrow(max),
        },
    )
}

pub(super) fn append_too_large(size: usize) -> Status {
    let max = limits::APPEND_BYTES_MAX;
    told(
        Code::Aborted,
        format!("the append has at least {size} bytes, allowed are {max}"),
        &AppendTransactionSizeExceededErrorDetails {
            size: narrow(size),
            max_size: narrow(max),
        },
    )
}

fn narrow(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

pub(super) fn violations(violations: Vec<Violation>) -> Status {
    let first = violations.first().map_or_else(String::new, |violation| {
        format!(
            ": stream {} is at {}, expected {}",
            violation.stream, violation.actual, violation.expected
        )
    });
    let message = format!("{} of the checks do not hold{first}", violations.len());
    let shown = |violation: Violation| ConsistencyViolation {
        check_index: narrow(violation.index),
        r#type: Some(Type::StreamState(StreamStateViolation {
            stream: violation.stream.to_string(),
            expected_state: violation.expected,
            actual_state: violation.actual,
        })),
    };
    let violations = violations.into_iter().map(shown).collect();
    told(
        Code::FailedPrecondition,
        message,
        &AppendConsistencyViolationErrorDetails { violations },
    )
}

pub(super) fn of_conflict(conflict: &Conflict) -> Status {
    let message = conflict.to_string();
    match conflict {
        Conflict::WrongRevision {
            stream,
            expected: wanted,
            actual,
        } => told(
            Code::FailedPrecondition,
            message,
            &StreamRevisionConflictErrorDetails {
                stream: stream.to_string(),
                expected_revision: expected(*wanted),
                actual_revision: current(*actual),
            },
        ),
        Conflict::StreamDeleted { stream } => told(
            Code::FailedPrecondition,
            message,
            &StreamTombstonedErrorDetails {
                stream: stream.to_string(),
            },
        ),
        _ => Status::failed_precondition(message),
    }
}

pub(super) fn of_session(error: &AppendError) -> Status {
    match error {
        AppendError::Conflict(conflict) => of_conflict(conflict),
        AppendError::Invalid { reason } => Status::invalid_argument(reason.clone()),
        AppendError::OutcomeUnknown { .. } => {
            Status::deadline_exceeded(format!("{error}; the same records can be appended again"))
        }
        error => Status::unavailable(error.to_string()),
    }
}
