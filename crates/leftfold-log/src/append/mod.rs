//! Deciding appends: which are allowed, and the positions and revisions they get.
//!
//! **Owns:** [`AppendValidator`]: the state that decisions need. **Does not know:** files, threads, clocks.
//! **Invariants:** a decision depends only on the state and the append, so equal appends in equal order give equal logs; the
//! state includes appends that are decided but not yet durable.
//! **Reading order:** [`AppendValidator::decide`], [`prepared`], [`recent`].

mod prepared;
mod recent;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use leftfold_model::{
    Append, AppendCondition, Appended, Conflict, CurrentRevision, EventId, ExpectedRevision,
    NewEvent, Position, Revision, StreamName, StreamWrite,
};

pub(crate) use prepared::PreparedLookups;
pub(crate) use recent::RecentIds;

use crate::{
    error::StorageError,
    index::{IndexSnapshot, Term},
    planted::{self, Planted},
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
        if let Some(decision) = self.repetition(append, prepared, &current, seen)? {
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
            if !check.expected.allows(actual) && !planted::is(Planted::ChecksIgnored) {
                let (stream, expected) = (check.stream.clone(), check.expected);
                return Ok(Decision::Refused(Conflict::WrongRevision {
                    stream,
                    expected,
                    actual,
                }));
            }
        }
        if let Some((condition, position)) = self.failed_condition(append, prepared, seen)? {
            return Ok(Decision::Refused(Conflict::ConditionFailed {
                condition,
                position,
            }));
        }
        Ok(Decision::Write(
            current.into_iter().map(CurrentRevision::next).collect(),
        ))
    }

    /// Returns the first condition that fails, and an event that matches it.
    ///
    /// Conditions in front of one that is known to fail are evaluated for later events too, so that the answer depends on the
    /// log only.
    fn failed_condition(
        &self,
        append: &Append,
        prepared: Option<&PreparedLookups>,
        seen: LogSnapshot<'_>,
    ) -> Result<Option<(usize, Position)>, StorageError> {
        let newest = self.next.previous();
        let known = prepared.and_then(PreparedLookups::failed);
        let looked_through = match prepared {
            Some(prepared) => prepared.conditions_through(),
            None => Position::START,
        };
        let open = known.map_or(append.conditions().len(), |(failed, _)| failed);
        for (index, condition) in append.conditions().iter().enumerate().take(open) {
            let AppendCondition {
                fail_if_match,
                after,
            } = condition;
            let after = after.seen_through().max(looked_through);
            let found = prepared::first_match(fail_if_match, after, newest, seen.sources)?;
            if let Some(position) = found {
                return Ok(Some((index, position)));
            }
        }
        Ok(known)
    }

    /// Returns whether the append, or part of it, is stored already.
    fn repetition(
        &self,
        append: &Append,
        prepared: Option<&PreparedLookups>,
        current: &[CurrentRevision],
        seen: LogSnapshot<'_>,
    ) -> Result<Option<Decision>, StorageError> {
        let mut places = Vec::with_capacity(append.event_count());
        let mut streams = Vec::with_capacity(append.writes().len());
        let mut first_found: Option<(EventId, Position)> = None;
        let mut is_complete = true;
        for (nth, (write, &current)) in append.writes().iter().zip(current).enumerate() {
            let stored = |revision| prepared.and_then(|prepared| prepared.stored(nth, revision));
            let mut last = Revision::FIRST;
            let mut expected = write.expected.next_revision();
            for event in &write.events {
                let (place, fits) =
                    self.place_of(write, event, expected, current, &stored, seen)?;
                if let Some((position, revision)) = place {
                    first_found.get_or_insert((event.id(), position));
                    places.push(position);
                    last = revision;
                    expected = Some(revision.next());
                }
                is_complete &= fits;
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
            (Some(&first), Some(&last)) if is_complete && contiguous => {
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
        prepared: &dyn Fn(Revision) -> Option<(Position, EventId)>,
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
        if let Some((position, id)) = prepared(revision) {
            let is_same = id == event.id() && position < self.recent.oldest(self.next);
            return Ok(match is_same {
                true => (Some((position, revision)), true),
                false => (None, false),
            });
        }
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
