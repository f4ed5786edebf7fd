//! A process and its timers, as its events made them.
//!
//! **Owns:** [`ProcessState`]. **Does not know:** reactions.
//! **Invariants:** the timers are those of all events of the process, also of events whose type the program no longer knows.

use leftfold_model::{Bytes, EventId};

use super::{definition::Process, timers::SetTimers};
use crate::{Event, EventContext, Metadata, load::Folded};

/// Events of a process whose state is kept in memory, at most.
const EVENTS_KEPT: usize = 256;

/// See the module.
pub(super) struct ProcessState<P> {
    pub(super) process: P,
    pub(super) timers: SetTimers,
    /// The ids of its events.
    events: Vec<EventId>,
    /// The metadata of the newest one.
    newest: Bytes,
}

impl<P: Default> Default for ProcessState<P> {
    fn default() -> Self {
        Self {
            process: P::default(),
            timers: SetTimers::default(),
            events: Vec::new(),
            newest: Bytes::new(),
        }
    }
}

impl<P: Process> Folded for ProcessState<P> {
    type Event = P::Event;

    fn note(&mut self, context: &EventContext<'_>) {
        self.newest.clone_from(context.stored_metadata());
        self.timers.take(context.id(), &self.newest);
        self.events.push(context.id());
    }

    fn take(&mut self, event: &P::Event, context: &EventContext<'_>) {
        self.process.apply_with_context(event, context);
    }
}

impl<P: Process> ProcessState<P> {
    /// Returns the metadata of what the newest event causes.
    pub(super) fn effect_metadata(&self) -> Metadata {
        match self.events.last() {
            Some(id) => Metadata::parse(&self.newest).of_effect(*id),
            None => Metadata::new(),
        }
    }

    /// Whether the event of this id is in it.
    pub(super) fn has_event(&self, id: EventId) -> bool {
        self.events.contains(&id)
    }

    /// Gives up what it shares with the events that were read with it, so that it keeps no more in memory than its own.
    pub(super) fn unshare(&mut self) {
        self.newest = Bytes::copy_from_slice(&self.newest);
    }

    /// Whether it is small enough to be kept in memory between reactions.
    pub(super) fn is_small(&self) -> bool {
        self.events.len() <= EVENTS_KEPT
    }

    /// Whether states may be kept in memory between reactions: what is personal stays there no longer than one.
    pub(super) const MAY_STAY: bool = P::Event::PERSONAL.is_empty();
}
