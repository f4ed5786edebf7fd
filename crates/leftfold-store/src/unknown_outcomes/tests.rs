//! What is remembered, and for how long.

use std::sync::Arc;

use leftfold_model::{Conflict, EventType, ExpectedRevision, Position, StreamName};

use super::*;

fn append(events: usize) -> Append {
    let kind = EventType::new("DepositMade").unwrap();
    let events = (0..events).map(|_| NewEvent::json(kind.clone(), "{}"));
    let stream = StreamName::new("account-1").unwrap();
    Append::to(stream, ExpectedRevision::Any, events.collect()).unwrap()
}

fn cause() -> Cause {
    Arc::new(std::io::Error::other("no connection"))
}

fn unavailable() -> AppendError {
    AppendError::Unavailable { cause: cause() }
}

fn unknown() -> AppendError {
    AppendError::OutcomeUnknown { cause: cause() }
}

fn denied() -> AppendError {
    AppendError::AccessDenied {
        reason: "no right to write".into(),
    }
}

/// Ends an attempt with this error, and returns the error that the caller gets.
fn told(outcomes: &UnknownOutcomes, append: &Append, error: AppendError) -> AppendError {
    outcomes.begin(append).end(Err(error)).unwrap_err()
}

fn is_unknown(error: &AppendError) -> bool {
    matches!(error, AppendError::OutcomeUnknown { .. })
}

#[test]
fn a_retry_that_was_not_carried_out_is_not_said_to_be_unwritten() {
    let outcomes = UnknownOutcomes::default();
    let (first, other) = (append(3), append(3));
    assert!(!is_unknown(&told(&outcomes, &first, unavailable())));
    assert!(is_unknown(&told(&outcomes, &first, unknown())));
    assert!(is_unknown(&told(&outcomes, &first, unavailable())));
    assert!(is_unknown(&told(&outcomes, &first, denied())));
    assert!(!is_unknown(&told(&outcomes, &other, unavailable())));
    assert!(!is_unknown(&told(&outcomes, &other, denied())));
}

#[test]
fn an_append_that_was_dropped_counts_as_one_of_unknown_outcome() {
    let outcomes = UnknownOutcomes::default();
    let append = append(1);
    drop(outcomes.begin(&append));
    assert!(is_unknown(&told(&outcomes, &append, unavailable())));
}

#[test]
fn acknowledged_events_are_forgotten_and_a_conflict_stays_one() {
    let outcomes = UnknownOutcomes::default();
    let append = append(2);
    told(&outcomes, &append, unknown());
    let conflict = Conflict::ConditionFailed {
        condition: 0,
        position: Position::new(7),
    };
    let refused = told(&outcomes, &append, conflict.into());
    assert!(matches!(refused, AppendError::Conflict(_)), "{refused:?}");
    assert!(is_unknown(&told(&outcomes, &append, unavailable())));
    let stored = Appended {
        first: Position::new(3),
        last: Position::new(4),
        streams: Vec::new(),
        repeated: true,
    };
    outcomes.begin(&append).end(Ok(stored)).unwrap();
    assert!(!is_unknown(&told(&outcomes, &append, unavailable())));
}

#[test]
fn no_more_events_are_remembered_than_the_limit_and_the_newest_are() {
    let outcomes = UnknownOutcomes::default();
    let oldest = append(1);
    told(&outcomes, &oldest, unknown());
    let many: Vec<_> = (0..EVENTS_MAX / 1_000 + 1).map(|_| append(1_000)).collect();
    for append in &many {
        told(&outcomes, append, unknown());
        // Remembered again, they take no more room.
        told(&outcomes, append, unknown());
    }
    assert!(!is_unknown(&told(&outcomes, &oldest, unavailable())));
    assert!(is_unknown(&told(
        &outcomes,
        many.last().unwrap(),
        unavailable()
    )));
    let events = outcomes.lock();
    assert_eq!(events.ids.len(), EVENTS_MAX);
    assert_eq!(events.numbers.len(), EVENTS_MAX);
}
