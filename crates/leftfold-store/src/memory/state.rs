//! The events of a store in memory, and the decisions on them.
//!
//! **Owns:** [`State`]: the list of events and its indexes. **Does not know:** locks, callers, clocks.
//! **Invariants:** every result is computed from events of the list; indexes only narrow where to look. It decides appends
//! independently of the engine's `AppendValidator`, because the tests compare both.

use std::collections::{BTreeMap, HashMap};

use leftfold_model::{
    Append, AppendCondition, Appended, Bytes, Conflict, CurrentRevision, Direction, EventId,
    EventType, ExpectedRevision, NewEvent, Position, Query, Read, ReadFrom, RecordedEvent,
    Revision, Scope, StreamName, StreamWrite, Tag, Timestamp,
};

use crate::{ErasedEvent, ListStreams, LogEntry, ReadError, StreamInfo, Subscription, Truncation};

/// Number of newest events that are remembered by id, as in the engine.
pub(super) const RECENT_IDS: usize = 65_536;
/// Events of a batch, at most.
pub(super) const BATCH_EVENTS_MAX: usize = 128;

#[derive(Default)]
pub(super) struct State {
    pub(super) events: Vec<RecordedEvent>,
    /// Indexes into `events`, ascending, which narrow a search.
    pub(super) streams: BTreeMap<StreamName, Vec<usize>>,
    types: HashMap<EventType, Vec<usize>>,
    tags: HashMap<Tag, Vec<usize>>,
    ids: HashMap<EventId, usize>,
    /// How many of a stream's first events were erased; they keep their positions, without content.
    erased: HashMap<StreamName, usize>,
    pub(super) closed: bool,
}

impl State {
    pub(super) fn head(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    fn of_stream(&self, stream: &StreamName) -> &[usize] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    pub(super) fn current(&self, stream: &StreamName) -> CurrentRevision {
        let events = self.of_stream(stream).len() as u64;
        CurrentRevision(events.checked_sub(1).map(Revision::new))
    }

    /// Decides an append by the order of checks in docs/queries.md, independently of the engine (differential oracle).
    pub(super) fn decide(&self, append: &Append) -> Result<Option<Appended>, Conflict> {
        if let Some(appended) = self.repetition(append)? {
            return Ok(Some(appended));
        }
        let mut written: BTreeMap<&StreamName, u64> = BTreeMap::new();
        for write in append.writes() {
            let before = written
                .entry(&write.stream)
                .or_insert(self.of_stream(&write.stream).len() as u64);
            let actual = CurrentRevision(before.checked_sub(1).map(Revision::new));
            *before += write.events.len() as u64;
            if !write.expected.allows(actual) {
                let (stream, expected) = (write.stream.clone(), write.expected);
                return Err(Conflict::WrongRevision {
                    stream,
                    expected,
                    actual,
                });
            }
        }
        for check in append.checks() {
            let actual = self.current(&check.stream);
            if !check.expected.allows(actual) {
                let (stream, expected) = (check.stream.clone(), check.expected);
                return Err(Conflict::WrongRevision {
                    stream,
                    expected,
                    actual,
                });
            }
        }
        for (
            condition,
            AppendCondition {
                fail_if_match,
                after,
            },
        ) in append.conditions().iter().enumerate()
        {
            // Positions are indexes and one, so the first unseen event has the index of the last seen position.
            let from = usize::try_from(after.seen_through().get()).unwrap_or(usize::MAX);
            let unseen = self
                .candidates(&Scope::All, fail_if_match, from)
                .into_iter()
                .filter_map(|index| self.events.get(index))
                .find(|event| fail_if_match.matches(&event.event_type, &event.tags));
            if let Some(event) = unseen {
                return Err(Conflict::ConditionFailed {
                    condition,
                    position: event.position,
                });
            }
        }
        Ok(None)
    }

    fn repetition(&self, append: &Append) -> Result<Option<Appended>, Conflict> {
        let mut found: Vec<(EventId, Position)> = Vec::new();
        let mut streams = Vec::new();
        let mut whole = true;
        for write in append.writes() {
            let mut expected = write.expected.next_revision();
            let mut last = Revision::FIRST;
            for event in &write.events {
                match self.stored(write, event, expected) {
                    Some((stored, fits)) => {
                        whole &= fits;
                        last = stored.revision;
                        expected = Some(stored.revision.next());
                        found.push((event.id(), stored.position));
                    }
                    None => whole = false,
                }
            }
            streams.push((write.stream.clone(), last));
        }
        let (Some(&(id, position)), Some(&(_, last))) = (found.first(), found.last()) else {
            return Ok(None);
        };
        let contiguous = found
            .windows(2)
            .all(|pair| matches!(pair, [(_, a), (_, b)] if a.next() == *b));
        if whole && contiguous {
            Ok(Some(Appended {
                first: position,
                last,
                streams,
                repeated: true,
            }))
        } else {
            Err(Conflict::PartlyStored { id, position })
        }
    }

    /// The stored event of this id, if it is recent or stands where this append would put it, and whether the latter.
    fn stored(
        &self,
        write: &StreamWrite,
        event: &NewEvent,
        expected: Option<Revision>,
    ) -> Option<(&RecordedEvent, bool)> {
        let recent = self.events.len().saturating_sub(RECENT_IDS);
        let known = self.ids.get(&event.id()).filter(|&&index| index >= recent);
        if let Some(stored) = known.and_then(|&index| self.events.get(index)) {
            let fits =
                stored.stream == write.stream && expected.is_none_or(|r| r == stored.revision);
            return Some((stored, fits));
        }
        if matches!(
            write.expected,
            ExpectedRevision::Any | ExpectedRevision::StreamExists
        ) {
            return None;
        }
        let index = usize::try_from(expected?.get()).ok()?;
        let stored = self
            .events
            .get(*self.of_stream(&write.stream).get(index)?)?;
        (stored.id == event.id()).then_some((stored, true))
    }

    pub(super) fn write(&mut self, append: &Append, now: Timestamp) -> Appended {
        let first = self.head().next();
        let mut streams = Vec::new();
        for write in append.writes() {
            let stream = shared(self.streams.get_key_value(&write.stream), &write.stream);
            for event in &write.events {
                let revision = self.current(&stream).next();
                let event_type = event.event_type();
                let event_type = shared(self.types.get_key_value(event_type), event_type);
                self.note(&stream, &event_type, event);
                self.events.push(RecordedEvent {
                    position: self.head().next(),
                    stream: stream.clone(),
                    revision,
                    id: event.id(),
                    event_type,
                    content_type: event.content_type(),
                    // What it was cut out of need not stay for as long.
                    data: Bytes::copy_from_slice(event.data()),
                    metadata: Bytes::copy_from_slice(event.metadata()),
                    tags: event.tags().to_vec(),
                    time: event.time().unwrap_or(now),
                });
            }
            streams.push((
                write.stream.clone(),
                self.current(&write.stream).0.unwrap_or_default(),
            ));
        }
        Appended {
            first,
            last: self.head(),
            streams,
            repeated: false,
        }
    }

    /// Adds the next event to the indexes.
    fn note(&mut self, stream: &StreamName, event_type: &EventType, event: &NewEvent) {
        let index = self.events.len();
        match self.streams.get_mut(stream) {
            Some(indexes) => indexes.push(index),
            None => drop(self.streams.insert(stream.clone(), vec![index])),
        }
        let of_type = self.types.entry(event_type.clone());
        of_type.or_default().push(index);
        for tag in event.tags() {
            self.tags.entry(tag.clone()).or_default().push(index);
        }
        self.ids.insert(event.id(), index);
    }

    /// Returns indexes from `from` on, ascending, which include all events of the selection.
    fn candidates(&self, scope: &Scope, query: &Query, from: usize) -> Vec<usize> {
        let later = |indexes: &[usize]| {
            let begin = indexes.partition_point(|&index| index < from);
            indexes.get(begin..).unwrap_or_default().to_vec()
        };
        if let Scope::Stream(stream) = scope {
            return later(self.of_stream(stream));
        }
        let Query::Items(items) = query else {
            return (from..self.events.len()).collect();
        };
        let mut indexes = Vec::new();
        for item in items {
            // An event of an item carries all its tags, so the rarest is enough; without tags it has one of the types.
            let of_tag = |tag| self.tags.get(tag).map_or(&[][..], Vec::as_slice);
            match item
                .tag_list()
                .iter()
                .map(of_tag)
                .min_by_key(|list| list.len())
            {
                Some(rarest) => indexes.extend(later(rarest)),
                None => {
                    let lists = item
                        .type_list()
                        .iter()
                        .filter_map(|kind| self.types.get(kind));
                    lists.for_each(|list| indexes.extend(later(list)));
                }
            }
        }
        indexes.sort_unstable();
        indexes.dedup();
        indexes
    }

    /// Returns whether an event is part of a selection.
    pub(super) fn selects(event: &RecordedEvent, scope: &Scope, query: &Query) -> bool {
        let in_scope = match scope {
            Scope::Stream(stream) => event.stream == *stream,
            Scope::Category(category) => event.stream.category_str() == category.as_str(),
            _ => true,
        };
        in_scope && query.matches(&event.event_type, &event.tags)
    }

    /// Returns the positions that a read delivers, in its order.
    pub(super) fn select(&self, read: &Read) -> Result<Vec<Position>, ReadError> {
        if matches!((&read.from, &read.scope), (ReadFrom::Revision(_), scope) if !matches!(scope, Scope::Stream(_)))
        {
            let reason = "read from a revision names no stream".to_owned();
            return Err(ReadError::Invalid { reason });
        }
        let forwards = read.direction == Direction::Forwards;
        let mut candidates = self.candidates(&read.scope, &read.query, 0);
        // Along the candidates positions rise, and so do the revisions of one stream: both ends can be cut off.
        let (before, through) = match read.from {
            ReadFrom::End => (0, candidates.len()),
            ReadFrom::Position(from) => {
                let index = usize::try_from(from.get()).unwrap_or(usize::MAX);
                let before = candidates.partition_point(|&i| i + 1 < index);
                (before, candidates.partition_point(|&i| i < index))
            }
            ReadFrom::Revision(from) => {
                let nth = usize::try_from(from.get()).unwrap_or(usize::MAX);
                (nth, nth.saturating_add(1))
            }
        };
        if forwards {
            candidates.drain(..before.min(candidates.len()));
        } else {
            candidates.truncate(through);
        }
        let all_of_stream = matches!((&read.scope, &read.query), (Scope::Stream(_), Query::All));
        let selected = |index: &usize| {
            let event = self.events.get(*index);
            all_of_stream || event.is_some_and(|e| Self::selects(e, &read.scope, &read.query))
        };
        candidates.retain(selected);
        let mut positions: Vec<_> = candidates
            .into_iter()
            .map(|index| Position::new(index as u64 + 1))
            .filter(|&position| !self.event(position).is_some_and(|e| self.is_erased(e)))
            .collect();
        if !forwards {
            positions.reverse();
        }
        positions.truncate(read.limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        }));
        Ok(positions)
    }

    pub(super) fn is_erased(&self, event: &RecordedEvent) -> bool {
        let erased = self.erased.get(&event.stream);
        erased.is_some_and(|&count| event.revision.get() < count as u64)
    }

    /// Erases the events below a truncation. Returns their number and their bytes.
    pub(super) fn erase(&mut self, truncation: &Truncation) -> (u64, u64) {
        let before = usize::try_from(truncation.before.get()).unwrap_or(usize::MAX);
        let erased = self.erased.entry(truncation.stream.clone()).or_default();
        let indexes = self
            .streams
            .get(&truncation.stream)
            .map_or(&[][..], Vec::as_slice);
        let end = before.min(indexes.len());
        let (mut events, mut bytes) = (0, 0);
        for &index in indexes.get(*erased..end).unwrap_or_default() {
            if let Some(event) = self.events.get_mut(index) {
                events += 1;
                bytes += (event.data.len() + event.metadata.len()) as u64;
                event.data = Bytes::new();
                event.metadata = Bytes::new();
            }
        }
        *erased = end.max(*erased);
        (events, bytes)
    }

    /// Some entries of the log behind `after`, up to `head`.
    pub(super) fn entries(&self, after: Position, head: Position) -> Vec<LogEntry> {
        let index = |position: Position| usize::try_from(position.get()).unwrap_or(usize::MAX);
        let end = index(head).min(self.events.len());
        let events = self.events.get(index(after)..end).unwrap_or_default();
        let entry = |event: &RecordedEvent| match self.is_erased(event) {
            true => LogEntry::Erased(ErasedEvent::of(event)),
            false => LogEntry::Event(event.clone()),
        };
        events.iter().take(BATCH_EVENTS_MAX).map(entry).collect()
    }

    pub(super) fn event(&self, position: Position) -> Option<&RecordedEvent> {
        self.events
            .get(usize::try_from(position.get()).ok()?.checked_sub(1)?)
    }
}

/// A name as an index holds it, if it does: then it is one text in memory for all events.
fn shared<K: Clone, V>(held: Option<(&K, &V)>, name: &K) -> K {
    held.map_or(name, |(held, _)| held).clone()
}

pub(super) fn deliver(
    state: &State,
    subscription: &Subscription,
) -> (Vec<RecordedEvent>, Position) {
    let unseen = usize::try_from(subscription.after.get()).unwrap_or(usize::MAX);
    let unseen = state.events.get(unseen..).unwrap_or_default();
    let selected = unseen
        .iter()
        .filter(|event| State::selects(event, &subscription.scope, &subscription.query))
        .filter(|event| !state.is_erased(event));
    let events: Vec<_> = selected.take(BATCH_EVENTS_MAX).cloned().collect();
    match events.last() {
        Some(last) if events.len() == BATCH_EVENTS_MAX => {
            let through = last.position;
            (events, through)
        }
        _ => (events, state.head()),
    }
}

pub(super) fn list_streams(state: &State, list: &ListStreams, wanted: usize) -> Vec<StreamInfo> {
    let behind = |name: &StreamName| list.after.as_ref().is_none_or(|after| name > after);
    let wanted_names = state
        .streams
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(&list.prefix) && behind(name));
    let info = |(stream, events): (&StreamName, &Vec<usize>)| {
        let last = state.events.get(*events.last()?)?;
        Some(StreamInfo {
            stream: stream.clone(),
            events: events.len() as u64,
            revision: last.revision,
            position: last.position,
            time: last.time,
        })
    };
    wanted_names.filter_map(info).take(wanted).collect()
}
