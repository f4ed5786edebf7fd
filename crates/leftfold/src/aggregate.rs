//! Aggregates: what the events of one stream add up to.
//!
//! **Owns:** the traits [`Aggregate`] and [`IntoEvents`]. **Does not know:** stores, async, errors of infrastructure.
//! **Invariants:** applying an event cannot fail, for it states what happened; deciding may.

use crate::Event;

/// State that is the left fold of the events of one stream.
///
/// Commands are the type's own methods: they take `&self`, do no I/O, and return new events or a refusal.
pub trait Aggregate: Default + Send + Sync + 'static {
    /// The category of the aggregate's streams: the stream of aggregate `7f3` is `{CATEGORY}-7f3`. It must not hold
    /// a `-` and must never change.
    const CATEGORY: &'static str;

    /// The events.
    type Event: Event;

    /// Takes an event into the state. The event happened: there is nothing to check and nothing to refuse.
    fn apply(&mut self, event: &Self::Event);
}

/// What a command may return: one event, several, or none.
pub trait IntoEvents<E> {
    /// The events, in order.
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
