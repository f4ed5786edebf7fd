//! Deciding the appends of a group, one after another.
//!
//! **Owns:** [`Decider`]: expected revisions, checks, conditions and repetitions. **Does not know:** the server.
//! **Invariants:** the order of checks is that of docs/queries.md; an append sees the earlier ones of its group; a decision
//! depends on the commits up to a known one, and on nothing else.

use std::collections::HashMap;

use leftfold_model::{
    Append, Appended, Conflict, CurrentRevision, EventId, ExpectedRevision, Position, Query,
    Revision, StreamName,
};

use super::{known::Stored, lookup::Found};

/// The state that appends of a group are decided against.
#[derive(Debug)]
pub(super) struct Decider<'a> {
    found: &'a Found,
    head: Position,
    /// The last revision of streams that the group wrote.
    revisions: HashMap<&'a StreamName, Revision>,
    ids: HashMap<EventId, Stored>,
    /// The appends taken so far, each with the position of its first event.
    taken: Vec<(&'a Append, Position)>,
}

impl<'a> Decider<'a> {
    pub(super) fn new(found: &'a Found, head: Position) -> Self {
        Self {
            found,
            head,
            revisions: HashMap::new(),
            ids: HashMap::new(),
            taken: Vec::new(),
        }
    }

    /// Decides one append; `index` is its place in the group.
    pub(super) fn decide(
        &mut self,
        index: usize,
        append: &'a Append,
    ) -> Result<Appended, Conflict> {
        if let Some(repeated) = self.repetition(append)? {
            return Ok(repeated);
        }
        self.check_revisions(append)?;
        self.check_conditions(index, append)?;
        Ok(self.take(append))
    }

    fn current(&self, stream: &StreamName) -> CurrentRevision {
        let own = self.revisions.get(stream).copied();
        CurrentRevision(own.or_else(|| self.found.revision(stream)))
    }

    fn stored(&self, id: EventId) -> Option<&Stored> {
        self.ids.get(&id).or_else(|| self.found.stored(id))
    }

    /// Returns the positions of an append whose events are all stored where it would put them.
    fn repetition(&self, append: &Append) -> Result<Option<Appended>, Conflict> {
        let mut known: Vec<(EventId, Position)> = Vec::new();
        let mut streams = Vec::with_capacity(append.writes().len());
        let mut whole = true;
        for write in append.writes() {
            let mut expected = write.expected.next_revision();
            let mut last = Revision::FIRST;
            for event in &write.events {
                let Some(stored) = self.stored(event.id()) else {
                    whole = false;
                    continue;
                };
                whole &= stored.stream == write.stream
                    && expected.is_none_or(|revision| revision == stored.revision);
                last = stored.revision;
                expected = Some(stored.revision.next());
                known.push((event.id(), stored.position));
            }
            streams.push((write.stream.clone(), last));
        }
        let (Some(&(id, first)), Some(&(_, last))) = (known.first(), known.last()) else {
            return Ok(None);
        };
        let adjacent = known
            .windows(2)
            .all(|pair| matches!(pair, [(_, a), (_, b)] if a.next() == *b));
        if !(whole && adjacent) {
            return Err(Conflict::PartlyStored {
                id,
                position: first,
            });
        }
        Ok(Some(Appended {
            first,
            last,
            streams,
            repeated: true,
        }))
    }

    fn check_revisions(&self, append: &Append) -> Result<(), Conflict> {
        let mut written: HashMap<&StreamName, CurrentRevision> = HashMap::new();
        for write in append.writes() {
            let current = written
                .entry(&write.stream)
                .or_insert_with(|| self.current(&write.stream));
            require(&write.stream, write.expected, *current)?;
            let events = write.events.len() as u64;
            *current = CurrentRevision(Some(current.next().saturating_add(events - 1)));
        }
        for check in append.checks() {
            require(&check.stream, check.expected, self.current(&check.stream))?;
        }
        Ok(())
    }

    fn check_conditions(&self, index: usize, append: &Append) -> Result<(), Conflict> {
        for (number, condition) in append.conditions().iter().enumerate() {
            let seen = condition.after.seen_through();
            let in_group = || self.first_match_in_group(&condition.fail_if_match, seen);
            if let Some(position) = self.found.matching(index, number).or_else(in_group) {
                return Err(Conflict::ConditionFailed {
                    condition: number,
                    position,
                });
            }
        }
        Ok(())
    }

    /// Finds the oldest event of the group's own appends after a position that matches.
    fn first_match_in_group(&self, query: &Query, seen: Position) -> Option<Position> {
        let events = self.taken.iter().flat_map(|(append, first)| {
            let numbered = (0..).zip(append.events());
            numbered.map(|(offset, event)| (first.saturating_add(offset), event))
        });
        let mut unseen = events.filter(|(position, _)| *position > seen);
        unseen
            .find(|(_, event)| query.matches(event.event_type(), event.tags()))
            .map(|(position, _)| position)
    }

    /// Assigns positions and revisions to the events of an append.
    fn take(&mut self, append: &'a Append) -> Appended {
        let first = self.head.next();
        let mut streams = Vec::with_capacity(append.writes().len());
        for write in append.writes() {
            let mut last = Revision::FIRST;
            for event in &write.events {
                last = self.current(&write.stream).next();
                self.head = self.head.next();
                self.revisions.insert(&write.stream, last);
                let stored = Stored {
                    stream: write.stream.clone(),
                    revision: last,
                    position: self.head,
                };
                self.ids.insert(event.id(), stored);
            }
            streams.push((write.stream.clone(), last));
        }
        self.taken.push((append, first));
        Appended {
            first,
            last: self.head,
            streams,
            repeated: false,
        }
    }
}

fn require(
    stream: &StreamName,
    expected: ExpectedRevision,
    actual: CurrentRevision,
) -> Result<(), Conflict> {
    if expected.allows(actual) {
        return Ok(());
    }
    Err(Conflict::WrongRevision {
        stream: stream.clone(),
        expected,
        actual,
    })
}
