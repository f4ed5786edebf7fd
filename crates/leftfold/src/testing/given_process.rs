//! Tests of processes: given what one saw, when it sees this, then that.
//!
//! **Owns:** [`GivenProcess`], [`WhenProcess`]. **Does not know:** stores, clocks.
//! **Invariants:** what a process remembers passes through its stored form; the time of what is seen does not matter to what
//! is expected of timers, which are told by their pauses.

use std::{fmt::Debug, time::Duration};

use leftfold_model::{ErrorChain, RecordedEvent, StreamName, Timestamp};

use super::{
    decision_result::{fail, same},
    stored,
};
use crate::{
    Event, EventContext, Process, Reaction, Recorded, Seen,
    load::{fold, typed},
    process::When,
};

/// What a process saw before.
///
/// ```
/// use leftfold::{Aggregate, Event, Process, Reaction, Recorded, Seen, testing::GivenProcess};
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum OrderEvent { #[event("OrderPlaced")] Placed }
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum CareEvent { #[event("CareBegun")] Begun, #[event("CareEnded")] Ended }
/// # #[derive(Debug, PartialEq)]
/// # enum Command { Ask }
/// # #[derive(Default)]
/// # struct Care;
/// # impl Aggregate for Care {
/// #     const CATEGORY: &'static str = "care";
/// #     type Event = CareEvent;
/// #     fn apply(&mut self, _: &CareEvent) {}
/// # }
/// # impl Process for Care {
/// #     type Sees = OrderEvent;
/// #     type Command = Command;
/// #     const NAME: &'static str = "care";
/// #     fn route(event: &Recorded<OrderEvent>) -> Option<String> { Some(event.aggregate_id().to_owned()) }
/// #     fn react(&self, seen: Seen<'_, OrderEvent>) -> Reaction<CareEvent, Command> {
/// #         match seen {
/// #             Seen::Event(_) => Reaction::remember(CareEvent::Begun).after("ask", Duration::from_secs(60)),
/// #             Seen::Timer(_) => Reaction::remember(CareEvent::Ended).send(Command::Ask),
/// #         }
/// #     }
/// # }
/// GivenProcess::<Care>::nothing()
///     .when_seeing("order-o1", OrderEvent::Placed)
///     .then([CareEvent::Begun])
///     .then_timer("ask", Duration::from_secs(60));
/// GivenProcess::<Care>::nothing()
///     .sees("order-o1", OrderEvent::Placed)
///     .when_due("ask")
///     .then_sends([Command::Ask]);
/// ```
#[derive(Debug)]
pub struct GivenProcess<P> {
    state: P,
    seen: u64,
    remembered: u64,
}

impl<P: Process> GivenProcess<P> {
    /// It saw nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            state: P::default(),
            seen: 0,
            remembered: 0,
        }
    }

    /// It saw this event of this stream, and remembers what it decided then.
    ///
    /// # Panics
    /// If the event cannot be stored or read again, or does not concern a process.
    #[must_use]
    #[track_caller]
    pub fn sees(mut self, stream: &str, event: P::Sees) -> Self {
        let reaction = self.react_to(stream, &event);
        self.remember(&reaction);
        self
    }

    /// When it sees this event of this stream.
    ///
    /// # Panics
    /// As [`Self::sees`].
    #[must_use = "say what is expected: then, then_sends, then_timer, then_cancels, then_nothing"]
    #[track_caller]
    pub fn when_seeing(mut self, stream: &str, event: P::Sees) -> WhenProcess<P> {
        let reaction = self.react_to(stream, &event);
        WhenProcess { reaction }
    }

    /// When this timer is due.
    #[must_use = "say what is expected: then, then_sends, then_timer, then_cancels, then_nothing"]
    #[track_caller]
    pub fn when_due(self, timer: &str) -> WhenProcess<P> {
        let reaction = checked(self.state.react(Seen::Timer(timer)));
        WhenProcess { reaction }
    }

    #[track_caller]
    fn react_to(&mut self, stream: &str, event: &P::Sees) -> Reaction<P::Event, P::Command> {
        let stream = match StreamName::new(stream) {
            Ok(stream) => stream,
            Err(error) => fail(&ErrorChain(&error).to_string()),
        };
        let stored = RecordedEvent {
            stream,
            ..stored(event, self.seen)
        };
        self.seen += 1;
        let values: Vec<Recorded<P::Sees>> = match typed(&stored) {
            Ok(values) => values,
            Err(error) => fail(&ErrorChain(&error).to_string()),
        };
        let Some(value) = values.first() else {
            fail("the event comes to nothing when it is read");
        };
        if P::route(value).is_none() {
            fail(&format!(
                "event of type {} concerns no process",
                event.event_type()
            ));
        }
        checked(self.state.react(Seen::Event(value)))
    }

    #[track_caller]
    fn remember(&mut self, reaction: &Reaction<P::Event, P::Command>) {
        for event in &reaction.events {
            let stored = stored(event, self.remembered);
            let context = EventContext::of(&stored);
            let folded = fold(&stored, &mut |event| {
                self.state.apply_with_context(event, &context);
            });
            if let Err(error) = folded {
                fail(&ErrorChain(&error).to_string());
            }
            self.remembered += 1;
        }
    }
}

/// Panics on a reaction that a running process would fail on.
#[track_caller]
fn checked<E, C>(reaction: Reaction<E, C>) -> Reaction<E, C> {
    if let Err(error) = reaction.check() {
        fail(&error.to_string());
    }
    reaction
}

/// What a process decided.
#[derive(Debug)]
pub struct WhenProcess<P: Process> {
    reaction: Reaction<P::Event, P::Command>,
}

impl<P: Process> WhenProcess<P>
where
    P::Event: Debug + PartialEq,
    P::Command: Debug + PartialEq,
{
    /// Then it remembers exactly these events, in this order.
    ///
    /// # Panics
    /// If it remembers others.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = P::Event>) -> Self {
        let expected: Vec<_> = expected.into_iter().collect();
        same("events", &expected, &self.reaction.events);
        self
    }

    /// Then it sends exactly these commands, in this order.
    ///
    /// # Panics
    /// If it sends others.
    #[track_caller]
    pub fn then_sends(self, expected: impl IntoIterator<Item = P::Command>) -> Self {
        let expected: Vec<_> = expected.into_iter().collect();
        same("commands", &expected, &self.reaction.commands);
        self
    }

    /// Then it sets this timer to so long behind what it saw.
    ///
    /// # Panics
    /// If it does not, or to another time.
    #[track_caller]
    pub fn then_timer(self, name: &str, pause: Duration) -> Self {
        self.then_timer_is(name, Some(When::After(pause)))
    }

    /// Then it sets this timer to this time.
    ///
    /// # Panics
    /// If it does not, or to another time.
    #[track_caller]
    pub fn then_timer_at(self, name: &str, time: Timestamp) -> Self {
        self.then_timer_is(name, Some(When::At(time)))
    }

    /// Then it cancels this timer.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn then_cancels(self, name: &str) -> Self {
        self.then_timer_is(name, None)
    }

    #[track_caller]
    fn then_timer_is(self, name: &str, expected: Option<When>) -> Self {
        let mut timers = self.reaction.timers.iter();
        let found = timers.find(|(known, _)| known == name);
        same("timer", &Some(&(name.to_owned(), expected)), &found);
        self
    }

    /// Then it ignores what it saw.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn then_nothing(self) -> Self {
        self.then([])
    }
}
