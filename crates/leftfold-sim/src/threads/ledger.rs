//! What callers were told, and whether the log agrees.
//!
//! **Owns:** [`Ledger`]: each append with its outcome and when it ran. **Does not know:** threads.
//! **Invariants:** the log after a restart explains every outcome:
//! - what was acknowledged is there, once, at its positions; what certainly was not written is not there;
//! - what ended before another append began stands before it;
//! - each append that is there was allowed by exactly what stands before it, as the oracle decides;
//! - each conflict was one with some prefix of the log that a caller may have met.

use std::{collections::BTreeMap, sync::Arc};

use leftfold_log::{Clock, Core, LogOptions, simulated::AppendError};
use leftfold_model::{Append, ErrorChain, EventId, Position, Read};

use super::{Outcome, ThreadReport};
use crate::{Oracle, SimDisk, Violation, oracle::Verdict};

/// One append as its caller saw it.
#[derive(Debug)]
struct Entry {
    append: Append,
    outcome: Outcome,
    begun: u64,
    ended: u64,
}

impl Entry {
    fn may_have_written(&self) -> bool {
        let error = self.outcome.as_ref().err();
        error.is_none_or(|error| !error.is_definitely_not_written())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    time: u64,
}

impl Ledger {
    /// Returns the next moment.
    pub(super) fn tick(&mut self) -> u64 {
        self.time += 1;
        self.time
    }

    /// Notes an outcome.
    pub(super) fn note(&mut self, append: Append, outcome: Outcome, begun: u64) {
        let ended = self.tick();
        self.entries.push(Entry {
            append,
            outcome,
            begun,
            ended,
        });
    }

    /// Counts the outcomes.
    pub(super) fn report(&self) -> ThreadReport {
        let count = |of: fn(&Outcome) -> bool| {
            let outcomes = self.entries.iter().map(|entry| &entry.outcome);
            outcomes.filter(|outcome| of(outcome)).count() as u64
        };
        ThreadReport {
            acknowledged: count(Outcome::is_ok),
            refused: count(|outcome| matches!(outcome, Err(AppendError::Conflict(_)))),
            unknown: count(
                |outcome| matches!(outcome, Err(error) if !error.is_definitely_not_written()),
            ),
            ..ThreadReport::default()
        }
    }

    /// Compares the outcomes with the log on this disk.
    pub(super) fn compare(
        &self,
        disk: &SimDisk,
        options: LogOptions,
        clock: Arc<dyn Clock>,
        trouble: bool,
    ) -> Result<(), Violation> {
        let unreadable = |error: &(dyn std::error::Error + 'static)| {
            Violation(format!("the log cannot be read: {}", ErrorChain(error)))
        };
        let core = Core::open(Arc::new(disk.clone()), options, clock);
        let core = core.map_err(|error| unreadable(&error))?;
        let mut cursor = core
            .reader()
            .read(&Read::all())
            .map_err(|error| unreadable(&error))?;
        let mut places = BTreeMap::new();
        while let Some(entries) = cursor.next_entries().map_err(|error| unreadable(&error))? {
            for entry in entries {
                let (id, position) = (entry.event.id, entry.event.position);
                if places.insert(id, position).is_some() {
                    return Err(Violation(format!("the event at {position} stands twice")));
                }
            }
        }
        self.compare_places(&places, core.reader().head(), trouble)
    }

    fn compare_places(
        &self,
        places: &BTreeMap<EventId, Position>,
        head: Position,
        trouble: bool,
    ) -> Result<(), Violation> {
        let mut in_log = BTreeMap::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let place = place_of(&entry.append, places)?;
            let later = self.entries.iter().skip(number + 1);
            let mut retries = later.filter(|later| later.append == entry.append);
            let is_explained = retries.any(|retry| retry.may_have_written())
                || self.is_acknowledged(&entry.append);
            compare_outcome(entry, place, trouble, is_explained)?;
            if let Some((first, last)) = place {
                in_log.insert(first, (&entry.append, last));
            }
        }
        self.compare_order(places)?;
        let mut prefixes = vec![Oracle::default()];
        for (&first, &(append, last)) in &in_log {
            let mut oracle = prefixes.last().cloned().unwrap_or_default();
            if oracle.verdict(append) != Verdict::Written {
                return Err(Violation(format!(
                    "written at {first} without a right to: {append:?}"
                )));
            }
            oracle.acknowledged(append, first, last)?;
            prefixes.push(oracle);
        }
        let known = prefixes.last().map_or(0, Oracle::acknowledged_events);
        if known != head.get() {
            return Err(Violation(format!(
                "the head is {head}, callers appended {known} events"
            )));
        }
        self.compare_conflicts(places, &prefixes)
    }

    fn is_acknowledged(&self, append: &Append) -> bool {
        let mut same = self.entries.iter().filter(|entry| entry.append == *append);
        same.any(|entry| entry.outcome.is_ok())
    }

    /// Compares the order of acknowledged appends with the order in which callers began and ended.
    fn compare_order(&self, places: &BTreeMap<EventId, Position>) -> Result<(), Violation> {
        let written = |entry: &&Entry| matches!(&entry.outcome, Ok(done) if !done.repeated);
        let mut written = self.entries.iter().filter(written);
        while let Some(one) = written.next() {
            for other in written.clone() {
                // Outcomes are noted in the order in which a caller sent its appends.
                let follows = one.ended < other.begun
                    || one.begun == other.begun && share_a_stream(&one.append, &other.append);
                let (first, second) = (
                    place_of(&one.append, places)?,
                    place_of(&other.append, places)?,
                );
                if follows && first > second {
                    let (one, other) = (&one.append, &other.append);
                    return Err(Violation(format!("{other:?} overtook {one:?}")));
                }
            }
        }
        Ok(())
    }

    /// Looks for what each conflict was with.
    fn compare_conflicts(
        &self,
        places: &BTreeMap<EventId, Position>,
        prefixes: &[Oracle],
    ) -> Result<(), Violation> {
        let refused = |entry: &&Entry| matches!(entry.outcome, Err(AppendError::Conflict(_)));
        for entry in self.entries.iter().filter(refused) {
            // What was acknowledged before is part of what was met, and nothing that began afterwards is.
            let (mut from, mut to) = (0, u64::MAX);
            for other in &self.entries {
                let Some((first, last)) = place_of(&other.append, places)? else {
                    continue;
                };
                if other.ended < entry.begun && other.outcome.is_ok() {
                    from = from.max(last.get());
                }
                if other.begun > entry.ended && !self.is_retry(other) {
                    to = to.min(first.previous().get());
                }
            }
            let met = prefixes
                .iter()
                .filter(|oracle| (from..=to).contains(&oracle.acknowledged_events()));
            let mut verdicts = met.map(|oracle| oracle.verdict(&entry.append));
            if !verdicts.any(|verdict| verdict == Verdict::Refused) {
                let (append, outcome) = (&entry.append, &entry.outcome);
                return Err(Violation(format!(
                    "{outcome:?} explains nothing: {append:?}"
                )));
            }
        }
        Ok(())
    }

    /// Whether an append was sent before this entry, too.
    fn is_retry(&self, entry: &Entry) -> bool {
        let mut earlier = self
            .entries
            .iter()
            .filter(|other| other.begun < entry.begun);
        earlier.any(|other| other.append == entry.append)
    }
}

/// Compares an outcome with where the append stands, if it does. `is_explained`: another attempt may have written it.
fn compare_outcome(
    entry: &Entry,
    place: Option<(Position, Position)>,
    trouble: bool,
    is_explained: bool,
) -> Result<(), Violation> {
    let wrong = |what: &str| {
        let (append, outcome) = (&entry.append, &entry.outcome);
        Err(Violation(format!(
            "{what}: {outcome:?}, {place:?}, {append:?}"
        )))
    };
    match &entry.outcome {
        Ok(appended) if place == Some((appended.first, appended.last)) => Ok(()),
        Ok(_) => wrong("acknowledged, and not there"),
        Err(AppendError::Conflict(_) | AppendError::Closed) if place.is_none() => Ok(()),
        Err(error) if !error.is_definitely_not_written() && !trouble => {
            wrong("unknown for no reason")
        }
        Err(_) if !trouble && place.is_none() => wrong("refused for no reason"),
        Err(error) if error.is_definitely_not_written() && place.is_some() && !is_explained => {
            wrong("certainly not written, and there")
        }
        Err(_) => Ok(()),
    }
}

/// Where an append stands: all of it, one event behind the other.
fn place_of(
    append: &Append,
    places: &BTreeMap<EventId, Position>,
) -> Result<Option<(Position, Position)>, Violation> {
    let events = append.writes().iter().flat_map(|write| &write.events);
    let found: Vec<_> = events
        .map(|event| places.get(&event.id()).copied())
        .collect();
    let (Some(&first), Some(&last)) = (found.first(), found.last()) else {
        return Ok(None);
    };
    let mut pairs = found.iter().zip(found.iter().skip(1));
    let is_whole = pairs.all(|(one, next)| one.map(Position::next) == *next);
    match (first, last) {
        (Some(first), Some(last)) if is_whole => Ok(Some((first, last))),
        (None, None) if found.iter().all(Option::is_none) => Ok(None),
        _ => Err(Violation(format!(
            "stored in part: {found:?} of {append:?}"
        ))),
    }
}

fn share_a_stream(one: &Append, other: &Append) -> bool {
    let mut streams = one.writes().iter().map(|write| &write.stream);
    streams.any(|stream| other.writes().iter().any(|write| write.stream == *stream))
}
