//! The newest events by id, so that a retried append is recognised without reading.
//!
//! **Owns:** [`RecentIds`]. **Does not know:** what the retry returns.
//! **Invariants:** it holds exactly the newest `RECENT_IDS` events of the log, or all if there are fewer, so its answers depend
//! on the log alone; positions are contiguous, so a slot of the ring implies one.

use std::{collections::VecDeque, hash::BuildHasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use leftfold_model::{EventId, Position, Revision, StreamName};

use crate::limits::RECENT_IDS;

/// The ids of the newest events, with their positions.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    /// Oldest first; the first one's position is `first`.
    ids: VecDeque<EventId>,
    first: u64,
    /// Positions by the hash of their ids. Of an id that occurs twice, it finds the last position.
    table: HashTable<u64>,
    hasher: RandomState,
    /// Which streams the positions belong to, oldest first.
    runs: VecDeque<Run>,
}

/// Events of one stream with adjacent positions.
#[derive(Debug)]
struct Run {
    first: u64,
    stream: StreamName,
    revision: Revision,
}

/// The place of an event.
#[derive(Clone, Debug)]
pub(crate) struct EventLocation<'a> {
    pub(crate) position: Position,
    pub(crate) stream: &'a StreamName,
    pub(crate) revision: Revision,
}

impl RecentIds {
    /// Adds the newest events, which are adjacent in one stream, and drops the oldest ones over the limit.
    pub(crate) fn push(
        &mut self,
        first: Position,
        stream: &StreamName,
        revision: Revision,
        ids: impl Iterator<Item = EventId>,
    ) {
        if self.ids.is_empty() {
            self.first = first.get();
        }
        debug_assert_eq!(self.first + self.ids.len() as u64, first.get());
        self.runs.push_back(Run {
            first: first.get(),
            stream: stream.clone(),
            revision,
        });
        for id in ids {
            if self.ids.len() >= RECENT_IDS {
                self.forget_oldest();
            }
            let position = self.first + self.ids.len() as u64;
            self.ids.push_back(id);
            self.insert(id, position);
        }
    }

    fn insert(&mut self, id: EventId, position: u64) {
        let Self {
            ids,
            first,
            table,
            hasher,
            ..
        } = self;
        let id_at = |at: &u64| ids.get(index(*first, *at));
        let hash = |at: &u64| hasher.hash_one(id_at(at));
        let entry = table.entry(hasher.hash_one(Some(id)), |at| id_at(at) == Some(&id), hash);
        entry.insert(position);
    }

    fn forget_oldest(&mut self) {
        let Some(&id) = self.ids.front() else { return };
        let hash = self.hasher.hash_one(Some(id));
        let position = self.first;
        if let Ok(entry) = self.table.find_entry(hash, |&at| at == position) {
            entry.remove();
        }
        self.ids.pop_front();
        self.first += 1;
        if self.runs.get(1).is_some_and(|run| run.first <= self.first) {
            self.runs.pop_front();
        }
    }

    pub(crate) fn find(&self, id: EventId) -> Option<EventLocation<'_>> {
        let hash = self.hasher.hash_one(Some(id));
        let same = |at: &u64| self.ids.get(index(self.first, *at)) == Some(&id);
        let &position = self.table.find(hash, same)?;
        let behind = self.runs.partition_point(|run| run.first <= position);
        let run = self.runs.get(behind.checked_sub(1)?)?;
        Some(EventLocation {
            position: Position::new(position),
            stream: &run.stream,
            revision: run.revision.saturating_add(position - run.first),
        })
    }

    /// Returns the position of the oldest event held; `next` if there is none.
    pub(crate) fn oldest(&self, next: Position) -> Position {
        if self.ids.is_empty() {
            next
        } else {
            Position::new(self.first)
        }
    }
}

fn index(first: u64, position: u64) -> usize {
    usize::try_from(position.wrapping_sub(first)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> EventId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        EventId::from_bytes(bytes)
    }

    #[test]
    fn the_newest_ids_are_found_where_they_stand_and_older_ones_are_forgotten() {
        let mut recent = RecentIds::default();
        let streams = [
            StreamName::new("a-1").unwrap(),
            StreamName::new("b-2").unwrap(),
        ];
        let (mut next, mut revisions) = (1_u64, [0_u64; 2]);
        while next < 3 * RECENT_IDS as u64 {
            let which = usize::try_from(next % 2).unwrap();
            let count = 1 + next % 5;
            let ids = (next..next + count).map(id);
            let revision = Revision::new(revisions[which]);
            recent.push(Position::new(next), &streams[which], revision, ids);
            revisions[which] += count;
            next += count;
        }
        let oldest = next - RECENT_IDS as u64;
        assert_eq!(recent.oldest(Position::MAX), Position::new(oldest));
        assert!(recent.find(id(oldest - 1)).is_none());
        for position in oldest..next {
            let place = recent.find(id(position)).unwrap();
            assert_eq!(place.position.get(), position);
            assert!(place.revision.get() < revisions.iter().copied().max().unwrap());
        }
        assert!(recent.find(id(next)).is_none());
        assert!(recent.runs.len() <= RECENT_IDS);
    }

    #[test]
    fn an_id_that_occurs_twice_is_found_where_it_stands_last() {
        let mut recent = RecentIds::default();
        let stream = StreamName::new("a-1").unwrap();
        let ids = [id(7), id(8), id(7)].into_iter();
        recent.push(Position::FIRST, &stream, Revision::FIRST, ids);
        assert_eq!(recent.find(id(7)).unwrap().position, Position::new(3));
    }
}
