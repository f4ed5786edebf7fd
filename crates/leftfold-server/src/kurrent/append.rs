//! Appending to one stream, in one call.
//!
//! **Owns:** `Append`: gathering its events, its answers; and what expectations look like. **Does not know:** batches.
//! **Invariants:** a call that ends before its last event appends nothing; a wrong expectation is an answer, not an error.

use leftfold_model::{
    Append, Appended, Conflict, CurrentRevision, ExpectedRevision, NewEvent, Position, Revision,
    StreamName, limits,
};
use leftfold_proto::event_store::client::{
    Empty,
    streams::{
        AppendReq, AppendResp,
        append_req::{Content, options::ExpectedStreamRevision as Expected},
        append_resp::{
            self, Success, WrongExpectedVersion,
            success::{CurrentRevisionOption as Current, PositionOption},
            wrong_expected_version as wrong,
        },
    },
};
use leftfold_store::{AppendError, StreamState, StreamStatus};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::{
    errors,
    event::{self, Proposed},
};
use crate::shared::Shared;

/// An append as it was asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) stream: StreamName,
    pub(super) expected: ExpectedRevision,
    pub(super) events: Vec<NewEvent>,
}

/// What came of an append.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The revision of the stream's last event, and the position of the append's.
    Done(Option<Revision>, Option<Position>),
    /// The stream is somewhere else.
    Wrong(CurrentRevision),
    /// The stream is deleted.
    Deleted,
}

impl Wanted {
    /// Appends it.
    pub(super) async fn carry_out(self, shared: &Shared) -> Result<Outcome, AppendError> {
        if self.events.is_empty() {
            return self.of_nothing(shared).await;
        }
        let append = Append::to(self.stream.clone(), self.expected, self.events);
        let append = append.map_err(|error| AppendError::Invalid {
            reason: error.to_string(),
        })?;
        match shared.store.append(append).await {
            Ok(appended) => Ok(done(&appended)),
            Err(AppendError::Conflict(Conflict::WrongRevision { actual, .. })) => {
                Ok(Outcome::Wrong(actual))
            }
            Err(AppendError::Conflict(Conflict::StreamDeleted { .. })) => Ok(Outcome::Deleted),
            Err(AppendError::Conflict(Conflict::PartlyStored { .. })) => {
                let state = shared.store.stream_state(self.stream).await;
                let last = state.map_or(None, |state| state.last);
                Ok(Outcome::Wrong(CurrentRevision(last)))
            }
            Err(error) => Err(error),
        }
    }

    /// An append without events only looks at the stream.
    async fn of_nothing(self, shared: &Shared) -> Result<Outcome, AppendError> {
        let state = shared.store.stream_state(self.stream).await;
        let state = state.map_err(|error| AppendError::Unavailable {
            cause: std::sync::Arc::new(error),
        })?;
        Ok(look(&state, self.expected))
    }
}

fn look(state: &StreamState, expected: ExpectedRevision) -> Outcome {
    let gone = state.status == StreamStatus::Deleted;
    let actual = CurrentRevision(state.last);
    let seen = CurrentRevision(state.last.filter(|_| !gone));
    if state.status == StreamStatus::Tombstoned {
        Outcome::Deleted
    } else if expected.allows(actual) || expected.allows(seen) {
        Outcome::Done(seen.0, None)
    } else {
        Outcome::Wrong(actual)
    }
}

fn done(appended: &Appended) -> Outcome {
    let revision = appended.streams.first().map(|&(_, revision)| revision);
    Outcome::Done(revision, Some(appended.last))
}

/// `Append`.
pub(super) async fn append(
    shared: &Shared,
    requests: Streaming<AppendReq>,
) -> Result<AppendResp, Status> {
    let bound = shared.settings.call_timeout;
    let wanted = timeout(bound, gather(requests)).await.map_err(|_| {
        Status::deadline_exceeded(format!("the events did not come within {bound:?}"))
    })??;
    let (stream, expected) = (wanted.stream.clone(), wanted.expected);
    let result = match wanted.carry_out(shared).await {
        Ok(Outcome::Done(revision, position)) => {
            append_resp::Result::Success(success(revision, position))
        }
        Ok(Outcome::Wrong(actual)) => {
            append_resp::Result::WrongExpectedVersion(wrong_version(expected, actual))
        }
        Ok(Outcome::Deleted) => return Err(errors::stream_deleted(&stream)),
        Err(error) => return Err(errors::of_append(&error)),
    };
    Ok(AppendResp {
        result: Some(result),
    })
}

/// Takes the requests of one call together.
async fn gather(mut requests: Streaming<AppendReq>) -> Result<Wanted, Status> {
    let first = requests
        .message()
        .await?
        .and_then(|request| request.content);
    let Some(Content::Options(options)) = first else {
        return Err(Status::invalid_argument(
            "the first message has to hold the options",
        ));
    };
    let stream = event::stream(options.stream_identifier)?;
    let expected = match options.expected_stream_revision {
        Some(Expected::Revision(revision)) => ExpectedRevision::Exact(Revision::new(revision)),
        Some(Expected::NoStream(_)) => ExpectedRevision::NoStream,
        Some(Expected::StreamExists(_)) => ExpectedRevision::StreamExists,
        Some(Expected::Any(_)) => ExpectedRevision::Any,
        None => return Err(errors::missing("expected_stream_revision")),
    };
    let (mut events, mut size) = (Vec::new(), 0);
    while let Some(request) = requests.message().await? {
        let Some(Content::ProposedMessage(message)) = request.content else {
            return Err(Status::invalid_argument(
                "only the first message may hold options",
            ));
        };
        let proposed = Proposed {
            id: message.id,
            metadata: message.metadata,
            custom_metadata: message.custom_metadata,
            data: message.data,
        };
        size += proposed.size();
        if size > limits::APPEND_BYTES_MAX {
            return Err(errors::append_too_large(limits::APPEND_BYTES_MAX));
        }
        events.push(proposed.into_event()?);
    }
    Ok(Wanted {
        stream,
        expected,
        events,
    })
}

fn success(revision: Option<Revision>, position: Option<Position>) -> Success {
    let current = match revision {
        Some(revision) => Current::CurrentRevision(revision.get()),
        None => Current::NoStream(Empty {}),
    };
    let position = match position {
        Some(position) => PositionOption::Position(append_resp::Position {
            commit_position: position.get(),
            prepare_position: position.get(),
        }),
        None => PositionOption::NoPosition(Empty {}),
    };
    Success {
        current_revision_option: Some(current),
        position_option: Some(position),
    }
}

/// The answer in both of its forms: old clients read the one, newer ones the other.
fn wrong_version(expected: ExpectedRevision, actual: CurrentRevision) -> WrongExpectedVersion {
    use wrong::{
        CurrentRevisionOption as New, CurrentRevisionOption2060 as Old,
        ExpectedRevisionOption as NewExpected, ExpectedRevisionOption2060 as OldExpected,
    };
    let (old, new) = match actual.0 {
        Some(at) => (
            Old::CurrentRevision2060(at.get()),
            New::CurrentRevision(at.get()),
        ),
        None => (Old::NoStream2060(Empty {}), New::CurrentNoStream(Empty {})),
    };
    let (old_expected, new_expected) = match expected {
        ExpectedRevision::Any => (
            Some(OldExpected::Any2060(Empty {})),
            NewExpected::ExpectedAny(Empty {}),
        ),
        ExpectedRevision::StreamExists => (
            Some(OldExpected::StreamExists2060(Empty {})),
            NewExpected::ExpectedStreamExists(Empty {}),
        ),
        // The old form has no word for it; clients take its absence so.
        ExpectedRevision::NoStream => (None, NewExpected::ExpectedNoStream(Empty {})),
        ExpectedRevision::Exact(at) => (
            Some(OldExpected::ExpectedRevision2060(at.get())),
            NewExpected::ExpectedRevision(at.get()),
        ),
    };
    WrongExpectedVersion {
        current_revision_option_20_6_0: Some(old),
        expected_revision_option_20_6_0: old_expected,
        current_revision_option: Some(new),
        expected_revision_option: Some(new_expected),
    }
}
