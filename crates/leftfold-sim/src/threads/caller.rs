//! A caller of a log that others call at the same time.
//!
//! **Owns:** [`Caller`]: what one thread appends and reads, and what it must see at once. **Does not know:** other callers.
//! **Invariants:** what was acknowledged to this caller is there for it to read, behind what was acknowledged to it before.

use std::{
    future::IntoFuture,
    sync::{Arc, Mutex, PoisonError},
};

use leftfold_log::simulated::{AppendError, Log};
use leftfold_model::{
    Append, AppendCondition, CurrentRevision, EventId, EventType, ExpectedRevision, ModelError,
    NewEvent, Position, Query, QueryItem, Read, Revision, StreamName, StreamWrite, Tag, Timestamp,
};
use shuttle::future::block_on;

use super::{Outcome, ledger::Ledger};
use crate::{Rng, Violation};

/// See the module.
#[derive(Debug)]
pub(super) struct Caller {
    number: u64,
    chance: Rng,
    log: Log,
    ledger: Arc<Mutex<Ledger>>,
    events: u64,
    newest: Option<Append>,
}

impl Caller {
    pub(super) fn new(number: u64, chance: Rng, log: Log, ledger: Arc<Mutex<Ledger>>) -> Self {
        Self {
            number,
            chance,
            log,
            ledger,
            events: 0,
            newest: None,
        }
    }

    /// Appends some times, blocking or with tickets.
    pub(super) fn run(mut self) -> Result<(), Violation> {
        for _ in 0..2 + self.chance.below(4) {
            let appends = match self.chance.percent(40) {
                true => (0..1 + self.chance.below(3))
                    .map(|_| self.append())
                    .collect(),
                false => vec![self.append()],
            };
            let begun = self.ledger().tick();
            let outcomes = match self.chance.percent(50) {
                true => self.submit(&appends),
                false => appends.iter().map(|append| self.block(append)).collect(),
            };
            for (append, outcome) in appends.into_iter().zip(outcomes) {
                self.check(&append, &outcome)?;
                self.ledger().note(append, outcome, begun);
            }
        }
        Ok(())
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends and blocks. A panic of the thread that writes ends here, as it ends a thread of a program.
    fn block(&self, append: &Append) -> Outcome {
        let append = || self.log.append(append.clone());
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(append));
        ended.unwrap_or(Err(AppendError::WriterLost))
    }

    /// Appends with tickets, all of which are awaited afterwards.
    fn submit(&self, appends: &[Append]) -> Vec<Outcome> {
        let tickets = appends.iter().map(|append| self.log.submit(append.clone()));
        let tickets: Vec<_> = tickets.collect();
        let answers = tickets.into_iter().map(|ticket| match ticket {
            Ok(ticket) => block_on(ticket.into_future()),
            Err(error) => Err(error),
        });
        answers.collect()
    }

    /// Checks what an acknowledged append promises to its caller.
    fn check(&self, append: &Append, outcome: &Outcome) -> Result<(), Violation> {
        let Ok(appended) = outcome else {
            return Ok(());
        };
        let head = self.log.head();
        if head < appended.last {
            let last = appended.last;
            return Err(Violation(format!(
                "{last} was acknowledged, the head is {head}"
            )));
        }
        let read = Read::all()
            .from_position(appended.first)
            .limit(append.event_count() as u64);
        // A disk that failed or crashed need not be readable.
        let events = self
            .log
            .read(&read)
            .and_then(|mut cursor| cursor.next_batch());
        let Ok(Some(events)) = events else {
            return Ok(());
        };
        let positions = events.iter().map(|event| event.position);
        match positions.max() {
            Some(last) if last > head && last > self.log.head() => {
                Err(Violation(format!("{last} is shown, the head is {head}")))
            }
            _ => Ok(()),
        }
    }

    /// Draws an append: a new one, or the newest again.
    fn append(&mut self) -> Append {
        if let Some(newest) = self.newest.as_ref().filter(|_| self.chance.percent(10)) {
            return newest.clone();
        }
        let first = self.chance.below(3);
        let mut writes = Vec::new();
        for nth in 0..1 + self.chance.below(2) {
            let stream = stream((first + nth) % 3);
            let expected = match self.chance.below(9) {
                0 => ExpectedRevision::NoStream,
                1 => ExpectedRevision::StreamExists,
                2 => ExpectedRevision::Exact(Revision::new(self.chance.below(8))),
                3 | 4 => self.current(&stream),
                _ => ExpectedRevision::Any,
            };
            let events = (0..1 + self.chance.below(2)).map(|_| self.event());
            writes.push(StreamWrite {
                stream,
                expected,
                events: events.collect(),
            });
        }
        let mut append = within_limits(Append::new(writes, Vec::new()));
        if self.chance.percent(20) {
            let revision = ExpectedRevision::Exact(Revision::new(self.chance.below(4)));
            append = within_limits(append.with_check(stream(3), revision));
        }
        if self.chance.percent(50) {
            // What a caller has read: everything, or less.
            let seen = self.log.head().get().saturating_sub(self.chance.below(3));
            let condition = AppendCondition::new(self.query(), Position::new(seen));
            append = within_limits(append.with_condition(condition));
        }
        self.newest = Some(append.clone());
        append
    }

    /// What a caller expects that has just read the stream.
    fn current(&self, stream: &StreamName) -> ExpectedRevision {
        match self.log.revision(stream) {
            Ok(CurrentRevision(Some(last))) => ExpectedRevision::Exact(last),
            _ => ExpectedRevision::NoStream,
        }
    }

    fn event(&mut self) -> NewEvent {
        self.events += 1;
        let number = (self.number + 1) * 1_000 + self.events;
        let event_type = within_limits(EventType::new("T"));
        let tag = within_limits(Tag::new(format!("n:{}", number % 4)));
        let event = NewEvent::json(event_type, format!("{number}"))
            .with_id(EventId::from_bytes(u128::from(number).to_le_bytes()))
            .with_time(Timestamp::from_micros(number));
        within_limits(event.with_tags([tag]))
    }

    fn query(&mut self) -> Query {
        let tag = within_limits(Tag::new(format!("n:{}", self.chance.below(4))));
        let item = QueryItem::new([], [tag]).and_then(|item| Query::items([item]));
        within_limits(item)
    }
}

/// The stream of this number.
pub(super) fn stream(number: u64) -> StreamName {
    within_limits(StreamName::new(format!("s-{number}")))
}

fn within_limits<T>(value: Result<T, ModelError>) -> T {
    match value {
        Ok(value) => value,
        Err(error) => unreachable!("what a simulated caller sends is within limits: {error}"),
    }
}
