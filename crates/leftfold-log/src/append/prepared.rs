//! What a decision needs, looked up before it is the append's turn.
//!
//! **Owns:** [`PreparedLookups`]. **Does not know:** locks, groups; what the lookups decide.
//! **Invariants:** what was looked up of events up to a position stays true, because events never change; what came behind
//! it is for the decision to look at. So conditions and repetitions of any cost are paid for by their own caller.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use foldhash::fast::RandomState;
use leftfold_model::{
    Append, EventId, ExpectedRevision, Position, Query, QueryItem, Revision, Scope, StreamName,
    StreamWrite,
};

use super::LogSnapshot;
use crate::{
    error::StorageError,
    index::{IndexSnapshot, MemIndex, Term},
    planted::{self, Planted},
};

/// Terms of an append's conditions that may be looked up while all appends wait. More: they are looked up before, again
/// if others were decided meanwhile.
const TERMS_IN_TURN_MAX: usize = 256;
/// Streams of an append that may be looked up while all appends wait, because a segment started since they were. More: they
/// are looked up again before.
const STREAMS_IN_TURN_MAX: usize = 256;

/// What is known of an append before it is its turn.
#[derive(Debug)]
pub(crate) struct PreparedLookups {
    /// The newest tail then. While it is the newest, everything older holds what it held.
    newest: Arc<MemIndex>,
    /// For each write, how many events its stream has in all older sources.
    older_events: Vec<u64>,
    /// The same for each check.
    older_checked: Vec<u64>,
    /// For each write, what stands at the revisions at which its events may stand already.
    stored: Vec<HashMap<Revision, (Position, EventId), RandomState>>,
    /// Up to where conditions were looked up, and the first that fails, with the position of an event that matches.
    conditions_through: Position,
    failed: Option<(usize, Position)>,
    /// How many terms the conditions ask for.
    terms: usize,
}

impl PreparedLookups {
    /// Looks up what can be known of the append in advance; `None`: nothing, or not without an error, which the
    /// decision will meet again. `head` is the newest durable position, `decided` the newest one in the index.
    pub(crate) fn of(
        append: &Append,
        seen: LogSnapshot<'_>,
        head: Position,
        decided: Position,
    ) -> Option<Self> {
        let sources = seen.sources;
        let newest = Arc::clone(sources.tails.last()?);
        let (older_events, older_checked) = older_counts(append, sources, &newest).ok()?;
        let writes = append.writes().iter();
        let stored = writes
            .zip(&older_events)
            .map(|(write, &older)| stored_ids(write, older, seen, head).ok())
            .collect::<Option<_>>()?;
        let mut prepared = Self {
            newest,
            older_events,
            older_checked,
            stored,
            conditions_through: Position::START,
            failed: None,
            terms: append.conditions().iter().map(terms).sum(),
        };
        prepared.look_on(append, sources, decided).ok()?;
        Some(prepared)
    }

    /// Looks up what would be looked up in turn: streams, if a segment started since they were looked up, and conditions up to
    /// `decided`.
    pub(crate) fn look_again(
        &mut self,
        append: &Append,
        sources: &IndexSnapshot,
        decided: Position,
    ) -> Result<(), StorageError> {
        if !self.holds(sources)
            && let Some(newest) = sources.tails.last()
        {
            (self.older_events, self.older_checked) = older_counts(append, sources, newest)?;
            self.newest = Arc::clone(newest);
        }
        self.look_on(append, sources, decided)
    }

    /// Looks conditions up to `decided`, from where they were looked up before.
    fn look_on(
        &mut self,
        append: &Append,
        sources: &IndexSnapshot,
        decided: Position,
    ) -> Result<(), StorageError> {
        // Which condition is named depends on the log alone: those before one that fails are looked at as well.
        let open = self
            .failed
            .map_or(append.conditions().len(), |(index, _)| index);
        for (index, condition) in append.conditions().iter().enumerate().take(open) {
            let after = condition.after.seen_through().max(self.conditions_through);
            let query = &condition.fail_if_match;
            if let Some(position) = first_match(query, after, decided, sources)? {
                self.failed = Some((index, position));
                break;
            }
        }
        self.conditions_through = decided;
        Ok(())
    }

    /// Whether conditions have so many terms that events since they were looked up must not be looked at in turn.
    pub(crate) fn is_behind(&self, decided: Position) -> bool {
        self.terms > TERMS_IN_TURN_MAX && self.conditions_through < decided
    }

    /// Whether there are so many streams that they must not be looked up in turn.
    pub(crate) fn has_many_streams(&self) -> bool {
        self.older_events.len() + self.older_checked.len() > STREAMS_IN_TURN_MAX
    }

    /// The first condition that is known to fail.
    pub(crate) fn failed(&self) -> Option<(usize, Position)> {
        self.failed
    }

    /// Up to where conditions were looked at: all of them, or those before the one that fails.
    pub(crate) fn conditions_through(&self) -> Position {
        self.conditions_through
    }

    /// Whether what was looked up of streams still holds.
    pub(crate) fn holds(&self, sources: &IndexSnapshot) -> bool {
        let newest = sources.tails.last();
        newest.is_some_and(|tail| Arc::ptr_eq(tail, &self.newest))
            || planted::is(Planted::StalePrepared)
    }

    /// How many events the stream of this write has in all sources but the newest tail, if that still holds.
    pub(crate) fn older_events(&self, sources: &IndexSnapshot, write: usize) -> Option<u64> {
        let events = self.older_events.get(write).copied();
        events.filter(|_| self.holds(sources))
    }

    /// The same for the stream of this check.
    pub(crate) fn older_checked(&self, sources: &IndexSnapshot, check: usize) -> Option<u64> {
        let events = self.older_checked.get(check).copied();
        events.filter(|_| self.holds(sources))
    }

    /// The event at this revision of the stream of this write, if it was looked up.
    pub(crate) fn stored(&self, write: usize, revision: Revision) -> Option<(Position, EventId)> {
        self.stored.get(write)?.get(&revision).copied()
    }
}

/// For each write, and for each check, how many events its stream has in all sources but the newest tail. Those of a stream in
/// the newest tail are not needed.
fn older_counts(
    append: &Append,
    sources: &IndexSnapshot,
    newest: &MemIndex,
) -> Result<(Vec<u64>, Vec<u64>), StorageError> {
    let older = |stream: &StreamName| {
        let term = Term::stream(stream);
        match newest.count(term.as_bytes(), Position::MAX) {
            Some(_) => Ok(0),
            None => sources.older_stream_events(&term, Position::MAX),
        }
    };
    let written = append.writes().iter().map(|write| older(&write.stream));
    let checked = append.checks().iter().map(|check| older(&check.stream));
    Ok((
        written.collect::<Result<_, _>>()?,
        checked.collect::<Result<_, _>>()?,
    ))
}

/// The first position behind `after`, up to `through`, that matches a query.
pub(super) fn first_match(
    query: &Query,
    after: Position,
    through: Position,
    sources: &IndexSnapshot,
) -> Result<Option<Position>, StorageError> {
    if after >= through || sources.surely_none_after(query, after)? {
        return Ok(None);
    }
    sources
        .select(&Scope::All, query, through)
        .at_or_after(after.next())
}

fn terms(condition: &leftfold_model::AppendCondition) -> usize {
    let of_item = |item: &QueryItem| item.type_list().len() + item.tag_list().len();
    match &condition.fail_if_match {
        Query::All => 0,
        Query::Items(items) => items.iter().map(of_item).sum(),
    }
}

/// What stands at the revisions at which a write with a fixed revision would stand, if it was appended before: from the
/// first of them on, as long as ids are those of the write. Reads the ids of published events only; later ones are among the
/// recent ids.
fn stored_ids(
    write: &StreamWrite,
    older_events: u64,
    seen: LogSnapshot<'_>,
    head: Position,
) -> Result<HashMap<Revision, (Position, EventId), RandomState>, StorageError> {
    let mut stored = HashMap::default();
    let fixed = !matches!(
        write.expected,
        ExpectedRevision::Any | ExpectedRevision::StreamExists
    );
    let Some(mut revision) = write.expected.next_revision().filter(|_| fixed) else {
        return Ok(stored);
    };
    let term = Term::stream(&write.stream);
    let newest = seen.sources.tails.last();
    let events = match newest.and_then(|tail| tail.count(term.as_bytes(), Position::MAX)) {
        Some((base, count)) => base + count,
        None => older_events,
    };
    if revision.get() >= events {
        return Ok(stored);
    }
    for event in &write.events {
        let id = match stored.entry(revision) {
            Entry::Occupied(known) => known.get().1,
            Entry::Vacant(unknown) => {
                let place = seen.sources.position_of(&term, revision.get(), head)?;
                let Some(position) = place.filter(|&position| position <= head) else {
                    break;
                };
                let Some(found) = seen.segments.event(position)? else {
                    break;
                };
                unknown.insert((position, found.id)).1
            }
        };
        if id == event.id() {
            revision = revision.next();
        }
    }
    Ok(stored)
}
