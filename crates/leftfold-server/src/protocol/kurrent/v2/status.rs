//! Errors in the words of this protocol.
//!
//! **Owns:** which error becomes which status with which details. **Does not know:** what was asked.
//! **Invariants:** clients tell errors apart by the type of the first detail; an error without a type of its own has none.

use leftfold_model::{
    Conflict, CurrentRevision, ExpectedRevision, ModelError, Position, Revision, StreamName,
    StreamWrite,
};
use leftfold_proto::{
    google::rpc,
    kurrentdb::protocol::v2::streams::errors::{
        AppendConsistencyViolationErrorDetails, AppendRecordSizeExceededErrorDetails,
        AppendTransactionSizeExceededErrorDetails, ConsistencyViolation,
        StreamAlreadyInAppendSessionErrorDetails, StreamDeletedErrorDetails,
        StreamRevisionConflictErrorDetails, StreamTombstonedErrorDetails,
    },
    prost::Message,
    prost_types::Any,
};
use leftfold_store::{AppendError, EventStore, ReadError, StreamStatus};
use tonic::{Code, Status};

/// What stands before a message's name in the type of a detail.
const TYPE_PREFIX: &str = "type.googleapis.com/kurrentdb.protocol.v2.streams.errors.";

/// "No stream", as a number.
pub(super) const NO_STREAM: i64 = -1;
/// "Any", as a number.
pub(super) const ANY: i64 = -2;
/// "Exists", as a number.
pub(super) const EXISTS: i64 = -4;
/// A deleted stream, as a number.
pub(super) const DELETED: i64 = -5;
/// A stream that was deleted for good, as a number.
pub(super) const TOMBSTONED: i64 = -6;

pub(super) fn of_model(error: &ModelError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn of_read(error: &ReadError) -> Status {
    tracing::warn!(error = error as &dyn std::error::Error, "read failed");
    match error {
        ReadError::Corrupt { .. } => Status::data_loss(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

/// Why the append of `writes` failed.
pub(super) async fn of_append(
    store: &dyn EventStore,
    writes: &[StreamWrite],
    error: AppendError,
) -> Status {
    match error {
        AppendError::Conflict(conflict) => of_conflict(store, writes, conflict).await,
        AppendError::Invalid { .. } => Status::invalid_argument(error.to_string()),
        AppendError::OutcomeUnknown { .. } => Status::unknown(format!(
            "{error}: repeat the append with the same record ids to find out"
        )),
        _ => {
            tracing::warn!(error = &error as &dyn std::error::Error, "append failed");
            Status::unavailable(error.to_string())
        }
    }
}

async fn of_conflict(store: &dyn EventStore, writes: &[StreamWrite], conflict: Conflict) -> Status {
    let message = conflict.to_string();
    match conflict {
        Conflict::WrongRevision {
            stream,
            expected,
            actual,
        } => revision_conflict(&stream, expected, actual),
        Conflict::StreamDeleted { stream } => match store.stream_state(stream.clone()).await {
            Ok(state) if state.status == StreamStatus::Tombstoned => tombstoned(&stream),
            Ok(_) => detailed(
                Code::FailedPrecondition,
                message,
                "StreamDeletedErrorDetails",
                &StreamDeletedErrorDetails {
                    stream: stream.to_string(),
                },
            ),
            Err(error) => of_read(&error),
        },
        Conflict::PartlyStored { id, .. } => {
            let holds = |write: &&StreamWrite| write.events.iter().any(|event| event.id() == id);
            let Some(write) = writes.iter().find(holds) else {
                return Status::failed_precondition(message);
            };
            match store.stream_state(write.stream.clone()).await {
                Ok(state) => {
                    let actual = CurrentRevision(state.last);
                    revision_conflict(&write.stream, write.expected, actual)
                }
                Err(error) => of_read(&error),
            }
        }
        _ => Status::failed_precondition(message),
    }
}

fn revision_conflict(
    stream: &StreamName,
    expected: ExpectedRevision,
    actual: CurrentRevision,
) -> Status {
    let (expected_revision, actual_revision) = (of_expected(expected), of_current(actual.0));
    detailed(
        Code::FailedPrecondition,
        format!(
            "stream {stream} has another revision; expected {expected_revision}, actual {actual_revision}"
        ),
        "StreamRevisionConflictErrorDetails",
        &StreamRevisionConflictErrorDetails {
            stream: stream.to_string(),
            expected_revision,
            actual_revision,
        },
    )
}

fn tombstoned(stream: &StreamName) -> Status {
    detailed(
        Code::FailedPrecondition,
        format!("stream {stream} is deleted for good"),
        "StreamTombstonedErrorDetails",
        &StreamTombstonedErrorDetails {
            stream: stream.to_string(),
        },
    )
}

/// Streams are not as the checks demand; these are all of them.
pub(super) fn violated(violations: Vec<ConsistencyViolation>) -> Status {
    detailed(
        Code::FailedPrecondition,
        format!(
            "{} of the consistency checks failed, nothing was written",
            violations.len()
        ),
        "AppendConsistencyViolationErrorDetails",
        &AppendConsistencyViolationErrorDetails { violations },
    )
}

/// A record is too large.
pub(super) fn record_too_large(stream: &StreamName, id: String, size: usize, max: usize) -> Status {
    detailed(
        Code::InvalidArgument,
        format!("record {id} for stream {stream} has {size} bytes; allowed are {max}"),
        "AppendRecordSizeExceededErrorDetails",
        &AppendRecordSizeExceededErrorDetails {
            stream: stream.to_string(),
            record_id: id,
            size: of_size(size),
            max_size: of_size(max),
        },
    )
}

/// All records together are too large.
pub(super) fn append_too_large(size: usize, max: usize) -> Status {
    detailed(
        Code::Aborted,
        format!("the append has {size} bytes or more; allowed are {max}, nothing was written"),
        "AppendTransactionSizeExceededErrorDetails",
        &AppendTransactionSizeExceededErrorDetails {
            size: of_size(size),
            max_size: of_size(max),
        },
    )
}

/// A stream came twice in one session.
pub(super) fn stream_came_twice(stream: &StreamName) -> Status {
    detailed(
        Code::Aborted,
        format!("stream {stream} came twice in one session, nothing was written"),
        "StreamAlreadyInAppendSessionErrorDetails",
        &StreamAlreadyInAppendSessionErrorDetails {
            stream: stream.to_string(),
        },
    )
}

/// An expectation, as a number.
fn of_expected(expected: ExpectedRevision) -> i64 {
    match expected {
        ExpectedRevision::Any => ANY,
        ExpectedRevision::NoStream => NO_STREAM,
        ExpectedRevision::StreamExists => EXISTS,
        ExpectedRevision::Exact(revision) => of_revision(revision),
    }
}

/// The revision of a stream's last event, as a number.
pub(super) fn of_current(last: Option<Revision>) -> i64 {
    last.map_or(NO_STREAM, of_revision)
}

/// A revision, as a number.
pub(super) fn of_revision(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

/// A position, as a number.
pub(super) fn of_position(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}

fn of_size(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

fn detailed(code: Code, message: String, name: &str, detail: &impl Message) -> Status {
    let detail = Any {
        type_url: [TYPE_PREFIX, name].concat(),
        value: detail.encode_to_vec(),
    };
    let status = rpc::Status {
        code: code.into(),
        message: message.clone(),
        details: vec![detail],
    };
    Status::with_details(code, message, status.encode_to_vec().into())
}
