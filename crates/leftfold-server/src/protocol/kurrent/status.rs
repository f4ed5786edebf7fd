//! Errors as statuses of the first protocol: a code, a message, and trailers.
//!
//! **Owns:** every status of that protocol. **Does not know:** when they occur.
//! **Invariants:** no details are attached, since clients take these for the second protocol's.

use leftfold_model::{CurrentRevision, ExpectedRevision, ModelError, StreamName};
use leftfold_store::{AppendError, ReadError, consumers::ConsumerError};
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};

use super::revision;
use crate::{
    call::OutcomeUnknown,
    event_filter::FilterError,
    groups::{GroupError, GroupId, GroupSource},
};

/// Returns a status with the trailers that clients read.
fn status(code: Code, message: String, trailers: &[(&'static str, &str)]) -> Status {
    let mut metadata = MetadataMap::new();
    for (name, value) in trailers {
        metadata.insert(*name, trailer(value));
    }
    Status::with_metadata(code, message, metadata)
}

/// Encodes a value for a trailer. Characters that it cannot hold are replaced; clients compare only plain names.
fn trailer(value: &str) -> MetadataValue<tonic::metadata::Ascii> {
    let plain: String = value
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .collect();
    plain
        .parse()
        .unwrap_or_else(|_| MetadataValue::from_static("?"))
}

pub(super) fn stream_deleted(stream: &StreamName) -> Status {
    status(
        Code::FailedPrecondition,
        format!("Event stream '{stream}' is deleted."),
        &[
            ("exception", "stream-deleted"),
            ("stream-name", stream.as_str()),
        ],
    )
}

/// A deletion that expected another revision; an append reports this in its response.
pub(super) fn wrong_expected_version(
    stream: &StreamName,
    expected: ExpectedRevision,
    actual: CurrentRevision,
) -> Status {
    let (expected, actual) = (
        revision::of_expected(expected),
        revision::of_current(actual),
    );
    status(
        Code::FailedPrecondition,
        format!(
            "Delete failed due to WrongExpectedVersion. Stream: {stream}, Expected version: {expected}, \
             Actual version: {actual}"
        ),
        &[
            ("exception", "wrong-expected-version"),
            ("stream-name", stream.as_str()),
            ("expected-version", &expected.to_string()),
            ("actual-version", &actual.to_string()),
        ],
    )
}

pub(super) fn append_too_large(max: usize) -> Status {
    status(
        Code::InvalidArgument,
        format!("Maximum Append Size of {max} Exceeded."),
        &[
            ("exception", "maximum-append-size-exceeded"),
            ("maximum-append-size", &max.to_string()),
        ],
    )
}

pub(super) fn event_too_large(id: &str, proposed: usize, max: usize) -> Status {
    status(
        Code::InvalidArgument,
        format!(
            "Event with Id: {id}, Size: {proposed}, exceeds Maximum Append Event Size of {max}."
        ),
        &[
            ("exception", "maximum-append-event-size-exceeded"),
            ("event-id", id),
            ("proposed-append-event-size", &proposed.to_string()),
            ("maximum-append-event-size", &max.to_string()),
        ],
    )
}

pub(super) fn required_metadata_missing() -> Status {
    status(
        Code::InvalidArgument,
        "Required Metadata Property Missing: type, content-type".to_owned(),
        &[
            ("exception", "missing-required-metadata-property"),
            ("required-metadata-properties", "type,content-type"),
        ],
    )
}

/// What is wrong about a user.
pub(super) fn with_login(code: Code, exception: &str, message: String, login: &str) -> Status {
    status(
        code,
        message,
        &[("exception", exception), ("login-name", login)],
    )
}

pub(super) fn scavenge_not_found(id: &str) -> Status {
    status(
        Code::NotFound,
        "Scavenge id was invalid.".to_owned(),
        &[("exception", "scavenge-not-found"), ("scavenge-id", id)],
    )
}

/// An index that this server does not have.
pub(super) fn index_not_found(name: &str) -> Status {
    status(
        Code::NotFound,
        format!("Index '{name}' not found: there are $idx-all, $idx-ce-CATEGORY and $idx-et-TYPE."),
        &[("exception", "index-not-found"), ("index-name", name)],
    )
}

/// A filter that cannot be used.
pub(super) fn of_filter(error: FilterError) -> Status {
    match error {
        FilterError::UnknownIndex { name } => index_not_found(&name),
        FilterError::Exhausted => Status::unavailable(error.to_string()),
        error => Status::invalid_argument(error.to_string()),
    }
}

/// A projection that is not there.
pub(super) fn projection_not_found(name: &str, known: &str) -> Status {
    let shown: String = name.chars().take(200).collect();
    Status::not_found(format!(
        "projection not found: {shown:?}; expected one of {known}"
    ))
}

/// A position that no event can have.
pub(super) fn invalid_position() -> Status {
    Status::unknown("Unexpected FilteredReadAllResult: InvalidPosition")
}

/// A request without a required field.
pub(super) fn missing(what: &str) -> Status {
    Status::invalid_argument(format!("{what} is missing"))
}

pub(super) fn invalid(error: &ModelError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// There is no memory for the request now; nothing was written.
pub(super) fn too_busy(why: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Server Is Too Busy: {why}"))
}

/// A call of unknown outcome.
pub(super) fn unfinished(unfinished: OutcomeUnknown) -> Status {
    match unfinished {
        OutcomeUnknown::TimedOut => Status::aborted(format!("Operation timed out: {unfinished}")),
        OutcomeUnknown::Panicked => unfinished.into(),
    }
}

pub(super) fn stopping() -> Status {
    Status::unavailable("Server Is Not Ready: it is stopping")
}

/// The caller's rights do not allow the request.
pub(crate) fn access_denied(reason: &str) -> Status {
    status(
        Code::PermissionDenied,
        format!("Access Denied: {reason}"),
        &[("exception", "access-denied")],
    )
}

pub(super) fn of_read(error: ReadError) -> Status {
    match error {
        ReadError::StreamDeleted { stream } => stream_deleted(&stream),
        ReadError::Invalid { reason } => Status::invalid_argument(reason),
        ReadError::AccessDenied { reason } => access_denied(&reason),
        ReadError::Corrupt { cause } => {
            tracing::error!(
                error = &*cause as &dyn std::error::Error,
                "stored data is damaged"
            );
            Status::data_loss(format!("stored data is damaged: {cause}"))
        }
        error => Status::unavailable(format!("Server Is Not Ready: {error}")),
    }
}

/// Returns the status of an append error other than a conflict, which each method reports itself.
pub(super) fn of_append(error: &AppendError) -> Status {
    match error {
        AppendError::Invalid { reason } => Status::invalid_argument(reason.clone()),
        AppendError::AccessDenied { reason } => access_denied(reason),
        AppendError::OutcomeUnknown { .. } => Status::aborted(format!(
            "Operation timed out: {error}; the same events can be appended again"
        )),
        AppendError::Conflict(conflict) => Status::failed_precondition(conflict.to_string()),
        error => Status::unavailable(format!("Server Is Not Ready: {error}")),
    }
}

/// A failure of one group, with the trailers by which clients tell it.
fn of_one_group(code: Code, message: String, exception: &str, id: &GroupId) -> Status {
    let source = id.source.to_string();
    let trailers = [
        ("exception", exception),
        ("stream-name", &*source),
        ("group-name", id.name.as_str()),
    ];
    status(code, message, &trailers)
}

/// A group, or a source without groups, that is not there.
pub(super) fn group_not_found(source: &GroupSource, name: &str) -> Status {
    let source = source.to_string();
    status(
        Code::NotFound,
        format!("Subscription group {name} on stream {source} does not exist."),
        &[
            ("exception", "persistent-subscription-does-not-exist"),
            ("stream-name", &source),
            ("group-name", name),
        ],
    )
}

/// A group that cannot be as it was asked for.
pub(super) fn group_failed(id: &GroupId, error: &GroupError) -> Status {
    let (source, reason) = (id.source.to_string(), error.to_string());
    status(
        Code::Internal,
        format!(
            "Subscription group {} on stream {source} failed: '{reason}'",
            id.name.as_str()
        ),
        &[
            ("exception", "persistent-subscription-failed"),
            ("stream-name", &source),
            ("group-name", id.name.as_str()),
            ("reason", &reason),
        ],
    )
}

/// Another server has to be asked.
pub(super) fn not_leader(owner: &str) -> Status {
    let (host, port) = owner.rsplit_once(':').unwrap_or((owner, ""));
    status(
        Code::NotFound,
        "Leader info available".to_owned(),
        &[
            ("exception", "not-leader"),
            ("leader-endpoint-host", host),
            ("leader-endpoint-port", port),
        ],
    )
}

pub(super) fn of_group(error: GroupError) -> Status {
    match error {
        GroupError::Exists(id) => {
            let (name, source) = (id.name.as_str(), &id.source);
            let message = format!("Subscription group {name} on stream {source} exists.");
            let exception = "persistent-subscription-exists";
            of_one_group(Code::AlreadyExists, message, exception, &id)
        }
        GroupError::NotFound(id) => group_not_found(&id.source, id.name.as_str()),
        GroupError::SubscribersMax { group, max } => of_one_group(
            Code::FailedPrecondition,
            format!("Maximum subscriptions reached for {group}: {max}"),
            "maximum-subscribers-reached",
            &group,
        ),
        GroupError::Dropped { group, reason } => of_one_group(
            Code::Cancelled,
            format!("Subscription group {group} was dropped: {reason}"),
            "persistent-subscription-dropped",
            &group,
        ),
        GroupError::OwnedElsewhere { owner, .. } => not_leader(&owner),
        GroupError::Filter(error) => of_filter(error),
        GroupError::Stopping => stopping(),
        GroupError::Read(error) => of_read(error),
        GroupError::Append(error) => of_append(&error),
        GroupError::Model(error) => invalid(&error),
        error @ GroupError::Invalid(_) => Status::invalid_argument(error.to_string()),
        error @ GroupError::OwnerIndistinct { .. } => {
            Status::failed_precondition(error.to_string())
        }
        error @ GroupError::Damaged { .. } => Status::data_loss(error.to_string()),
        GroupError::Consumers(error @ ConsumerError::Unsupported { .. }) => {
            Status::unimplemented(error.to_string())
        }
        GroupError::Consumers(error) => {
            Status::unavailable(format!("Server Is Not Ready: {error}"))
        }
    }
}
