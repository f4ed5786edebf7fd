//! A cache of states between commands.
//!
//! **Owns:** [`StateCache`]: its entries, and applying new events to them. **Does not know:** how a command decides.
//! **Invariants:** a cached state is the fold of the stored events up to its revision, and may lag the log. A command that uses
//! one appends with the cached revision as the expectation, and reloads before it reports a rejection. Only one command uses an
//! entry at a time.

use std::{
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

use leftfold_model::{Appended, NewEvent, Position, Revision, StreamName};
use quick_cache::sync::Cache;

use crate::{
    Data, Event, EventContext, Loaded,
    load::{Folded, LastEvent},
};

/// See the module.
pub(crate) struct StateCache<A> {
    states: Cache<StreamName, Arc<Loaded<A>>>,
}

impl<A> fmt::Debug for StateCache<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateCache")
            .field("states", &self.states.len())
            .finish()
    }
}

impl<A> StateCache<A> {
    /// Keeps the states of at most so many aggregates.
    pub(crate) fn of(states: usize) -> Self {
        Self {
            states: Cache::new(states),
        }
    }

    /// Takes a state out, for one command.
    pub(crate) fn take(&self, stream: &StreamName) -> Option<Loaded<A>> {
        let (_, state) = self.states.remove(stream)?;
        Arc::into_inner(state)
    }

    /// Puts a state back.
    pub(crate) fn put(&self, stream: &StreamName, loaded: Loaded<A>) {
        self.states.insert(stream.clone(), Arc::new(loaded));
    }
}

/// Takes events into a state that were appended under its revision. `None`: the next load says what is wrong, or knows the time
/// that the state depends on; a state that is in doubt is not kept.
pub(crate) fn advance<'e, A: Folded>(
    mut loaded: Loaded<A>,
    events: impl Iterator<Item = (&'e NewEvent, u32)>,
    appended: &Appended,
) -> Option<Loaded<A>> {
    let (stream, last) = appended.streams.first()?;
    let events: Vec<_> = events.collect();
    for (&(event, version), later) in events.iter().zip((0..events.len() as u64).rev()) {
        let at = LastEvent {
            revision: Revision::new(last.get().checked_sub(later)?),
            position: Position::new(appended.last.get().checked_sub(later)?),
            id: event.id(),
        };
        let context = EventContext::of_appended(event, stream, at.revision, at.position);
        loaded.state.note(&context);
        let taken = AssertUnwindSafe(|| take(&mut loaded, event, version, &context));
        if !matches!(panic::catch_unwind(taken), Ok(true)) {
            return None;
        }
        loaded.last = Some(at);
    }
    Some(loaded)
}

/// Takes an event into a state as a load would: by way of what is stored.
fn take<A: Folded>(
    loaded: &mut Loaded<A>,
    event: &NewEvent,
    version: u32,
    context: &EventContext<'_>,
) -> bool {
    let mut kinds = A::Event::KINDS.iter();
    let name = event.event_type().as_str();
    let Some(kind) = kinds.position(|kind| kind.name == name && kind.version == version) else {
        return false;
    };
    let stored = Data::Stored(event.content_type(), event.data());
    match A::Event::decode(kind, stored) {
        Ok(event) => {
            loaded.state.take(&event, context);
            !context.is_inexact()
        }
        Err(_) => false,
    }
}
