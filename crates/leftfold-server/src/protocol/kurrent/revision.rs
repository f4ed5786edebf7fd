//! Revisions, states and positions as the signed numbers of these clients.
//!
//! **Owns:** the numbers that stand for something other than a revision. **Does not know:** statuses, messages.

use leftfold_model::{CurrentRevision, ExpectedRevision, Position, Revision};

/// "No stream".
pub(super) const NO_STREAM: i64 = -1;
/// "Any".
pub(super) const ANY: i64 = -2;
/// "The stream exists".
pub(super) const EXISTS: i64 = -4;
/// A deleted stream, as the expectation of a check. Clients cannot read it as an actual state.
pub(super) const DELETED: i64 = -5;
/// A tombstoned stream, as the expectation of a check. Clients cannot read it as an actual state.
pub(super) const TOMBSTONED: i64 = -6;
/// The revision of the event that ends a tombstoned stream.
pub(super) const TOMBSTONE_REVISION: i64 = i64::MAX;

/// Returns the number of an expectation.
pub(super) fn of_expected(expected: ExpectedRevision) -> i64 {
    match expected {
        ExpectedRevision::Any => ANY,
        ExpectedRevision::NoStream => NO_STREAM,
        ExpectedRevision::StreamExists => EXISTS,
        ExpectedRevision::Exact(revision) => of_revision(revision),
    }
}

/// Returns the number of a stream's last revision.
pub(super) fn of_current(current: CurrentRevision) -> i64 {
    current.0.map_or(NO_STREAM, of_revision)
}

/// Returns the number of a revision.
pub(super) fn of_revision(revision: Revision) -> i64 {
    i64::try_from(revision.get()).unwrap_or(i64::MAX)
}

/// Returns the number of a position.
pub(super) fn of_position(position: Position) -> i64 {
    i64::try_from(position.get()).unwrap_or(i64::MAX)
}
