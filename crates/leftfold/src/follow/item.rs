//! What a dispatcher hands to a handler, and what comes back.
//!
//! **Owns:** [`Item`], [`Place`], [`Finished`]. **Does not know:** order, parking.
//! **Invariants:** what finished has the key and the place that the item had.

use std::pin::Pin;

use leftfold_model::{Position, RecordedEvent, Revision, StreamName};

use super::attempt::{Failure, Prepared};

/// A handler in flight.
pub(super) type Running = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// An event or a timer that is to be handled.
pub(super) struct Item<E> {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) prepared: Prepared<E>,
}

/// Where an event is.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) stream: StreamName,
    pub(super) revision: Revision,
    /// It is a timer of this id, and no event.
    pub(super) timer: Option<String>,
}

/// An item whose attempts are over.
pub(super) struct Finished {
    pub(super) key: String,
    pub(super) place: Place,
    /// Whether it was parked before.
    pub(super) retried: bool,
    pub(super) ended: Result<(), Failure>,
}

/// Handles an item whose place others have to know.
pub(super) async fn finished(
    place: Place,
    key: String,
    handling: impl Future<Output = Result<(), Failure>>,
) -> Finished {
    let ended = handling.await;
    Finished {
        key,
        place,
        retried: false,
        ended,
    }
}

impl Place {
    pub(super) fn of(event: &RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream: event.stream.clone(),
            revision: event.revision,
            timer: None,
        }
    }

    pub(super) fn timer(id: String) -> Self {
        Self {
            timer: Some(id),
            ..Self::gone(Position::START)
        }
    }

    /// The place of an event that cannot be read: only its position is known.
    pub(super) fn gone(position: Position) -> Self {
        Self {
            position,
            stream: StreamName::default_stream(),
            revision: Revision::FIRST,
            timer: None,
        }
    }
}
