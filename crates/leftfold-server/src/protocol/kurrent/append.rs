//! Appending to one stream, in one call.
//!
//! **Owns:** `Append`: collecting its events, its responses; decoding expected revisions. **Does not know:** batches.
//! **Invariants:** a call that ends before its last event appends nothing; a wrong expected revision is a response, not an
//! error.

use std::sync::Arc;

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
use leftfold_store::{AppendError, EventStore, ReadError, StreamStatus};
use tokio::time::timeout_at;
use tonic::{Request, Status, Streaming};

use super::{
    event::{self, Proposed},
    status, stream_ids,
    tombstoned_metadata::TombstoneRevisions,
};
use crate::{
    call,
    connection::{BudgetExhausted, Reservation},
    protocol::decoded_append,
    state::ServerState,
};

/// A requested append.
#[derive(Debug)]
pub(super) struct AppendBuffer {
    pub(super) stream: StreamName,
    pub(super) expected: ExpectedRevision,
    pub(super) events: Vec<NewEvent>,
    /// Bytes of the events.
    size: usize,
    /// The memory they take.
    held: Reservation,
}

/// Why an event cannot be added to an append.
#[derive(Debug)]
pub(super) enum RejectedEvent {
    /// The event is invalid.
    Event(Status),
    /// With it the append has too many bytes or events.
    Append(Status),
    /// There is no memory for it now.
    Crowded(BudgetExhausted),
}

/// The outcome of an append.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The revision of the stream's last event, and the position of the append's.
    Done(Option<Revision>, Option<Position>),
    /// The stream has another revision.
    Wrong(CurrentRevision),
    /// The stream is deleted.
    Deleted,
}

impl AppendBuffer {
    pub(super) fn new(
        shared: &ServerState,
        stream: StreamName,
        expected: ExpectedRevision,
    ) -> Self {
        Self {
            stream,
            expected,
            events: Vec::new(),
            size: 0,
            held: call::reservation(shared),
        }
    }

    /// Adds an event. An error is returned before more is held.
    pub(super) fn add(&mut self, proposed: Proposed) -> Result<(), RejectedEvent> {
        let size = proposed.size();
        self.size = self.size.saturating_add(size);
        if self.size > limits::APPEND_BYTES_MAX {
            let max = limits::APPEND_BYTES_MAX;
            return Err(RejectedEvent::Append(status::append_too_large(max)));
        }
        if self.events.len() >= limits::APPEND_EVENTS_MAX {
            let max = limits::APPEND_EVENTS_MAX;
            let text = format!("append has more than {max} events (APPEND_EVENTS_MAX)");
            return Err(RejectedEvent::Append(Status::invalid_argument(text)));
        }
        self.held.grow(size).map_err(RejectedEvent::Crowded)?;
        let event = proposed.into_event().map_err(RejectedEvent::Event)?;
        let beside = decoded_append::event_memory(&event);
        self.held.grow(beside).map_err(RejectedEvent::Crowded)?;
        self.events.push(event);
        Ok(())
    }

    /// Returns the bytes of its events.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Appends it.
    pub(super) async fn execute(self, shared: &ServerState) -> Result<Outcome, AppendError> {
        // That of the caller's principal, for all of it: the rest may run without the request at hand.
        let store = shared.store();
        if self.events.is_empty() {
            return self.of_nothing(&store).await;
        }
        // Rare, and in memory of its own, so that every other append needs less.
        let tombstones = match self.stream.described_stream() {
            Some(_) => {
                let looked_up = TombstoneRevisions::of(&*store, &self.stream);
                Box::pin(looked_up).await.map_err(unavailable)?
            }
            None => None,
        };
        let expected = match &tombstones {
            Some(tombstones) => tombstones.expected(self.expected),
            None => self.expected,
        };
        let append = Append::to(self.stream.clone(), expected, self.events);
        let append = append.map_err(|error| AppendError::Invalid {
            reason: error.to_string(),
        })?;
        match stream_ids::append(&*store, append).await {
            Ok(appended) => Ok(done(&appended, tombstones.as_ref())),
            Err(AppendError::Conflict(Conflict::WrongRevision { actual, .. })) => {
                Ok(Outcome::Wrong(match tombstones {
                    Some(tombstones) => tombstones.current(),
                    None => actual,
                }))
            }
            Err(AppendError::Conflict(Conflict::StreamDeleted { .. })) => Ok(Outcome::Deleted),
            Err(AppendError::Conflict(Conflict::PartlyStored { .. })) => {
                let state = store.stream_state(self.stream).await;
                let last = state.map_or(None, |state| state.last);
                Ok(Outcome::Wrong(CurrentRevision(last)))
            }
            Err(error) => Err(error),
        }
    }

    /// An append without events only looks at the stream.
    async fn of_nothing(self, store: &Arc<dyn EventStore>) -> Result<Outcome, AppendError> {
        let state = store.stream_state(self.stream.clone()).await;
        let state = state.map_err(unavailable)?;
        let actual = CurrentRevision(state.last);
        let deleted = state.status == StreamStatus::Deleted;
        let exists = self.expected == ExpectedRevision::StreamExists;
        let seen = CurrentRevision(state.last.filter(|_| !deleted));
        if state.status == StreamStatus::Tombstoned || exists && deleted {
            return Ok(Outcome::Deleted);
        }
        if self.expected.allows(actual) || self.expected.allows(seen) {
            return Ok(Outcome::Done(seen.0, None));
        }
        // A stream that has only metadata exists, too.
        if let (true, Some(metadata_stream)) = (exists, self.stream.metadata_stream()) {
            let described = store.stream_state(metadata_stream).await;
            if described.map_err(unavailable)?.last.is_some() {
                return Ok(Outcome::Done(None, None));
            }
        }
        Ok(Outcome::Wrong(actual))
    }
}

fn unavailable(error: ReadError) -> AppendError {
    AppendError::Unavailable {
        cause: Arc::new(error),
    }
}

fn done(appended: &Appended, tombstones: Option<&TombstoneRevisions>) -> Outcome {
    let revision = appended.streams.first().map(|&(_, revision)| revision);
    let revision = revision.map(|revision| match tombstones {
        Some(tombstones) => tombstones.counted(revision),
        None => revision,
    });
    Outcome::Done(revision, Some(appended.last))
}

/// `Append`.
pub(super) async fn append(
    shared: &Arc<ServerState>,
    request: Request<Streaming<AppendReq>>,
) -> Result<AppendResp, Status> {
    let deadline = call::deadline(shared);
    let gathered = timeout_at(deadline, gather(shared, request.into_inner())).await;
    let wanted = gathered.map_err(|_| {
        Status::deadline_exceeded("the events did not come in time, nothing was written")
    })??;
    let (stream, expected) = (wanted.stream.clone(), wanted.expected);
    let work = {
        let shared = Arc::clone(shared);
        async move { wanted.execute(&shared).await }
    };
    let finished = call::run_to_completion(shared, deadline, work).await;
    let result = match finished.map_err(status::unfinished)? {
        Ok(Outcome::Done(revision, position)) => {
            append_resp::Result::Success(success(revision, position))
        }
        Ok(Outcome::Wrong(actual)) => {
            append_resp::Result::WrongExpectedVersion(wrong_version(expected, actual))
        }
        Ok(Outcome::Deleted) => return Err(status::stream_deleted(&stream)),
        Err(error) => return Err(status::of_append(&error)),
    };
    Ok(AppendResp {
        result: Some(result),
    })
}

/// Collects the requests of one call.
async fn gather(
    shared: &ServerState,
    mut requests: Streaming<AppendReq>,
) -> Result<AppendBuffer, Status> {
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
        None => return Err(status::missing("expected_stream_revision")),
    };
    let mut wanted = AppendBuffer::new(shared, stream, expected);
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
        wanted.add(proposed.owned()).map_err(|unfit| match unfit {
            RejectedEvent::Event(status) | RejectedEvent::Append(status) => status,
            RejectedEvent::Crowded(full) => status::too_busy(full),
        })?;
    }
    Ok(wanted)
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

/// Returns the response in both of its forms: old clients read one, newer ones the other.
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
