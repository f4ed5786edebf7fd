//! The newest events by id, so that a retried append is recognised without reading.
//!
//! **Owns:** [`RecentIds`]. **Does not know:** what a retry is answered.
//! **Invariants:** holds exactly the newest `RECENT_IDS` events of the log (all, if there are fewer), so what it
//! answers depends on the log alone.

use std::collections::{HashMap, VecDeque};

use leftfold_model::{EventId, Position, Revision, StreamName};

use crate::limits::RECENT_IDS;

/// Ids of the newest events and where those stand.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    places: HashMap<EventId, Place, foldhash::fast::RandomState>,
    order: VecDeque<(EventId, Position)>,
}

/// Where an event stands.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) position: Position,
    pub(crate) stream: StreamName,
    pub(crate) revision: Revision,
}

impl RecentIds {
    /// Adds the newest event, and forgets the oldest if there are too many.
    pub(crate) fn push(&mut self, id: EventId, place: Place) {
        self.order.push_back((id, place.position));
        self.places.insert(id, place);
        if self.order.len() > RECENT_IDS
            && let Some((id, position)) = self.order.pop_front()
            && self
                .places
                .get(&id)
                .is_some_and(|place| place.position == position)
        {
            self.places.remove(&id);
        }
    }

    pub(crate) fn find(&self, id: EventId) -> Option<&Place> {
        self.places.get(&id)
    }

    /// The position of the oldest event held; `next` if there is none.
    pub(crate) fn oldest(&self, next: Position) -> Position {
        self.order.front().map_or(next, |&(_, position)| position)
    }
}
