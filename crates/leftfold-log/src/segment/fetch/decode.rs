//! Decoding fetched bytes into events.
//!
//! **Owns:** resolving names and decoding. **Does not know:** where the bytes came from.
//! **Invariants:** a record's checksum is verified before any of it is used.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use leftfold_model::{Position, RecordedEvent};

use super::{Fetched, damaged};
use crate::{
    error::StorageError,
    record::{
        Malformed,
        event::{self, EventRef},
        malformed,
        names::{NameRef, Names, OwnedNames},
    },
};

impl Fetched {
    /// The names of an event that holds them itself.
    fn names_at(&self, position: Position) -> Result<Names<'_>, Malformed> {
        let nowhere = malformed("a reference leads to no names");
        let Some(index) = self.index_of(position) else {
            let named = self.named.binary_search_by_key(&position, |(at, _)| *at);
            let named = named.ok().and_then(|index| self.named.get(index));
            let (_, names) = named.ok_or(nowhere)?;
            return Names::take(&mut names.as_slice());
        };
        let run = self.runs.partition_point(|run| run.places_end <= index);
        let (Some(run), Some(&(_, start))) = (self.runs.get(run), self.places.get(index)) else {
            return Err(nowhere);
        };
        let within = run.within + usize::try_from(start - run.from).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(within..).unwrap_or_default();
        match event::parse(event::check(bytes, self.seal, position)?)?.naming {
            NameRef::Inline(names) => Ok(names),
            NameRef::Back(_) => Err(nowhere),
        }
    }

    /// Checks these events and adds their names, encoded, to `named`.
    pub(super) fn encode_names(
        &self,
        named: &mut Vec<(Position, Vec<u8>)>,
    ) -> Result<(), StorageError> {
        for (run, position, start, _) in self.each() {
            let names = self.names_at(position);
            let names = names.map_err(|malformed| damaged(run, start, &malformed))?;
            named.push((position, names.encode()));
        }
        Ok(())
    }

    /// The events that are returned, borrowed, each checked when it is reached.
    pub(crate) fn refs(&self) -> impl Iterator<Item = Result<EventRef<'_>, StorageError>> {
        let mut recent = RecentNames::default();
        self.each_returned()
            .map(move |(run, position, start, within)| {
                let bytes = self.bytes.get(within..).unwrap_or_default();
                let event = event::check(bytes, self.seal, position)
                    .and_then(event::parse)
                    .and_then(|record| {
                        let names = recent.resolve(self, position, &record.naming)?;
                        Ok(record.with(position, names))
                    });
                event.map_err(|malformed| damaged(run, start, &malformed))
            })
    }

    /// The memory it used.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes.into()
    }

    /// The events that are returned; their data and metadata share the memory.
    pub(crate) fn into_events(self) -> Result<Vec<RecordedEvent>, StorageError> {
        let mut owned = HashMap::default();
        let mut events = Vec::with_capacity(self.len());
        for (run, position, start, within) in self.each_returned() {
            let event = self.event(position, within, &mut owned);
            events.push(event.map_err(|malformed| damaged(run, start, &malformed))?);
        }
        Ok(events)
    }

    /// The event that lies here. `owned` holds names that several events may share.
    fn event(
        &self,
        position: Position,
        within: usize,
        owned: &mut HashMap<Position, OwnedNames, RandomState>,
    ) -> Result<RecordedEvent, Malformed> {
        let mut bytes = self.bytes.slice(within.min(self.bytes.len())..);
        let record = event::take_record(&mut bytes, self.seal, position)?;
        let parsed = event::parse(&record)?;
        let names = match parsed.naming {
            NameRef::Inline(ref names) => names.owned()?,
            NameRef::Back(events) => {
                let at = Position::new(position.get().saturating_sub(events));
                match owned.get(&at) {
                    Some(names) => names.clone(),
                    None => {
                        let names = self.names_at(at)?.owned()?;
                        owned.entry(at).or_insert(names).clone()
                    }
                }
            }
        };
        Ok(event::decode(&record, &parsed, position, names))
    }
}

/// How many names are remembered. Events of one batch refer to few.
const RECENT_NAMES: usize = 16;

/// Names that were resolved last, so that the event that holds them is not checked again for each that refers to it.
#[derive(Default)]
struct RecentNames<'a> {
    names: Vec<(Position, Names<'a>)>,
    /// Where the next ones go, and which were used last.
    next: usize,
    last: usize,
}

impl<'a> RecentNames<'a> {
    /// The names of a record, wherever they are.
    fn resolve(
        &mut self,
        fetched: &'a Fetched,
        position: Position,
        naming: &NameRef<Names<'a>>,
    ) -> Result<Names<'a>, Malformed> {
        let events = match naming {
            NameRef::Inline(names) => return Ok(names.clone()),
            NameRef::Back(events) => *events,
        };
        let at = Position::new(position.get().saturating_sub(events));
        if let Some((held, names)) = self.names.get(self.last)
            && *held == at
        {
            return Ok(names.clone());
        }
        if let Some(found) = self.names.iter().position(|(held, _)| *held == at) {
            self.last = found;
        } else {
            let names = (at, fetched.names_at(at)?);
            self.last = self.next;
            match self.names.get_mut(self.next) {
                Some(oldest) => *oldest = names,
                None => self.names.push(names),
            }
            self.next = (self.next + 1) % RECENT_NAMES;
        }
        let nowhere = malformed("a reference leads to no names");
        self.names
            .get(self.last)
            .map(|(_, names)| names.clone())
            .ok_or(nowhere)
    }
}
