//! Which events were part of an append that ended without a known outcome.
//!
//! **Owns:** [`UnknownOutcomes`]. **Does not know:** why an outcome is unknown, and what the store holds.
//! **Invariants:** while an event is remembered, no error of its append says that nothing was written.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use leftfold_model::{Append, Appended, EventId, NewEvent};

use crate::{AppendError, Cause};

/// Maximum number of events that are remembered; the oldest are forgotten first.
const EVENTS_MAX: usize = 65_536;

/// The events of appends whose outcome is unknown, so that a retry that cannot be decided is not said to be unwritten.
///
/// An append may be stored although its caller got [`AppendError::OutcomeUnknown`], or dropped the call. A retry that fails
/// because the store cannot be reached proves nothing about the first attempt. Such a retry ends with
/// [`AppendError::OutcomeUnknown`] too, until the store has acknowledged the events. The newest 65,536 events are remembered,
/// in memory: another process knows nothing of them.
///
/// ```
/// use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
/// use leftfold_store::{AppendError, UnknownOutcomes};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let event = NewEvent::json(EventType::new("DepositMade")?, "{}");
/// let append = Append::to(StreamName::new("account-1")?, ExpectedRevision::Any, vec![event])?;
/// let down = || std::sync::Arc::new(std::io::Error::other("no connection"));
///
/// let outcomes = UnknownOutcomes::default();
/// let first = outcomes.begin(&append).end(Err(AppendError::Unavailable { cause: down() }));
/// assert!(first.is_err_and(|error| error.is_definitely_not_written()));
///
/// let unknown = Err(AppendError::OutcomeUnknown { cause: down() });
/// outcomes.begin(&append).end(unknown).unwrap_err();
/// let retry = outcomes.begin(&append).end(Err(AppendError::Unavailable { cause: down() }));
/// assert!(retry.is_err_and(|error| !error.is_definitely_not_written()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct UnknownOutcomes {
    /// Whether any event was ever remembered: in most processes none is, and then nothing is locked.
    any: AtomicBool,
    events: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    /// The number under which each event was remembered last.
    numbers: HashMap<EventId, u64>,
    /// The same, in order of the numbers.
    ids: BTreeMap<u64, EventId>,
    next: u64,
}

impl Remembered {
    fn insert(&mut self, id: EventId) {
        if let Some(before) = self.numbers.insert(id, self.next) {
            self.ids.remove(&before);
        }
        self.ids.insert(self.next, id);
        self.next += 1;
        if self.ids.len() > EVENTS_MAX
            && let Some((_, oldest)) = self.ids.pop_first()
        {
            self.numbers.remove(&oldest);
        }
    }

    fn remove(&mut self, id: EventId) {
        if let Some(number) = self.numbers.remove(&id) {
            self.ids.remove(&number);
        }
    }
}

/// An attempt to append, under way. Dropped before its end, its outcome counts as unknown.
#[derive(Debug)]
#[must_use = "an attempt without an end counts as one of unknown outcome"]
pub struct AppendAttempt<'a> {
    outcomes: &'a UnknownOutcomes,
    append: &'a Append,
    is_over: bool,
}

impl Drop for AppendAttempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.outcomes.remember(self.append);
        }
    }
}

impl AppendAttempt<'_> {
    /// Ends the attempt with its outcome, and returns what that proves about all attempts so far.
    ///
    /// # Errors
    /// That of `outcome`. An error that says that the attempt was not carried out becomes [`AppendError::OutcomeUnknown`]
    /// while an event of the append is remembered; the attempt's error is its source. A conflict stays: the store has looked
    /// at the events.
    pub fn end(mut self, outcome: Result<Appended, AppendError>) -> Result<Appended, AppendError> {
        self.is_over = true;
        let (outcomes, append) = (self.outcomes, self.append);
        match outcome {
            Ok(appended) => {
                outcomes.forget(append);
                Ok(appended)
            }
            Err(error @ AppendError::OutcomeUnknown { .. }) => {
                outcomes.remember(append);
                Err(error)
            }
            Err(error @ (AppendError::Conflict(_) | AppendError::Invalid { .. })) => Err(error),
            Err(refused) if !outcomes.remembers(append) => Err(refused),
            Err(AppendError::Unavailable { cause }) => Err(AppendError::OutcomeUnknown { cause }),
            Err(refused) => Err(AppendError::OutcomeUnknown {
                cause: Cause::from(Box::from(refused)),
            }),
        }
    }
}

impl UnknownOutcomes {
    /// Begins an attempt to append.
    pub fn begin<'a>(&'a self, append: &'a Append) -> AppendAttempt<'a> {
        AppendAttempt {
            outcomes: self,
            append,
            is_over: false,
        }
    }

    fn remember(&self, append: &Append) {
        let mut events = self.lock();
        for event in events_of(append) {
            events.insert(event);
        }
        self.any.store(true, Ordering::SeqCst);
    }

    fn forget(&self, append: &Append) {
        if self.any.load(Ordering::SeqCst) {
            let mut events = self.lock();
            for event in events_of(append) {
                events.remove(event);
            }
        }
    }

    fn remembers(&self, append: &Append) -> bool {
        self.any.load(Ordering::SeqCst) && {
            let events = self.lock();
            events_of(append).any(|id| events.numbers.contains_key(&id))
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        // Only ids are moved under the lock: nothing is half done after a panic.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn events_of(append: &Append) -> impl Iterator<Item = EventId> {
    let writes = append.writes().iter();
    writes.flat_map(|write| write.events.iter().map(NewEvent::id))
}

#[cfg(test)]
#[path = "unknown_outcomes/tests.rs"]
mod tests;
