//! The second protocol: appends to several streams at once, with checks on others.
//!
//! **Owns:** `AppendSession` and `AppendRecords`: gathering records, and their answers. **Does not know:** the first protocol's
//! requests.
//! **Invariants:** a call is one append: all of it happens or nothing.

mod errors;
mod record;

use std::{collections::HashSet, sync::Arc};

use leftfold_model::{
    Append, Appended, Conflict, ExpectedRevision, Revision, StreamCheck, StreamName, StreamWrite,
    limits,
};
use leftfold_proto::kurrentdb::protocol::v2::streams::{
    AppendRecord, AppendRecordsRequest, AppendRecordsResponse, AppendRequest, AppendResponse,
    AppendSessionResponse, ConsistencyCheck, StreamRevision, consistency_check::Type,
    streams_service_server,
};
use leftfold_store::{AppendError, StreamState, StreamStatus};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, async_trait};

use self::errors::{DELETED, Violation};
use crate::shared::Shared;

/// The service.
#[derive(Debug)]
pub(super) struct StreamsService(pub(super) Arc<Shared>);

#[async_trait]
impl streams_service_server::StreamsService for StreamsService {
    async fn append_session(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<AppendSessionResponse>, Status> {
        let bound = self.0.settings.call_timeout;
        let writes = timeout(bound, gather(request.into_inner())).await;
        let writes = writes.map_err(|_| errors::too_slow(bound))??;
        let append = Append::new(writes, Vec::new()).map_err(|error| errors::invalid(&error))?;
        let appended = self.append(append).await;
        let appended = appended.map_err(|error| errors::of_session(&error))?;
        let position = signed(appended.last.get());
        let output = appended
            .streams
            .iter()
            .map(|(stream, revision)| AppendResponse {
                stream: stream.to_string(),
                stream_revision: signed(revision.get()),
                position: Some(position),
            });
        Ok(Response::new(AppendSessionResponse {
            output: output.collect(),
            position,
        }))
    }

    async fn append_records(
        &self,
        request: Request<AppendRecordsRequest>,
    ) -> Result<Response<AppendRecordsResponse>, Status> {
        let AppendRecordsRequest { records, checks } = request.into_inner();
        let checks = checks
            .into_iter()
            .map(check)
            .collect::<Result<Vec<_>, _>>()?;
        let append = all_of(records, &checks)?;
        let appended = match self.append(append).await {
            Ok(appended) => appended,
            Err(AppendError::Conflict(conflict)) => {
                return Err(self.violations(&checks, &conflict).await);
            }
            Err(error) => return Err(errors::of_session(&error)),
        };
        Ok(Response::new(AppendRecordsResponse {
            revisions: newest(&appended),
            position: signed(appended.last.get()),
        }))
    }
}

impl StreamsService {
    async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let bound = self.0.settings.call_timeout;
        match timeout(bound, self.0.store.append(append)).await {
            Ok(outcome) => outcome,
            Err(late) => Err(AppendError::OutcomeUnknown {
                cause: Arc::new(late),
            }),
        }
    }

    /// Which checks do not hold: the store tells of the first that failed, clients want to know all.
    async fn violations(&self, checks: &[StreamCheck], conflict: &Conflict) -> Status {
        let mut violations = Vec::new();
        for (index, check) in checks.iter().enumerate() {
            let Ok(state) = self.0.store.stream_state(check.stream.clone()).await else {
                continue;
            };
            if !holds(&state, check.expected) {
                violations.push(Violation {
                    index,
                    stream: check.stream.clone(),
                    expected: errors::expected(check.expected),
                    actual: errors::actual(&state),
                });
            }
        }
        if violations.is_empty() {
            return errors::of_conflict(conflict);
        }
        errors::violations(violations)
    }
}

fn holds(state: &StreamState, expected: ExpectedRevision) -> bool {
    let last = leftfold_model::CurrentRevision(state.last);
    match state.status {
        StreamStatus::Tombstoned => false,
        StreamStatus::Deleted => {
            !matches!(expected, ExpectedRevision::StreamExists) && expected.allows(last)
        }
        StreamStatus::Absent | StreamStatus::Present => expected.allows(last),
    }
}

/// The writes of a session, one for each request.
async fn gather(mut requests: Streaming<AppendRequest>) -> Result<Vec<StreamWrite>, Status> {
    let (mut writes, mut met, mut size) = (Vec::new(), HashSet::new(), 0);
    while let Some(request) = requests.message().await? {
        let stream = errors::stream(&request.stream)?;
        if !met.insert(stream.clone()) {
            return Err(errors::already_in_session(&stream));
        }
        let expected = match request.expected_revision {
            Some(number) => errors::expectation(number)?,
            None => ExpectedRevision::Any,
        };
        let mut events = Vec::with_capacity(request.records.len());
        for record in request.records {
            size += record.data.len();
            if size > limits::APPEND_BYTES_MAX {
                return Err(errors::append_too_large(size));
            }
            events.push(record::event(record, &stream)?);
        }
        writes.push(StreamWrite {
            stream,
            expected,
            events,
        });
    }
    Ok(writes)
}

/// All records in their order, and the checks: of streams that are written as what is expected of them first.
fn all_of(records: Vec<AppendRecord>, checks: &[StreamCheck]) -> Result<Append, Status> {
    let size = records.iter().map(|record| record.data.len()).sum();
    if size > limits::APPEND_BYTES_MAX {
        return Err(errors::append_too_large(size));
    }
    let mut writes: Vec<StreamWrite> = Vec::new();
    let mut written = HashSet::new();
    for record in records {
        let stream = errors::stream(&record.stream)?;
        let event = record::event(record, &stream)?;
        match writes.last_mut() {
            Some(write) if write.stream == stream => write.events.push(event),
            _ => {
                let checked = checks.iter().find(|check| check.stream == stream);
                let expected = match checked {
                    Some(check) if written.insert(stream.clone()) => check.expected,
                    _ => ExpectedRevision::Any,
                };
                writes.push(StreamWrite {
                    stream,
                    expected,
                    events: vec![event],
                });
            }
        }
    }
    let others = checks
        .iter()
        .filter(|check| !written.contains(&check.stream));
    let append = Append::new(writes, Vec::new());
    append
        .and_then(|append| append.with_checks(others.cloned()))
        .map_err(|error| errors::invalid(&error))
}

fn check(check: ConsistencyCheck) -> Result<StreamCheck, Status> {
    let Some(Type::StreamState(state)) = check.r#type else {
        return Err(Status::invalid_argument(
            "a check has to be about the state of a stream",
        ));
    };
    if state.expected_state <= DELETED {
        return Err(Status::invalid_argument(format!(
            "expected_state {} cannot be checked: allowed are revisions, -1 (no stream), -2 (any) and -4 (exists)",
            state.expected_state
        )));
    }
    Ok(StreamCheck {
        stream: errors::stream(&state.stream)?,
        expected: errors::expectation(state.expected_state)?,
    })
}

/// The newest revision of each stream, in the order of their first records.
fn newest(appended: &Appended) -> Vec<StreamRevision> {
    let mut all: Vec<(&StreamName, Revision)> = Vec::new();
    for (stream, revision) in &appended.streams {
        match all.iter_mut().find(|(known, _)| *known == stream) {
            Some(entry) => entry.1 = *revision,
            None => all.push((stream, *revision)),
        }
    }
    let shown = |(stream, revision): (&StreamName, Revision)| StreamRevision {
        stream: stream.to_string(),
        revision: signed(revision.get()),
    };
    all.into_iter().map(shown).collect()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
