//! What is stored beside an event, for domain code that needs more than the event.
//!
//! **Owns:** [`EventContext`]. **Does not know:** who applies an event.
//! **Invariants:** nothing is copied or parsed before it is asked for; a fold that asks for what is not known yet notes that, and
//! its result is dropped.

use std::cell::Cell;

use leftfold_model::{
    Bytes, EventId, NewEvent, Position, RecordedEvent, Revision, StreamName, Tag, Timestamp,
};

use crate::Metadata;

/// What is stored beside an event: its time, place and metadata. For
/// [`Aggregate::apply_with_context`](crate::Aggregate::apply_with_context), its siblings, and upcasters.
///
/// ```
/// use leftfold::{Aggregate, Event, EventContext, model::Timestamp, testing::Given};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum AccountEvent {
///     #[event("DepositMade")]
///     DepositMade { amount: u64 },
/// }
///
/// #[derive(Default, Debug, PartialEq)]
/// struct Account { balance: u64, last_used: Option<Timestamp> }
///
/// impl Aggregate for Account {
///     const CATEGORY: &'static str = "account";
///     type Event = AccountEvent;
///
///     fn apply(&mut self, event: &AccountEvent) {
///         let AccountEvent::DepositMade { amount } = event;
///         self.balance += amount;
///     }
///
///     fn apply_with_context(&mut self, event: &AccountEvent, context: &EventContext<'_>) {
///         self.apply(event);
///         self.last_used = Some(context.time());
///     }
/// }
///
/// let noon = Timestamp::from_micros(43_200_000_000);
/// Given::<Account>::nothing()
///     .at(noon)
///     .and([AccountEvent::DepositMade { amount: 5 }])
///     .then_state(Account { balance: 5, last_used: Some(noon) });
/// ```
#[derive(Debug)]
pub struct EventContext<'a> {
    source: Source<'a>,
}

#[derive(Debug)]
enum Source<'a> {
    Stored(&'a RecordedEvent),
    Appended(Appended<'a>),
}

/// An event that was just appended. Its time is not known before it is read.
#[derive(Debug)]
struct Appended<'a> {
    event: &'a NewEvent,
    stream: &'a StreamName,
    revision: Revision,
    position: Position,
    time_was_asked_for: Cell<bool>,
}

impl<'a> EventContext<'a> {
    /// Returns the context of a stored event.
    #[must_use]
    pub fn of(event: &'a RecordedEvent) -> Self {
        Self {
            source: Source::Stored(event),
        }
    }

    /// Returns the context of an event that was appended there.
    pub(crate) fn of_appended(
        event: &'a NewEvent,
        stream: &'a StreamName,
        revision: Revision,
        position: Position,
    ) -> Self {
        let time_was_asked_for = Cell::new(false);
        let source = Source::Appended(Appended {
            event,
            stream,
            revision,
            position,
            time_was_asked_for,
        });
        Self { source }
    }

    /// Returns when the event was committed. Folding the same event gives the same time, unlike a clock.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match &self.source {
            Source::Stored(event) => event.time,
            Source::Appended(appended) => {
                appended.time_was_asked_for.set(true);
                Timestamp::from_micros(0)
            }
        }
    }

    /// Returns the event's metadata: correlation, cause, actor and what the application added. Parses JSON on each call.
    #[must_use]
    pub fn metadata(&self) -> Metadata {
        match &self.source {
            Source::Stored(event) => Metadata::of(event),
            Source::Appended(appended) => Metadata::parse(appended.event.metadata()),
        }
    }

    /// Returns the event's metadata as it is stored.
    pub(crate) fn stored_metadata(&self) -> &Bytes {
        match &self.source {
            Source::Stored(event) => &event.metadata,
            Source::Appended(appended) => appended.event.metadata(),
        }
    }

    /// Returns the event's id.
    #[must_use]
    pub fn id(&self) -> EventId {
        match &self.source {
            Source::Stored(event) => event.id,
            Source::Appended(appended) => appended.event.id(),
        }
    }

    /// Returns the stream it belongs to.
    #[must_use]
    pub fn stream(&self) -> &StreamName {
        match &self.source {
            Source::Stored(event) => &event.stream,
            Source::Appended(appended) => appended.stream,
        }
    }

    /// Returns its revision in that stream.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match &self.source {
            Source::Stored(event) => event.revision,
            Source::Appended(appended) => appended.revision,
        }
    }

    /// Returns its position in the log.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.source {
            Source::Stored(event) => event.position,
            Source::Appended(appended) => appended.position,
        }
    }

    /// Returns its tags, in order; those of idempotency keys (`$key:...`) among them.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        match &self.source {
            Source::Stored(event) => &event.tags,
            Source::Appended(appended) => appended.event.tags(),
        }
    }

    /// Whether the fold was given a time that is not that of the event.
    pub(crate) fn is_inexact(&self) -> bool {
        match &self.source {
            Source::Stored(_) => false,
            Source::Appended(appended) => appended.time_was_asked_for.get(),
        }
    }
}
