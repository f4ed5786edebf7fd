//! Models: the states that a decision is made on.
//!
//! **Owns:** the traits [`Model`] and [`Models`], which tuples of models implement. **Does not know:** where events come from.
//! **Invariants:** a model gets exactly the events within its boundary, in the order of the log.

use crate::{Boundary, Event, EventContext};

/// A small state folded from the events within a boundary: one course, one user name, the last invoice number.
///
/// The value has the identity it is about and the state before any event. Each attempt starts with a clone of it.
///
/// ```
/// use leftfold::{Boundary, Event, Model};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum SchoolEvent {
///     #[event("CourseOpened")]
///     CourseOpened { #[tag("course")] course: String, seats: u32 },
///     #[event("SeatTaken")]
///     SeatTaken { #[tag("course")] course: String, #[tag("student")] student: String },
/// }
///
/// #[derive(Clone)]
/// struct Course { id: String, free: u32 }
///
/// impl Model for Course {
///     type Event = SchoolEvent;
///
///     fn boundary(&self) -> Boundary {
///         Boundary::tag("course", &self.id)
///     }
///     fn apply(&mut self, event: &SchoolEvent) {
///         match event {
///             SchoolEvent::CourseOpened { seats, .. } => self.free = *seats,
///             SchoolEvent::SeatTaken { .. } => self.free -= 1,
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a model that a decision can rest on",
    note = "implement `leftfold::Model` for it"
)]
pub trait Model: Clone + Send + Sync + 'static {
    /// The events, of which it may need some types only.
    type Event: Event;

    /// Returns the boundary of the events that the model is folded from.
    fn boundary(&self) -> Boundary;

    /// Folds an event into the state. The event has happened, so there is nothing to check.
    fn apply(&mut self, event: &Self::Event);

    /// Folds an event into the state, for models that also depend on its time, metadata or place: see [`EventContext`].
    /// Unless overridden it calls [`Self::apply`]; an override is called in its stead.
    fn apply_with_context(&mut self, event: &Self::Event, context: &EventContext<'_>) {
        let _ = context;
        self.apply(event);
    }
}

/// One [`Model`], or a tuple of two to six that share a type of events.
#[diagnostic::on_unimplemented(
    message = "one decision cannot rest on `{Self}`",
    note = "implement `leftfold::Model`; a decision takes one model, or a tuple of two to six that share one type of events"
)]
pub trait Models: Clone + Send + Sync + 'static {
    /// The events.
    type Event: Event;

    /// Returns the boundary of each model.
    fn boundaries(&self) -> Vec<Boundary>;

    /// Applies an event to each model whose boundary contains it.
    fn apply(&mut self, boundaries: &[Boundary], event: &Self::Event, context: &EventContext<'_>);
}

impl<M: Model> Models for M {
    type Event = M::Event;

    fn boundaries(&self) -> Vec<Boundary> {
        vec![self.boundary()]
    }
    fn apply(&mut self, boundaries: &[Boundary], event: &M::Event, context: &EventContext<'_>) {
        give(self, boundaries.first(), event, context);
    }
}

fn give<M: Model>(
    model: &mut M,
    boundary: Option<&Boundary>,
    event: &M::Event,
    context: &EventContext<'_>,
) {
    let includes = |boundary: &Boundary| boundary.includes(event.event_type(), context.tags());
    if boundary.is_some_and(includes) {
        model.apply_with_context(event, context);
    }
}

macro_rules! models {
    ($(($first:ident $first_nth:tt, $($model:ident $nth:tt),+)),+ $(,)?) => {
        $(impl<$first: Model, $($model: Model<Event = $first::Event>),+> Models for ($first, $($model,)+) {
            type Event = $first::Event;

            fn boundaries(&self) -> Vec<Boundary> {
                vec![self.$first_nth.boundary(), $(self.$nth.boundary()),+]
            }
            fn apply(&mut self, boundaries: &[Boundary], event: &$first::Event, context: &EventContext<'_>) {
                give(&mut self.$first_nth, boundaries.get($first_nth), event, context);
                $(give(&mut self.$nth, boundaries.get($nth), event, context);)+
            }
        })+
    };
}
models! {
    (A 0, B 1),
    (A 0, B 1, C 2),
    (A 0, B 1, C 2, D 3),
    (A 0, B 1, C 2, D 3, E 4),
    (A 0, B 1, C 2, D 3, E 4, F 5),
}
