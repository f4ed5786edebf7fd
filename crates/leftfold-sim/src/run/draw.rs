//! Drawing appends by the chance of a run.
//!
//! **Owns:** the events, streams, expectations and queries that simulated appends consist of. **Does not know:** what becomes of
//! an append.
//! **Invariants:** every draw comes from the run's random numbers and what the oracle knows, so one seed is one history.

use leftfold_model::{
    Append, AppendCondition, EventId, EventType, ExpectedRevision, ModelError, NewEvent, Position,
    Query, QueryItem, Revision, StreamName, StreamWrite, Tag, Timestamp,
};

use super::Simulation;
use crate::{Fault, disk::Op};

impl Simulation {
    /// A new event with a number of its own and this many bytes of data.
    fn event(&mut self, bytes: usize) -> NewEvent {
        self.numbers += 1;
        let number = self.numbers;
        let mut data = vec![0; bytes];
        data.iter_mut()
            .zip(number.to_le_bytes().iter().cycle())
            .for_each(|(to, from)| *to = *from | 1);
        let mut event = NewEvent::json(event_type(number % 3), data)
            .with_id(EventId::from_bytes(u128::from(number).to_le_bytes()))
            .with_time(Timestamp::from_micros(number));
        if let Ok(tag) = Tag::new(format!("n:{}", number % 5)) {
            event = event.clone().with_tags([tag]).unwrap_or(event);
        }
        event
    }

    /// An append of `events` events of `bytes` bytes to each of `streams` streams.
    pub fn request(&mut self, streams: u64, events: u64, bytes: usize) -> Append {
        let begin = self.chance.below(4);
        let mut writes = Vec::new();
        for stream in 0..streams.max(1) {
            let events = (0..events.max(1)).map(|_| self.event(bytes)).collect();
            writes.push(StreamWrite {
                stream: name((begin + stream) % 4),
                expected: ExpectedRevision::Any,
                events,
            });
        }
        match Append::new(writes, Vec::new()) {
            Ok(append) => append,
            Err(error) => unreachable!("simulated appends are within limits: {error}"),
        }
    }

    /// Draws a group of appends with expected revisions, checks and conditions, valid and invalid ones, and with repetitions
    /// within the group.
    pub fn guarded_group(&mut self) -> Vec<Append> {
        let mut group: Vec<Append> = Vec::new();
        for _ in 0..1 + self.chance.below(5) {
            let earlier = usize::try_from(self.chance.below(4)).unwrap_or(0);
            let repeated = group.get(earlier).or_else(|| {
                let known = self.remembered.get(earlier);
                known.map(|(append, _)| append)
            });
            match repeated.filter(|_| self.chance.percent(20)).cloned() {
                Some(append) => group.push(append),
                None => {
                    let append = self.guarded();
                    group.push(append);
                }
            }
        }
        group
    }

    fn guarded(&mut self) -> Append {
        let begin = self.chance.below(4);
        let mut writes = Vec::new();
        for stream in 0..1 + self.chance.below(2) {
            let stream = name((begin + stream) % 4);
            let expected = self.expectation(&stream);
            let events = (0..1 + self.chance.below(3))
                .map(|_| self.event(40))
                .collect();
            writes.push(StreamWrite {
                stream,
                expected,
                events,
            });
        }
        let mut append = within_limits(Append::new(writes, Vec::new()));
        if self.chance.percent(30) {
            let stream = name(self.chance.below(5));
            let expected = self.expectation(&stream);
            append = within_limits(append.with_check(stream, expected));
        }
        for _ in 0..self.chance.below(3) {
            let seen = self.oracle.acknowledged_events() + 3;
            // Most conditions are about what came last.
            let after = match self.chance.percent(70) {
                true => seen.saturating_sub(self.chance.below(30)),
                false => self.chance.below(seen),
            };
            let condition = AppendCondition::new(self.query(), Position::new(after));
            append = within_limits(append.with_condition(condition));
        }
        append
    }

    /// What an append may believe of a stream: most often what is so.
    fn expectation(&mut self, stream: &StreamName) -> ExpectedRevision {
        let events = self.oracle.events_of(stream);
        let known = match events.checked_sub(1) {
            None => ExpectedRevision::NoStream,
            Some(last) => ExpectedRevision::Exact(Revision::new(last)),
        };
        match self.chance.below(10) {
            0..4 => known,
            4 => ExpectedRevision::NoStream,
            5 => ExpectedRevision::StreamExists,
            6 => ExpectedRevision::Exact(Revision::new(self.chance.below(events + 3))),
            _ => ExpectedRevision::Any,
        }
    }

    /// A fault of one of the next operations of some kind.
    pub(super) fn fault(&mut self) -> Fault {
        const OPS: &[Op] = &[
            Op::Sync,
            Op::Sync,
            Op::Sync,
            Op::SyncDir,
            Op::SyncDir,
            Op::Create,
            Op::Write,
            Op::Rename,
            Op::Open,
            Op::Read,
            Op::List,
            Op::Lock,
        ];
        let number = usize::try_from(self.chance.below(OPS.len() as u64)).unwrap_or(0);
        let op = OPS.get(number).copied().unwrap_or(Op::Sync);
        let nth = 1 + self.chance.below(3);
        match self.chance.percent(25) {
            true => Fault::full(op, nth),
            false => Fault::io(op, nth),
        }
    }

    /// A query for some types or a tag of simulated events, or for both.
    fn query(&mut self) -> Query {
        let types = (0..self.chance.below(2)).map(|_| event_type(self.chance.below(4)));
        let types: Vec<_> = types.collect();
        let tag = Tag::new(format!("n:{}", self.chance.below(6)));
        let tags = tag
            .into_iter()
            .filter(|_| types.is_empty() || self.chance.percent(50));
        let tags: Vec<_> = tags.collect();
        let item = QueryItem::new(types, tags).and_then(|item| Query::items([item]));
        item.unwrap_or(Query::All)
    }
}

fn within_limits(append: Result<Append, ModelError>) -> Append {
    match append {
        Ok(append) => append,
        Err(error) => unreachable!("simulated appends are within limits: {error}"),
    }
}

pub(super) fn name(number: u64) -> StreamName {
    match StreamName::new(format!("s{}-{number}", number % 2)) {
        Ok(name) => name,
        Err(_) => StreamName::default_stream(),
    }
}

fn event_type(number: u64) -> EventType {
    match EventType::new(format!("T{number}")) {
        Ok(event_type) => event_type,
        Err(error) => unreachable!("the name of a simulated type is valid: {error}"),
    }
}
