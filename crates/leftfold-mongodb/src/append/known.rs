//! What the writer knows of the log: last revisions of streams, ids of the newest events.
//!
//! **Owns:** [`Known`] and its bounds. **Does not know:** queries.
//! **Invariants:** everything is as of the newest commit known; ids are those of all of the newest events, without a gap.

use std::collections::{HashMap, VecDeque};

use leftfold_model::{EventId, Position, Revision, StreamName};

use crate::{
    document::{CommitDocument, event_id, to_u64},
    error::Failure,
};

/// Maximum streams whose last revision is cached.
const REVISIONS_MAX: usize = 65_536;
/// How many of the newest events the ids are known of, as in docs/queries.md.
pub(super) const RECENT_IDS: usize = 65_536;

/// The place of a stored event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    pub(super) stream: StreamName,
    pub(super) revision: Revision,
    pub(super) position: Position,
}

/// What is known as of the newest commit known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The last revision; `None`: the stream has no event.
    revisions: HashMap<StreamName, Option<Revision>>,
    pub(super) ids: RecentIds,
}

impl Known {
    /// Applies a commit that follows the newest known one.
    pub(super) fn apply(&mut self, commit: &CommitDocument) -> Result<(), Failure> {
        for event in &commit.events {
            let revision = Revision::new(to_u64(event.revision)?);
            if let Some(known) = self.revisions.get_mut(event.stream.as_str()) {
                *known = Some(revision);
            }
            if self.ids.complete {
                let stream = StreamName::new(event.stream.as_str());
                let stored = Stored {
                    stream: stream.map_err(|error| Failure::Damaged(error.to_string()))?,
                    revision,
                    position: Position::new(to_u64(event.position)?),
                };
                self.ids.push(event_id(&event.id)?, stored);
            }
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The last revision of a stream, if it is cached; `Some(None)`: it has no event.
    pub(super) fn revision(&self, stream: &StreamName) -> Option<Option<Revision>> {
        self.revisions.get(stream).copied()
    }

    pub(super) fn set_revision(&mut self, stream: StreamName, revision: Option<Revision>) {
        if self.revisions.len() >= REVISIONS_MAX {
            self.revisions.clear();
        }
        self.revisions.insert(stream, revision);
    }
}

/// The ids of the newest events.
#[derive(Debug, Default)]
pub(super) struct RecentIds {
    /// Whether they are filled. Until then none is known.
    complete: bool,
    places: HashMap<EventId, Stored>,
    /// Oldest first.
    order: VecDeque<EventId>,
}

impl RecentIds {
    /// Whether every one of the newest events is known.
    pub(super) fn are_complete(&self) -> bool {
        self.complete
    }

    /// Begins with a log that has no event.
    pub(super) fn begin(&mut self) {
        self.fill(Vec::new());
    }

    /// Fills them with the newest events of the log, newest first.
    pub(super) fn fill(&mut self, newest_first: Vec<(EventId, Stored)>) {
        *self = Self {
            complete: true,
            ..Self::default()
        };
        let newest = newest_first.into_iter().take(RECENT_IDS);
        for (id, stored) in newest.collect::<Vec<_>>().into_iter().rev() {
            self.push(id, stored);
        }
    }

    fn push(&mut self, id: EventId, stored: Stored) {
        if self.order.len() == RECENT_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
        self.order.push_back(id);
        self.places.insert(id, stored);
    }

    pub(super) fn find(&self, id: EventId) -> Option<&Stored> {
        self.places.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: u64) -> (EventId, Stored) {
        let stored = Stored {
            stream: StreamName::new("account-1").unwrap(),
            revision: Revision::new(position - 1),
            position: Position::new(position),
        };
        (
            EventId::from_bytes(u128::from(position).to_le_bytes()),
            stored,
        )
    }

    #[test]
    fn the_ids_of_the_newest_events_are_known_and_older_ones_are_not() {
        let mut ids = RecentIds::default();
        let last = RECENT_IDS as u64 + 3;
        ids.fill((1..=last).rev().map(place).collect());
        let (next, stored) = place(last + 1);
        ids.push(next, stored);
        let known = |position| ids.find(place(position).0).map(|stored| stored.position);
        assert_eq!(known(last + 1), Some(Position::new(last + 1)));
        assert_eq!(known(5), Some(Position::new(5)));
        assert_eq!(known(4), None);
        assert_eq!(ids.places.len(), RECENT_IDS);
    }
}
