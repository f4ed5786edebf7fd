//! The oracle: what the log must contain, and whether it does.
//!
//! **Owns:** [`Oracle`]: every acknowledged append, and those of unknown outcome. **Does not know:** disks.
//! **Invariants:**
//! - After a recovery the log is all acknowledged appends, then a prefix of those of unknown outcome, each whole.
//! - An append that a reader has seen counts as acknowledged from then on.
//! - Only truncated events may be missing, and they must be missing once a scavenge reported them erased.

use std::collections::BTreeMap;

use leftfold_log::Truncation;
use leftfold_model::{Append, CurrentRevision, Position, RecordedEvent, Revision, StreamName};

/// A violated promise, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The outcome that an append must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The append is allowed.
    Written,
    /// The events of the append are stored already.
    Repeated {
        /// Position of the first event.
        first: Position,
        /// Position of the last event.
        last: Position,
    },
    /// The append conflicts with stored events.
    Refused,
}

/// The expected content of the log.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    acked: Vec<RecordedEvent>,
    open: Vec<Append>,
    truncations: Vec<Erased>,
}

/// The truncated events of a stream.
#[derive(Clone, Debug)]
struct Erased {
    truncation: Truncation,
    /// Those up to here are certainly gone.
    through: Position,
}

impl Erased {
    fn covers(&self, event: &RecordedEvent) -> bool {
        event.stream == self.truncation.stream && event.revision < self.truncation.before
    }
}

impl Oracle {
    /// Returns the number of acknowledged events.
    #[must_use]
    pub fn acknowledged_events(&self) -> u64 {
        self.acked.len() as u64
    }

    /// Records an acknowledged append: its events follow all others.
    ///
    /// # Errors
    /// [`Violation`] if the log gave it another place.
    pub fn acknowledged(
        &mut self,
        append: &Append,
        first: Position,
        last: Position,
    ) -> Result<(), Violation> {
        let expected = Position::new(self.acknowledged_events()).next();
        let end = expected
            .saturating_add(append.event_count() as u64)
            .previous();
        if (first, last) != (expected, end) {
            return Err(Violation(format!(
                "acknowledged at {first} to {last}, not at {expected} to {end}"
            )));
        }
        self.take(append);
        Ok(())
    }

    /// Records an append of unknown outcome.
    pub fn outcome_unknown(&mut self, append: Append) {
        self.open.push(append);
    }

    fn take(&mut self, append: &Append) {
        for write in append.writes() {
            for event in &write.events {
                let revision = Revision::new(self.events_of(&write.stream));
                self.acked.push(RecordedEvent {
                    position: Position::new(self.acknowledged_events()).next(),
                    stream: write.stream.clone(),
                    revision,
                    id: event.id(),
                    event_type: event.event_type().clone(),
                    content_type: event.content_type(),
                    data: event.data().clone(),
                    metadata: event.metadata().clone(),
                    tags: event.tags().to_vec(),
                    time: event.time().unwrap_or_default(),
                });
            }
        }
    }

    /// Decides an append by all acknowledged events, independently of the engine and in the order of docs/queries.md.
    #[must_use]
    pub fn verdict(&self, append: &Append) -> Verdict {
        if let Some(verdict) = self.repetition(append) {
            return verdict;
        }
        let current = |events: u64| CurrentRevision(events.checked_sub(1).map(Revision::new));
        let mut before: BTreeMap<&StreamName, u64> = BTreeMap::new();
        for write in append.writes() {
            let events = before.entry(&write.stream);
            let events = events.or_insert_with(|| self.events_of(&write.stream));
            if !write.expected.allows(current(*events)) {
                return Verdict::Refused;
            }
            *events += write.events.len() as u64;
        }
        let mut checks = append.checks().iter();
        if checks.any(|check| {
            !check
                .expected
                .allows(current(self.events_of(&check.stream)))
        }) {
            return Verdict::Refused;
        }
        let fails = append.conditions().iter().any(|condition| {
            let after = condition.after.seen_through();
            let mut unseen = self.acked.iter().filter(|event| event.position > after);
            let query = &condition.fail_if_match;
            unseen.any(|event| query.matches(&event.event_type, &event.tags))
        });
        match fails {
            true => Verdict::Refused,
            false => Verdict::Written,
        }
    }

    /// Decides an append of which at least one event is stored already.
    fn repetition(&self, append: &Append) -> Option<Verdict> {
        let (mut found, mut is_complete) = (Vec::new(), true);
        for write in append.writes() {
            let mut expected = write.expected.next_revision();
            for event in &write.events {
                // An id that stands twice is known where it stands last.
                let stored = self.acked.iter().rfind(|stored| stored.id == event.id());
                let Some(stored) = stored else {
                    is_complete = false;
                    continue;
                };
                is_complete &= stored.stream == write.stream
                    && expected.is_none_or(|expected| expected == stored.revision);
                expected = Some(stored.revision.next());
                found.push(stored.position);
            }
        }
        let (first, last) = (*found.first()?, *found.last()?);
        let mut pairs = found.iter().zip(found.iter().skip(1));
        match is_complete && pairs.all(|(one, next)| one.next() == *next) {
            true => Some(Verdict::Repeated { first, last }),
            false => Some(Verdict::Refused),
        }
    }

    /// How many events a stream has.
    #[must_use]
    pub fn events_of(&self, stream: &StreamName) -> u64 {
        self.acked
            .iter()
            .filter(|event| event.stream == *stream)
            .count() as u64
    }

    /// Records that events below these truncations may be missing from now on.
    pub fn may_erase(&mut self, truncations: &[Truncation]) {
        let through = Position::START;
        let truncations = truncations.iter().cloned();
        self.truncations
            .extend(truncations.map(|truncation| Erased {
                truncation,
                through,
            }));
    }

    /// Records that events below these truncations are erased, up to `through`.
    pub fn erased(&mut self, truncations: &[Truncation], through: Position) {
        let truncations = truncations.iter().cloned();
        self.truncations
            .extend(truncations.map(|truncation| Erased {
                truncation,
                through,
            }));
    }

    /// Returns the recorded truncations.
    #[must_use]
    pub fn truncations(&self) -> Vec<Truncation> {
        self.truncations
            .iter()
            .map(|erased| erased.truncation.clone())
            .collect()
    }

    /// Checks the log after a recovery: its head and its events.
    ///
    /// # Errors
    /// [`Violation`] if an acknowledged event is lost or changed, or an open append is there in part or out of order.
    pub fn recovered(&mut self, head: Position, events: &[RecordedEvent]) -> Result<(), Violation> {
        for append in std::mem::take(&mut self.open) {
            if head.get() <= self.acknowledged_events() {
                break;
            }
            // One that was refused, or found to be stored, has an unknown outcome too if its group failed.
            if self.verdict(&append) == Verdict::Written {
                self.take(&append);
            }
        }
        if head.get() != self.acknowledged_events() {
            return Err(Violation(format!(
                "the head is {head}, {} were acknowledged",
                self.acknowledged_events()
            )));
        }
        self.check_log(events)
    }

    /// Checks that the log holds exactly the acknowledged events.
    ///
    /// # Errors
    /// [`Violation`] if they are not exactly those acknowledged.
    pub fn check_log(&self, events: &[RecordedEvent]) -> Result<(), Violation> {
        self.compare(self.acked.iter(), events)
    }

    /// Checks that a stream holds exactly its acknowledged events.
    ///
    /// # Errors
    /// [`Violation`] if they are not exactly those acknowledged.
    pub fn stream_holds(
        &self,
        stream: &StreamName,
        events: &[RecordedEvent],
    ) -> Result<(), Violation> {
        let of_stream = self.acked.iter().filter(|event| event.stream == *stream);
        self.compare(of_stream, events)
    }

    /// Checks what a read returned that began at this head, some time ago: what was erased since may be there or not.
    ///
    /// # Errors
    /// [`Violation`] if its events are not those acknowledged up to there.
    pub fn check_prefix(&self, head: Position, events: &[RecordedEvent]) -> Result<(), Violation> {
        let mut earlier = self.clone();
        for erased in &mut earlier.truncations {
            erased.through = Position::START;
        }
        let of_prefix = self.acked.iter().filter(|event| event.position <= head);
        earlier.compare(of_prefix, events)
    }

    fn compare<'a>(
        &self,
        expected: impl Iterator<Item = &'a RecordedEvent>,
        events: &[RecordedEvent],
    ) -> Result<(), Violation> {
        let mut found = events.iter().peekable();
        for expected in expected {
            let mut truncations = self
                .truncations
                .iter()
                .filter(|erased| erased.covers(expected));
            let Some(found) = found.next_if(|found| found.position == expected.position) else {
                if truncations.next().is_some() {
                    continue;
                }
                return Err(Violation(format!("event {} is missing", expected.position)));
            };
            if truncations.any(|erased| expected.position <= erased.through) {
                return Err(Violation(format!(
                    "event {} is not erased",
                    expected.position
                )));
            }
            // The recorded time is the store's own.
            if (RecordedEvent {
                time: expected.time,
                ..found.clone()
            }) != *expected
            {
                return Err(Violation(format!(
                    "event {} is {found:?}, not {expected:?}",
                    expected.position
                )));
            }
        }
        match found.next() {
            Some(more) => Err(Violation(format!(
                "event {} of {} is there, {} were acknowledged",
                more.position,
                more.stream,
                self.acked.len()
            ))),
            None => Ok(()),
        }
    }
}
