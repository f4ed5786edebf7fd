//! Consistency checks: what must hold for streams, written or not.
//!
//! **Owns:** [`ConsistencyChecks`]: the meaning of the numbers, which checks fail, and how an append keeps those that hold.
//! **Does not know:** what is appended.
//! **Invariants:** the response lists every failed check, not only the first; a check that held still holds when the append
//! commits, or all checks are evaluated again.

use std::collections::{BTreeMap, BTreeSet};

use leftfold_model::{
    Conflict, CurrentRevision, ExpectedRevision, Revision, StreamCheck, StreamName, StreamWrite,
};
use leftfold_proto::kurrentdb::protocol::v2::streams::{
    ConsistencyCheck, consistency_check,
    errors::{
        ConsistencyViolation, consistency_violation, consistency_violation::StreamStateViolation,
    },
};
use leftfold_store::{EventStore, ReadError, StreamState, StreamStatus};
use tonic::Status;

use super::{
    super::{revision, tombstoned_metadata::MetadataRevisions},
    record,
};

/// Maximum checks of one append, each of which is a lookup.
const CHECKS_MAX: usize = 1_000;

/// The index of a violation without a check.
const NO_CHECK: i32 = -1;

/// The checks of one append.
#[derive(Debug)]
pub(super) struct ConsistencyChecks(Vec<Check>);

#[derive(Debug)]
struct Check {
    stream: StreamName,
    wanted: ExpectedState,
    /// The number that the client sent.
    number: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpectedState {
    Any,
    Absent,
    Present,
    Deleted,
    Tombstoned,
    At(Revision),
}

/// The result of evaluating the checks.
#[derive(Debug, Default)]
pub(super) struct CheckEvaluation {
    /// The failed checks.
    pub(super) violations: Vec<ConsistencyViolation>,
    /// What must still hold when the append is decided.
    pub(super) held: Vec<StreamCheck>,
}

impl CheckEvaluation {
    /// Returns whether an append was rejected because a stream changed since the evaluation.
    pub(super) fn is_outdated(&self, conflict: &Conflict) -> bool {
        let Conflict::WrongRevision {
            stream, expected, ..
        } = conflict
        else {
            return false;
        };
        let same = |check: &StreamCheck| check.stream == *stream && check.expected == *expected;
        self.held.iter().any(same)
    }

    /// Returns a check that always fails, so that an append under it succeeds only as a repetition.
    pub(super) fn unsatisfiable(&self) -> Option<StreamCheck> {
        let violation = self.violations.first()?;
        let Some(consistency_violation::Type::StreamState(state)) = &violation.r#type else {
            return None;
        };
        let stream = StreamName::new(state.stream.clone()).ok()?;
        let expected = ExpectedRevision::Exact(Revision::MAX);
        Some(StreamCheck { stream, expected })
    }
}

impl ConsistencyChecks {
    pub(super) fn from_proto(checks: Vec<ConsistencyCheck>) -> Result<Self, Status> {
        if checks.len() > CHECKS_MAX {
            return Err(Status::invalid_argument(format!(
                "the append has {} checks; allowed are {CHECKS_MAX}",
                checks.len()
            )));
        }
        let checks = checks.into_iter().enumerate().map(|(index, check)| {
            let Some(consistency_check::Type::StreamState(check)) = check.r#type else {
                return Err(Status::invalid_argument(format!(
                    "check {index} is of no kind that is known"
                )));
            };
            let number = check.expected_state;
            let stream = record::stream(check.stream)?;
            let wanted = wanted(number).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "check {index} of stream {stream} expects state {number}, which is neither a revision \
                     nor one of -1, -2, -4, -5, -6"
                ))
            })?;
            Ok(Check {
                stream,
                wanted,
                number,
            })
        });
        checks.collect::<Result<_, _>>().map(Self)
    }

    /// Evaluates the checks.
    pub(super) async fn evaluate(
        &self,
        store: &dyn EventStore,
    ) -> Result<CheckEvaluation, ReadError> {
        let (mut states, mut counts) = (BTreeMap::new(), MetadataRevisions::default());
        for check in self
            .0
            .iter()
            .filter(|check| check.wanted != ExpectedState::Any)
        {
            if !states.contains_key(&check.stream) {
                let state = store.stream_state(check.stream.clone()).await?;
                states.insert(check.stream.clone(), state);
                counts.add(store, &check.stream).await?;
            }
        }
        let mut seen = CheckEvaluation::default();
        for (index, check) in self.0.iter().enumerate() {
            let Some(state) = states.get(&check.stream) else {
                continue;
            };
            let mut shown = state.clone();
            if let Some(counted) = counts.current(&check.stream) {
                // It can still be set. A tombstone alone is nothing that clients count.
                shown.status = match counted.0 {
                    Some(_) => StreamStatus::Present,
                    None => StreamStatus::Absent,
                };
                (shown.last, shown.metadata_revision) = (counted.0, None);
            }
            if check.holds(&shown) {
                seen.held.extend(check.held(state));
            } else {
                seen.violations.push(check.violated(index, &shown));
            }
        }
        Ok(seen)
    }

    /// Returns the violations when `writes` are appended; `seen` are those of the checks alone.
    ///
    /// A write to a tombstoned stream violates all checks of that stream, or has no check that it could name.
    pub(super) async fn violations(
        &self,
        store: &dyn EventStore,
        writes: &[StreamWrite],
        seen: &CheckEvaluation,
    ) -> Result<Vec<ConsistencyViolation>, ReadError> {
        let mut violations = seen.violations.clone();
        // Metadata of a tombstoned stream can still be set.
        let streams = writes.iter().map(|write| &write.stream);
        let streams: BTreeSet<_> = streams.filter(|it| !it.is_metadata_stream()).collect();
        for stream in streams {
            let state = store.stream_state(stream.clone()).await?;
            if state.status != StreamStatus::Tombstoned {
                continue;
            }
            let checks = self.0.iter().enumerate();
            let mut of_stream = checks
                .filter(|(_, check)| check.stream == *stream)
                .peekable();
            if of_stream.peek().is_none() {
                violations.push(violation(NO_CHECK, stream, revision::ANY, &state));
            }
            violations.extend(of_stream.map(|(index, check)| check.violated(index, &state)));
        }
        violations.sort_by_key(|violation| violation.check_index);
        violations.dedup_by_key(|violation| (violation.check_index, stream_of(violation)));
        Ok(violations)
    }
}

fn wanted(number: i64) -> Option<ExpectedState> {
    match number {
        revision::ANY => Some(ExpectedState::Any),
        revision::NO_STREAM => Some(ExpectedState::Absent),
        revision::EXISTS => Some(ExpectedState::Present),
        revision::DELETED => Some(ExpectedState::Deleted),
        revision::TOMBSTONED => Some(ExpectedState::Tombstoned),
        number => Some(ExpectedState::At(Revision::new(
            u64::try_from(number).ok()?,
        ))),
    }
}

impl Check {
    /// Returns whether the check holds, by the rules of appends.
    ///
    /// A deleted stream counts as absent and still has its last revision. A stream with metadata alone counts as present.
    fn holds(&self, state: &StreamState) -> bool {
        let (status, last) = (state.status, state.last);
        match self.wanted {
            ExpectedState::Any => true,
            // Whether a tombstoned stream may be written is not a question of its checks.
            ExpectedState::Absent if status == StreamStatus::Tombstoned => true,
            ExpectedState::Tombstoned => status == StreamStatus::Tombstoned,
            _ if status == StreamStatus::Tombstoned => false,
            ExpectedState::Deleted => status == StreamStatus::Deleted,
            ExpectedState::Absent => status != StreamStatus::Present,
            ExpectedState::Present => match status {
                StreamStatus::Absent => state.metadata_revision.is_some(),
                status => status == StreamStatus::Present,
            },
            ExpectedState::At(revision) => last == Some(revision),
        }
    }

    /// Returns the checks under which the stream is unchanged.
    fn held(&self, state: &StreamState) -> Vec<StreamCheck> {
        let exactly = |last: Option<Revision>| {
            last.map_or(ExpectedRevision::NoStream, ExpectedRevision::Exact)
        };
        let itself = match (self.wanted, state.status) {
            (ExpectedState::Any, _) => return Vec::new(),
            (ExpectedState::Tombstoned, _) => ExpectedRevision::Any,
            (ExpectedState::Present, StreamStatus::Present) => ExpectedRevision::StreamExists,
            // It may get events: then it is present all the more.
            (ExpectedState::Present, _) => ExpectedRevision::Any,
            _ => exactly(state.last),
        };
        let mut held = vec![StreamCheck {
            stream: self.stream.clone(),
            expected: itself,
        }];
        held.extend(self.stream.metadata_stream().map(|stream| StreamCheck {
            stream,
            expected: exactly(state.metadata_revision),
        }));
        held
    }

    fn violated(&self, index: usize, state: &StreamState) -> ConsistencyViolation {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        violation(index, &self.stream, self.number, state)
    }
}

/// Creates a violation with the actual state, in numbers that every client knows.
fn violation(
    check_index: i32,
    stream: &StreamName,
    expected_state: i64,
    state: &StreamState,
) -> ConsistencyViolation {
    let actual_state = match state.status {
        StreamStatus::Tombstoned => revision::TOMBSTONE_REVISION,
        StreamStatus::Deleted => revision::NO_STREAM,
        StreamStatus::Absent | StreamStatus::Present => {
            revision::of_current(CurrentRevision(state.last))
        }
    };
    let violation = StreamStateViolation {
        stream: stream.to_string(),
        expected_state,
        actual_state,
    };
    ConsistencyViolation {
        check_index,
        r#type: Some(consistency_violation::Type::StreamState(violation)),
    }
}

fn stream_of(violation: &ConsistencyViolation) -> Option<String> {
    let consistency_violation::Type::StreamState(state) = violation.r#type.as_ref()?;
    Some(state.stream.clone())
}
