//! Aggregates: states folded from the events of one stream.
//!
//! **Owns:** the traits [`Aggregate`], [`Created`], [`IntoEvents`] and [`IntoDecision`].
//! **Does not know:** stores, async, errors of infrastructure.
//! **Invariants:** applying an event cannot fail, because it states what happened; deciding may.

use std::convert::Infallible;

use crate::{Event, EventContext};

/// A state folded from the events of one stream.
///
/// Commands are the type's own methods: they take `&self`, do no I/O, and return new events or a refusal.
///
/// The state before the first event is the type's [`Default`]. For a type without one, implement [`Created`] instead.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    note = "implement `leftfold::Aggregate` for it; for a state without a default implement `leftfold::Created`, \
            and use `Option<...>`"
)]
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The category of the aggregate's streams: the stream of aggregate `7f3` is `{CATEGORY}-7f3`. It must not hold
    /// a `-` nor begin with `$$`, and must never change.
    const CATEGORY: &'static str;

    /// The events.
    type Event: Event;

    /// Folds an event into the state. The event has happened, so there is nothing to check.
    fn apply(&mut self, event: &Self::Event);

    /// Folds an event into the state, for states that also depend on its time, metadata or place: see [`EventContext`].
    /// Unless overridden it calls [`Self::apply`]; an override is called in its stead.
    fn apply_with_context(&mut self, event: &Self::Event, context: &EventContext<'_>) {
        let _ = context;
        self.apply(event);
    }
}

/// State that has no default and begins with an event: a loan that was never granted has no amount, not even 0.
///
/// `Option` of it is an [`Aggregate`]: `None` until it is created.
///
/// ```
/// use leftfold::{Created, Event, Store};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum LoanEvent {
///     #[event("LoanGranted")]
///     Granted { cents: u64 },
///     #[event("LoanRepaid")]
///     Repaid { cents: u64 },
/// }
///
/// struct Loan { owed: u64 }
///
/// impl Created for Loan {
///     const CATEGORY: &'static str = "loan";
///     type Event = LoanEvent;
///
///     fn create(event: &LoanEvent) -> Option<Self> {
///         match event {
///             LoanEvent::Granted { cents } => Some(Loan { owed: *cents }),
///             LoanEvent::Repaid { .. } => None,
///         }
///     }
///     fn apply(&mut self, event: &LoanEvent) {
///         match event {
///             LoanEvent::Granted { .. } => {}
///             LoanEvent::Repaid { cents } => self.owed -= cents,
///         }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let loans = Store::memory().repository::<Option<Loan>>();
/// loans.create("l1", || Ok::<_, String>(LoanEvent::Granted { cents: 500 })).await?;
/// assert!(loans.create("l1", || Ok::<_, String>(LoanEvent::Granted { cents: 9 })).await.is_err());
/// let owed = loans.load("l1").await?.state().as_ref().map(|loan| loan.owed);
/// assert_eq!(owed, Some(500));
/// # Ok(())
/// # }
/// ```
pub trait Created: Sized + Send + Sync + 'static {
    /// As [`Aggregate::CATEGORY`].
    const CATEGORY: &'static str;

    /// The events.
    type Event: Event;

    /// Creates the state from its first event; `None` if that event cannot be the first.
    fn create(event: &Self::Event) -> Option<Self>;

    /// Folds a later event into the state.
    fn apply(&mut self, event: &Self::Event);

    /// Creates the state from its first event and what is stored beside it. Unless overridden it calls [`Self::create`].
    fn create_with_context(event: &Self::Event, context: &EventContext<'_>) -> Option<Self> {
        let _ = context;
        Self::create(event)
    }

    /// Folds a later event and what is stored beside it into the state. Unless overridden it calls [`Self::apply`].
    fn apply_with_context(&mut self, event: &Self::Event, context: &EventContext<'_>) {
        let _ = context;
        self.apply(event);
    }
}

impl<T: Created> Aggregate for Option<T> {
    const CATEGORY: &'static str = T::CATEGORY;
    type Event = T::Event;

    fn apply(&mut self, event: &T::Event) {
        match self {
            Some(state) => state.apply(event),
            None => *self = Some(created(event, T::create(event))),
        }
    }

    fn apply_with_context(&mut self, event: &T::Event, context: &EventContext<'_>) {
        match self {
            Some(state) => state.apply_with_context(event, context),
            None => *self = Some(created(event, T::create_with_context(event, context))),
        }
    }
}

/// Returns the state that an event created.
#[expect(clippy::panic, reason = "the loader catches this and names the event")]
fn created<T: Created>(event: &T::Event, state: Option<T>) -> T {
    let Some(state) = state else {
        panic!(
            "an event of type {} cannot be the first of a {}",
            event.event_type(),
            T::CATEGORY
        );
    };
    state
}

/// A value that a command may return: one event, several, or none.
#[diagnostic::on_unimplemented(
    message = "a command cannot return `{Self}`",
    note = "return one event, a `Vec`, an array or an `Option` of events, or `()`; refusals are the `Err` of a `Result`"
)]
pub trait IntoEvents<E> {
    /// Returns the events, in order.
    fn into_events(self) -> Vec<E>;
}

impl<E: Event> IntoEvents<E> for E {
    fn into_events(self) -> Vec<E> {
        vec![self]
    }
}
impl<E: Event> IntoEvents<E> for Vec<E> {
    fn into_events(self) -> Vec<E> {
        self
    }
}
impl<E: Event, const N: usize> IntoEvents<E> for [E; N] {
    fn into_events(self) -> Vec<E> {
        self.into()
    }
}
impl<E: Event> IntoEvents<E> for Option<E> {
    fn into_events(self) -> Vec<E> {
        self.into_iter().collect()
    }
}
impl<E: Event> IntoEvents<E> for () {
    fn into_events(self) -> Vec<E> {
        Vec::new()
    }
}

/// A value that the closure of a command may return: a `Result` of events and the domain's own error, or the events alone if
/// the command cannot be rejected.
///
/// ```
/// # use leftfold::{Aggregate, Event, Store};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Debug)]
/// # enum Counted { #[event("Counted")] Counted }
/// # #[derive(Default)]
/// # struct Counter(u32);
/// # impl Aggregate for Counter {
/// #     const CATEGORY: &'static str = "counter";
/// #     type Event = Counted;
/// #     fn apply(&mut self, _: &Counted) { self.0 += 1 }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let counters = Store::memory().repository::<Counter>();
/// counters.execute("1", |_| Counted::Counted).await?;
/// counters.execute("1", |counter| if counter.0 < 9 { Ok(Counted::Counted) } else { Err("full") }).await?;
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a command cannot return `{Self}`",
    note = "return one event, a `Vec`, an array or an `Option` of events, or `()`; \
            or a `Result` of these and an error of your own"
)]
pub trait IntoDecision<V> {
    /// The domain's own error; [`Infallible`] if there is none.
    type Refusal;

    /// Returns the events, in order, or the refusal.
    ///
    /// # Errors
    /// The domain's own.
    fn into_decision(self) -> Result<Vec<V>, Self::Refusal>;
}

impl<V, R: IntoEvents<V>, E> IntoDecision<V> for Result<R, E> {
    type Refusal = E;

    fn into_decision(self) -> Result<Vec<V>, E> {
        self.map(IntoEvents::into_events)
    }
}

macro_rules! never_refused {
    ($($kind:ty),* $(,)?) => {
        $(impl<V: Event> IntoDecision<V> for $kind {
            type Refusal = Infallible;

            fn into_decision(self) -> Result<Vec<V>, Infallible> {
                Ok(self.into_events())
            }
        })*
    };
}
never_refused! { V, Vec<V>, Option<V>, () }

impl<V: Event, const N: usize> IntoDecision<V> for [V; N] {
    type Refusal = Infallible;

    fn into_decision(self) -> Result<Vec<V>, Infallible> {
        Ok(self.into_events())
    }
}
