//! Deciding appends: which are allowed, and the positions and revisions they get.
//!
//! **Owns:** [`AppendValidator`]: the state that decisions need. **Does not know:** files, threads, clocks.
//! **Invariants:** a decision depends only on the state and the append, so equal appends in equal order give equal logs; the
//! state includes appends that are decided but not yet durable.
//! **Reading order:** [`AppendValidator::decide`], [`recent`].

mod recent;

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use leftfold_model::{
    Append, Appended, Conflict, CurrentRevision, EventId, ExpectedRevision, NewEvent, Position,
    Query, Revision, Scope, StreamName, StreamWrite,
};

pub(crate) use recent::RecentIds;

use crate::{
    error::StorageError,
    index::{IndexSnapshot, MemIndex, Term},
    segment::Segments,
};

/// The state that decides appends.
#[derive(Debug)]
pub(crate) struct AppendValidator {
    /// The position the next event gets.
    pub(crate) next: Position,
    /// The newest events by id.
    pub(crate) recent: RecentIds,
}

/// What an append may become.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It is allowed; the first event of each write gets this revision.
    Write(Vec<Revision>),
    /// It is stored already.
    Repeated(Appended),
    /// It is rejected.
    Refused(Conflict),
}

/// The current state of the log: the index of all decided events, and the segments of all durable ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogSnapshot<'a> {
    pub(crate) sources: &'a IndexSnapshot,
    pub(crate) segments: &'a Segments,
}

/// Lookups for a decision in sources that no longer change, made before the caller holds the commit lock.
#[derive(Debug)]
pub(crate) struct PreparedLookups {
    /// The newest mem index at that time. While it is the newest, all older sources are unchanged.
    newest: Arc<MemIndex>,
    /// For each write, how many events its stream has in all older sources.
    older_events: Vec<u64>,
    /// For each check, how many events its stream has in all older sources.
    older_checked: Vec<u64>,
}

impl PreparedLookups {
    /// Looks up in advance what the append's decision needs; `None` if there is nothing, or on an error, which the
    /// decision will meet again.
    pub(crate) fn of(append: &Append, sources: &IndexSnapshot) -> Option<Self> {
        let newest = Arc::clone(sources.tails.last()?);
        let older = |stream: &StreamName| {
            let term = Term::stream(stream);
            match newest.count(term.as_bytes(), Position::MAX) {
                Some(_) => Some(0),
                None => sources.older_stream_events(&term, Position::MAX).ok(),
            }
        };
        let writes = append.writes().iter();
        let older_events = writes
            .map(|write| older(&write.stream))
            .collect::<Option<_>>()?;
        let checks = append.checks().iter();
        let older_checked = checks
            .map(|check| older(&check.stream))
            .collect::<Option<_>>()?;
        Some(Self {
            newest,
            older_events,
            older_checked,
        })
    }

    /// Returns whether the lookups are still valid.
    fn holds(&self, sources: &IndexSnapshot) -> bool {
        let newest = sources.tails.last();
        newest.is_some_and(|tail| Arc::ptr_eq(tail, &self.newest))
    }

    /// Returns how many events the stream of this write has in all sources but the newest mem index, if still valid.
    fn older_events(&self, sources: &IndexSnapshot, write: usize) -> Option<u64> {
        let events = self.older_events.get(write).copied();
        events.filter(|_| self.holds(sources))
    }

    /// Returns how many events the stream of this check has in all sources but the newest mem index, if still valid.
    fn older_checked(&self, sources: &IndexSnapshot, check: usize) -> Option<u64> {
        let events = self.older_checked.get(check).copied();
        events.filter(|_| self.holds(sources))
    }
}

impl AppendValidator {
    /// Decides an append. Changes nothing.
    ///
    /// The order is part of the contract: repetition, then expected revisions in the order of the writes, then checks,
    /// then conditions, each in their order (docs/queries.md).
    pub(crate) fn decide(
        &self,
        append: &Append,
        prepared: Option<&PreparedLookups>,
        seen: LogSnapshot<'_>,
    ) -> Result<Decision, StorageError> {
        let current = current_revisions(append, prepared, seen)?;
        if let Some(decision) = self.repetition(append, &current, seen)? {
            return Ok(decision);
        }
        for (write, &actual) in append.writes().iter().zip(&current) {
            if !write.expected.allows(actual) {
                let (stream, expected) = (write.stream.clone(), write.expected);
                return Ok(Decision::Refused(Conflict::WrongRevision {
                    stream,
                    expected,
                    actual,
                }));
            }
        }
        for (nth, check) in append.checks().iter().enumerate() {
            let known = prepared.and_then(|prepared| prepared.older_checked(seen.sources, nth));
            let actual = last_of(stream_events(&check.stream, known, seen.sources)?);
            if !check.expected.allows(actual) {
                let (stream, expected) = (check.stream.clone(), check.expected);
                return Ok(Decision::Refused(Conflict::WrongRevision {
                    stream,
                    expected,
                    actual,
                }));
            }
        }
        for (index, condition) in append.conditions().iter().enumerate() {
            let after = condition.after.seen_through();
            if let Some(position) = self.match_after(&condition.fail_if_match, after, seen)? {
                return Ok(Decision::Refused(Conflict::ConditionFailed {
                    condition: index,
                    position,
                }));
            }
        }
        Ok(Decision::Write(
            current.into_iter().map(CurrentRevision::next).collect(),
        ))
    }

    fn match_after(
        &self,
        query: &Query,
        after: Position,
        seen: LogSnapshot<'_>,
    ) -> Result<Option<Position>, StorageError> {
        let newest = self.next.previous();
        if after >= newest || seen.sources.surely_none_after(query, after)? {
            return Ok(None);
        }
        seen.sources
            .select(&Scope::All, query, newest)
            .at_or_after(after.next())
    }

    /// Returns whether the append, or part of it, is stored already.
    fn repetition(
        &self,
        append: &Append,
        current: &[CurrentRevision],
        seen: LogSnapshot<'_>,
    ) -> Result<Option<Decision>, StorageError> {
        let mut places = Vec::with_capacity(append.event_count());
        let mut streams = Vec::with_capacity(append.writes().len());
        let mut first_found: Option<(EventId, Position)> = None;
        let mut whole = true;
        for (write, &current) in append.writes().iter().zip(current) {
            let mut last = Revision::FIRST;
            let mut expected = write.expected.next_revision();
            for event in &write.events {
                let (place, fits) = self.place_of(write, event, expected, current, seen)?;
                if let Some((position, revision)) = place {
                    first_found.get_or_insert((event.id(), position));
                    places.push(position);
                    last = revision;
                    expected = Some(revision.next());
                }
                whole &= fits;
            }
            streams.push((write.stream.clone(), last));
        }
        let Some((id, position)) = first_found else {
            return Ok(None);
        };
        let contiguous = places
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.next() == *b));
        match (places.first(), places.last()) {
            (Some(&first), Some(&last)) if whole && contiguous => {
                Ok(Some(Decision::Repeated(Appended {
                    first,
                    last,
                    streams,
                    repeated: true,
                })))
            }
            _ => Ok(Some(Decision::Refused(Conflict::PartlyStored {
                id,
                position,
            }))),
        }
    }

    /// Returns the position of the event with this id, if it is stored, and whether this append would put it there.
    ///
    /// `expected` is the revision it would have, as far as that is fixed.
    fn place_of(
        &self,
        write: &StreamWrite,
        event: &NewEvent,
        expected: Option<Revision>,
        current: CurrentRevision,
        seen: LogSnapshot<'_>,
    ) -> Result<(Option<(Position, Revision)>, bool), StorageError> {
        if let Some(found) = self.recent.find(event.id()) {
            let fits =
                *found.stream == write.stream && expected.is_none_or(|r| r == found.revision);
            return Ok((Some((found.position, found.revision)), fits));
        }
        // Only a fixed revision says where an older event of this id could stand.
        let fixed = !matches!(
            write.expected,
            ExpectedRevision::Any | ExpectedRevision::StreamExists
        );
        let Some(revision) = expected.filter(|&revision| fixed && revision < current.next()) else {
            return Ok((None, false));
        };
        let term = Term::stream(&write.stream);
        let position = seen
            .sources
            .position_of(&term, revision.get(), self.next.previous())?;
        // An event that recent ids do not hold is older than all of them, and so durable and readable.
        let Some(position) = position.filter(|&position| position < self.recent.oldest(self.next))
        else {
            return Ok((None, false));
        };
        let stored = seen.segments.event(position)?;
        match stored {
            Some(stored) if stored.id == event.id() => Ok((Some((position, revision)), true)),
            _ => Ok((None, false)),
        }
    }
}

/// Counts the events of a stream, including decided ones; `older`: how many of them are not in the newest mem index, if known
/// (not needed if the newest mem index has the stream).
fn stream_events(
    stream: &StreamName,
    older: Option<u64>,
    sources: &IndexSnapshot,
) -> Result<u64, StorageError> {
    let term = Term::stream(stream);
    let newest = sources.tails.last();
    match newest.and_then(|tail| tail.count(term.as_bytes(), Position::MAX)) {
        Some((base, count)) => Ok(base + count),
        None => match older {
            Some(events) => Ok(events),
            None => sources.older_stream_events(&term, Position::MAX),
        },
    }
}

/// Returns the revision of the last of this many events.
fn last_of(events: u64) -> CurrentRevision {
    CurrentRevision(events.checked_sub(1).map(Revision::new))
}

/// Returns the last revision of each write's stream, including decided appends and earlier writes.
fn current_revisions(
    append: &Append,
    prepared: Option<&PreparedLookups>,
    seen: LogSnapshot<'_>,
) -> Result<Vec<CurrentRevision>, StorageError> {
    let sources = seen.sources;
    let stored = |nth: usize, write: &StreamWrite| {
        let known = prepared.and_then(|prepared| prepared.older_events(sources, nth));
        stream_events(&write.stream, known, sources)
    };
    if let [write] = append.writes() {
        return Ok(vec![last_of(stored(0, write)?)]);
    }
    let mut events: HashMap<&StreamName, u64, RandomState> = HashMap::default();
    let mut all = Vec::with_capacity(append.writes().len());
    for (nth, write) in append.writes().iter().enumerate() {
        let before = match events.get(&write.stream) {
            Some(&before) => before,
            None => stored(nth, write)?,
        };
        all.push(last_of(before));
        events.insert(&write.stream, before + write.events.len() as u64);
    }
    Ok(all)
}
