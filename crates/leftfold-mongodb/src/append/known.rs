//! What the writer knows of the log: last revisions of streams, ids of the newest events.
//!
//! **Owns:** [`Known`] and its bounds. **Does not know:** queries.
//! **Invariants:** everything is as of the newest commit known; ids are those of all of the newest events, without a gap; a
//! full cache never takes a revision from the group that is being decided.

use std::collections::{BTreeSet, HashMap, VecDeque};

use leftfold_model::{EventId, Position, Revision, StreamName};

use crate::{
    document::{CommitDocument, event_id, to_u64},
    error::Failure,
};

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
#[derive(Debug)]
pub(super) struct Known {
    /// Maximum streams whose last revision is cached; of a log with more events, not everything is known.
    streams_max: usize,
    /// The last revision; `None`: the stream has no event.
    revisions: HashMap<StreamName, Option<Revision>>,
    /// Whether every stream of the log is among these, so that any other one has no event.
    has_every_stream: bool,
    /// Whether every id of the log is known.
    has_every_id: bool,
    ids: RecentIds,
}

impl Known {
    pub(super) fn new(streams_max: usize) -> Self {
        Self {
            streams_max,
            revisions: HashMap::new(),
            has_every_stream: false,
            has_every_id: false,
            ids: RecentIds::default(),
        }
    }

    /// Whether nothing is known yet.
    pub(super) fn is_unfilled(&self) -> bool {
        !self.ids.complete
    }

    /// Fills what is known with the newest events of the log, newest first: all of them, or at least [`RECENT_IDS`].
    pub(super) fn fill(&mut self, newest_first: Vec<(EventId, Stored)>) {
        let is_whole_log = newest_first.len() < RECENT_IDS;
        let mut newest = HashMap::new();
        for (_, stored) in &newest_first {
            let stream = stored.stream.clone();
            newest.entry(stream).or_insert(Some(stored.revision));
        }
        newest.extend(self.revisions.drain());
        if newest.len() <= self.streams_max {
            self.revisions = newest;
            self.has_every_stream = is_whole_log;
        }
        self.has_every_id = is_whole_log && newest_first.len() <= self.streams_max;
        self.ids.fill(newest_first);
    }

    /// Applies a commit that follows the newest known one.
    pub(super) fn apply(&mut self, commit: &CommitDocument) -> Result<(), Failure> {
        for event in &commit.events {
            let stream = StreamName::new(event.stream.as_str());
            let stored = Stored {
                stream: stream.map_err(|error| Failure::Damaged(error.to_string()))?,
                revision: Revision::new(to_u64(event.revision)?),
                position: Position::new(to_u64(event.position)?),
            };
            if self.has_every_stream || self.revisions.contains_key(&stored.stream) {
                self.set_revision(stored.stream.clone(), Some(stored.revision));
            }
            if self.ids.complete {
                let is_bounded = self.ids.push(event_id(&event.id)?, stored);
                self.has_every_id &= is_bounded && self.ids.order.len() <= self.streams_max;
            }
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.streams_max);
    }

    /// The last revision of a stream, if it is known; `Some(None)`: it has no event.
    pub(super) fn revision(&self, stream: &StreamName) -> Option<Option<Revision>> {
        let cached = self.revisions.get(stream).copied();
        cached.or_else(|| self.has_every_stream.then_some(None))
    }

    /// The place of one of the newest events.
    pub(super) fn event(&self, id: EventId) -> Option<&Stored> {
        self.ids.places.get(&id)
    }

    /// Whether an id that [`Self::event`] does not know belongs to no event.
    pub(super) fn has_every_id(&self) -> bool {
        self.has_every_id
    }

    /// Returns the last revisions of these streams, those that were looked up just now included, and caches the latter.
    pub(super) fn take_in(
        &mut self,
        streams: &BTreeSet<&StreamName>,
        looked_up: Vec<(StreamName, Option<Revision>)>,
    ) -> HashMap<StreamName, Revision> {
        // The cache is read before anything is added to it, because adding to a full cache clears it.
        let cached = streams.iter().filter_map(|stream| {
            let revision = self.revision(stream).flatten()?;
            Some(((*stream).clone(), revision))
        });
        let mut revisions: HashMap<_, _> = cached.collect();
        for (stream, revision) in looked_up {
            if let Some(revision) = revision {
                revisions.insert(stream.clone(), revision);
            }
            self.set_revision(stream, revision);
        }
        revisions
    }

    fn set_revision(&mut self, stream: StreamName, revision: Option<Revision>) {
        if self.revisions.len() >= self.streams_max && !self.revisions.contains_key(&stream) {
            self.revisions.clear();
            self.has_every_stream = false;
        }
        self.revisions.insert(stream, revision);
    }
}

/// The ids of the newest events.
#[derive(Debug, Default)]
struct RecentIds {
    /// Whether they are filled. Until then none is known.
    complete: bool,
    places: HashMap<EventId, Stored>,
    /// Oldest first.
    order: VecDeque<EventId>,
}

impl RecentIds {
    /// Fills them with the newest events of the log, newest first.
    fn fill(&mut self, newest_first: Vec<(EventId, Stored)>) {
        *self = Self {
            complete: true,
            ..Self::default()
        };
        let newest = newest_first.into_iter().take(RECENT_IDS);
        for (id, stored) in newest.collect::<Vec<_>>().into_iter().rev() {
            self.push(id, stored);
        }
    }

    /// Adds an id. Returns whether there was room for it without forgetting the oldest one.
    fn push(&mut self, id: EventId, stored: Stored) -> bool {
        let is_full = self.order.len() == RECENT_IDS;
        if is_full && let Some(oldest) = self.order.pop_front() {
            self.places.remove(&oldest);
        }
        self.order.push_back(id);
        self.places.insert(id, stored);
        !is_full
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

    fn stream(number: u64) -> StreamName {
        StreamName::new(format!("account-{number}")).unwrap()
    }

    #[test]
    fn clearing_a_full_cache_loses_no_stream_of_the_group() {
        let mut known = Known::new(4);
        for number in 0..4 {
            known.set_revision(stream(number), Some(Revision::new(7)));
        }
        let (written, new) = (stream(3), stream(4));
        let group = BTreeSet::from([&written, &new]);
        let revisions = known.take_in(&group, vec![(new.clone(), Some(Revision::new(1)))]);
        assert_eq!(revisions.get(&written), Some(&Revision::new(7)));
        assert_eq!(revisions.get(&new), Some(&Revision::new(1)));
        assert_eq!(known.revision(&written), None);
    }

    #[test]
    fn of_a_log_that_was_read_whole_every_stream_and_id_is_known() {
        let mut known = Known::new(4);
        known.fill((1..=3).rev().map(place).collect());
        let other = stream(2);
        assert_eq!(known.revision(&stream(1)), Some(Some(Revision::new(2))));
        assert_eq!(known.revision(&other), Some(None));
        assert!(known.has_every_id());
        known.set_revision(other.clone(), Some(Revision::FIRST));
        assert_eq!(known.revision(&other), Some(Some(Revision::FIRST)));
    }

    #[test]
    fn of_a_longer_log_only_the_streams_and_ids_of_the_newest_events_are_known() {
        let mut known = Known::new(RECENT_IDS);
        let last = RECENT_IDS as u64;
        known.fill((1..=last).rev().map(place).collect());
        let newest = Some(Some(Revision::new(last - 1)));
        assert_eq!(known.revision(&stream(1)), newest);
        assert_eq!(known.revision(&stream(2)), None);
        assert!(!known.has_every_id());
    }

    #[test]
    fn the_ids_of_the_newest_events_are_known_and_older_ones_are_not() {
        let mut known = Known::new(RECENT_IDS);
        let last = RECENT_IDS as u64 + 3;
        known.fill((1..=last).rev().map(place).collect());
        let (next, stored) = place(last + 1);
        assert!(!known.ids.push(next, stored));
        let known_at = |position| known.event(place(position).0).map(|stored| stored.position);
        assert_eq!(known_at(last + 1), Some(Position::new(last + 1)));
        assert_eq!(known_at(5), Some(Position::new(5)));
        assert_eq!(known_at(4), None);
        assert_eq!(known.ids.places.len(), RECENT_IDS);
    }
}
