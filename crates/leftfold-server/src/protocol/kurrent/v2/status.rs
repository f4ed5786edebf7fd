//! Errors as statuses of the second protocol.
//!
//! **Owns:** which error becomes which status with which details. **Does not know:** requests.
//! **Invariants:** clients distinguish errors by the type of the first detail; an error without a type of its own has none.

use leftfold_model::{
    Conflict, CurrentRevision, ExpectedRevision, ModelError, StreamName, StreamWrite,
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

use super::super::{limits::DETAILS_BYTES_MAX, revision};

/// The prefix of a message's name in the type of a detail.
const TYPE_PREFIX: &str = "type.googleapis.com/kurrentdb.protocol.v2.streams.errors.";

pub(super) fn of_model(error: &ModelError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn of_read(error: &ReadError) -> Status {
    if let ReadError::AccessDenied { .. } = error {
        return Status::permission_denied(error.to_string());
    }
    tracing::warn!(error = error as &dyn std::error::Error, "read failed");
    match error {
        ReadError::Corrupt { .. } => Status::data_loss(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

/// Returns the status of a failed append of `writes`.
pub(super) async fn of_append(
    store: &dyn EventStore,
    writes: &[StreamWrite],
    error: AppendError,
) -> Status {
    match error {
        AppendError::Conflict(conflict) => of_conflict(store, writes, conflict).await,
        AppendError::Invalid { .. } => Status::invalid_argument(error.to_string()),
        AppendError::AccessDenied { .. } => Status::permission_denied(error.to_string()),
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
    let (expected_revision, actual_revision) = (
        revision::of_expected(expected),
        revision::of_current(actual),
    );
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

/// Some checks fail. The status lists the first violations, up to the size that clients accept.
pub(super) fn violated(mut violations: Vec<ConsistencyViolation>) -> Status {
    let count = violations.len();
    let mut bytes = 0;
    let fitting = violations.iter().take_while(|violation| {
        // A key and a length of two bytes are around each.
        bytes += violation.encoded_len() + 3;
        bytes <= DETAILS_BYTES_MAX
    });
    let fitting = fitting.count().max(1);
    violations.truncate(fitting);
    let mut message = format!("{count} of the consistency checks failed, nothing was written");
    if fitting < count {
        message.push_str(&format!("; the first {fitting} are named"));
    }
    detailed(
        Code::FailedPrecondition,
        message,
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
