//! Tests of decisions: given events, when models decide, then a result.
//!
//! **Owns:** [`GivenEvents`]. **Does not know:** stores.
//! **Invariants:** a model gets the events within its boundary, as from a store; a boundary that a store would refuse fails
//! the test.

use leftfold_model::ErrorChain;

use super::{DecisionResult, decision_result::fail, stored};
use crate::{Event, EventContext, IntoDecision, Models, load::fold};

/// The events before a decision, in the whole store.
///
/// ```
/// use leftfold::{Boundary, Event, Model, testing::GivenEvents};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum NameEvent { #[event("NameTaken")] NameTaken { #[tag("name")] name: String } }
/// # use NameEvent::NameTaken;
/// #[derive(Clone)]
/// struct Name { name: &'static str, taken: bool }
///
/// impl Model for Name {
///     type Event = NameEvent;
///     fn boundary(&self) -> Boundary { Boundary::tag("name", self.name) }
///     fn apply(&mut self, _: &NameEvent) { self.taken = true }
/// }
///
/// let take = |name: &Name| match name.taken {
///     true => Err("taken"),
///     false => Ok(NameTaken { name: name.name.into() }),
/// };
/// let facts = || GivenEvents::of([NameTaken { name: "ann".into() }]);
/// facts().when(Name { name: "bob", taken: false }, take).then([NameTaken { name: "bob".into() }]);
/// facts().when(Name { name: "ann", taken: false }, take).then_err("taken");
/// ```
#[derive(Debug)]
pub struct GivenEvents<V> {
    events: Vec<V>,
}

impl<V: Event> GivenEvents<V> {
    /// Starts with these events, in this order.
    pub fn of(events: impl IntoIterator<Item = V>) -> Self {
        Self {
            events: events.into_iter().collect(),
        }
    }

    /// Starts with no events.
    #[must_use]
    pub fn none() -> Self {
        Self::of([])
    }

    /// Runs a decision on these models.
    ///
    /// # Panics
    /// If an event cannot be stored, read again or applied, or a boundary makes no sense.
    #[must_use = "say what is expected: then, then_err, then_nothing"]
    #[track_caller]
    pub fn when<M: Models<Event = V>, D: IntoDecision<V>>(
        self,
        mut models: M,
        decide: impl FnOnce(&M) -> D,
    ) -> DecisionResult<V, D::Refusal> {
        let boundaries = models.boundaries();
        for boundary in &boundaries {
            if let Err(error) = boundary.query::<V>() {
                fail(&ErrorChain(&error).to_string());
            }
        }
        for (event, place) in self.events.iter().zip(0..) {
            let stored = stored(event, place);
            let context = EventContext::of(&stored);
            let folded = fold(&stored, &mut |event| {
                models.apply(&boundaries, event, &context);
            });
            if let Err(error) = folded {
                fail(&ErrorChain(&error).to_string());
            }
        }
        DecisionResult {
            outcome: decide(&models).into_decision(),
        }
    }
}
