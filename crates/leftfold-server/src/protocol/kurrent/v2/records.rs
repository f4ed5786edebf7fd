//! `AppendRecords`: records of several streams in the given order, under checks of any streams.
//!
//! **Owns:** [`Records`]: from the request to the response. **Does not know:** what a check requires.
//! **Invariants:** records keep their order also between streams; a repeated request gets the response of the first, although
//! its checks may no longer hold because of that one.

use std::sync::Arc;

use leftfold_model::{
    Append, Appended, Conflict, ExpectedRevision, StreamCheck, StreamName, StreamWrite,
};
use leftfold_proto::kurrentdb::protocol::v2::streams::{
    AppendRecordsRequest, AppendRecordsResponse, StreamRevision,
};
use leftfold_store::{AppendError, EventStore};
use tonic::Status;

use super::{
    super::{revision, stream_ids, tombstoned_metadata::MetadataRevisions},
    checks::{CheckEvaluation, ConsistencyChecks},
    record,
    session::{bound_bytes, bound_events},
    status,
};

/// Maximum evaluations of the checks of one append while its streams change.
const ATTEMPTS: u32 = 64;

/// The records of a request.
#[derive(Debug)]
pub(super) struct Records {
    append: Append,
    checks: ConsistencyChecks,
    /// Whether the client gave all ids, so that a repetition is recognisable.
    has_ids: bool,
}

impl Records {
    pub(super) fn from_proto(request: AppendRecordsRequest) -> Result<Self, Status> {
        let checks = ConsistencyChecks::from_proto(request.checks)?;
        let (mut events, mut bytes, mut has_ids) = (0, 0, true);
        bound_events(&mut events, request.records.len())?;
        let mut writes: Vec<StreamWrite> = Vec::new();
        for mut record in request.records {
            has_ids &= record.record_id.as_ref().is_some_and(|id| !id.is_empty());
            let stream = record::stream(std::mem::take(&mut record.stream))?;
            let event = record::event(record, &stream)?;
            bound_bytes(&mut bytes, &event, &stream)?;
            match writes.last_mut().filter(|write| write.stream == stream) {
                Some(write) => write.events.push(event),
                None => writes.push(StreamWrite {
                    stream,
                    expected: ExpectedRevision::Any,
                    events: vec![event],
                }),
            }
        }
        stream_ids::separate(&mut writes);
        let append = Append::new(writes, Vec::new());
        Ok(Self {
            append: append.map_err(|error| status::of_model(&error))?,
            checks,
            has_ids,
        })
    }

    /// Appends them, if the checks hold.
    pub(super) async fn execute(
        self,
        store: Arc<dyn EventStore>,
    ) -> Result<AppendRecordsResponse, Status> {
        for _ in 0..ATTEMPTS {
            let seen = self.checks.evaluate(&*store).await;
            let seen = seen.map_err(|error| status::of_read(&error))?;
            if !seen.violations.is_empty() {
                return self.repeated(&*store, &seen).await;
            }
            let append = self.under(seen.held.clone())?;
            match stream_ids::append(&*store, append).await {
                Ok(appended) => return self.counted(&*store, appended).await,
                Err(AppendError::Conflict(conflict)) if seen.is_outdated(&conflict) => {}
                Err(AppendError::Conflict(Conflict::StreamDeleted { .. })) => {
                    return Err(self.violated(&*store, &seen).await);
                }
                Err(error) => {
                    return Err(status::of_append(&*store, self.append.writes(), error).await);
                }
            }
        }
        Err(Status::unavailable(
            "the streams that are checked change too often, nothing was written",
        ))
    }

    fn under(&self, checks: Vec<StreamCheck>) -> Result<Append, Status> {
        let append = self.append.clone().with_checks(checks);
        append.map_err(|error| status::of_model(&error))
    }

    /// Returns the first response if the checks fail because these records are stored already.
    async fn repeated(
        &self,
        store: &dyn EventStore,
        seen: &CheckEvaluation,
    ) -> Result<AppendRecordsResponse, Status> {
        if let Some(never) = seen.unsatisfiable().filter(|_| self.has_ids)
            && let Ok(appended) = stream_ids::append(store, self.under(vec![never])?).await
        {
            return self.counted(store, appended).await;
        }
        Err(self.violated(store, seen).await)
    }

    /// Returns the response with the revisions that clients count.
    async fn counted(
        &self,
        store: &dyn EventStore,
        mut appended: Appended,
    ) -> Result<AppendRecordsResponse, Status> {
        // The append succeeded, so a failed lookup is no error: the response then has the revisions of the store.
        if let Ok(counts) = MetadataRevisions::of(store, self.append.writes()).await {
            counts.convert_appended(&mut appended);
        }
        Ok(answer(&appended))
    }

    /// Returns the violations, including those of tombstoned streams that are written.
    async fn violated(&self, store: &dyn EventStore, seen: &CheckEvaluation) -> Status {
        match self
            .checks
            .violations(store, self.append.writes(), seen)
            .await
        {
            Ok(violations) => status::violated(violations),
            Err(error) => status::of_read(&error),
        }
    }
}

/// Returns the revision of each stream once.
fn answer(appended: &Appended) -> AppendRecordsResponse {
    let mut revisions: Vec<StreamRevision> = Vec::new();
    let known = |revisions: &[StreamRevision], stream: &StreamName| {
        revisions
            .iter()
            .position(|known| known.stream == stream.as_str())
    };
    for (stream, last) in &appended.streams {
        let revision = revision::of_revision(*last);
        match known(&revisions, stream).and_then(|index| revisions.get_mut(index)) {
            Some(known) => known.revision = revision,
            None => revisions.push(StreamRevision {
                stream: stream.to_string(),
                revision,
            }),
        }
    }
    AppendRecordsResponse {
        revisions,
        position: revision::of_position(appended.last),
    }
}
