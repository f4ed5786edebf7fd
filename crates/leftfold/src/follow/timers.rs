//! The timers of a consumer that are due.
//!
//! **Owns:** [`DueTimers`]: which timers are under way, which failed, and when to read the store again.
//! **Does not know:** what a timer means. **Invariants:** a timer is under way once at a time; a failed one is retried after
//! growing pauses, without limit; all of this can be read again from the store.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use leftfold_model::Timestamp;
use leftfold_store::consumers::{LIST_MAX, Timer};
use tokio::time::Instant;

use super::settings::Backoff;

/// Interval between two looks for due timers, while one may be due.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Timers of a page that may not be the last one: every store returns so many at least if it has them.
const PAGE_LEAST: usize = 64;

/// Pauses before a failed timer is retried.
const AGAIN: Backoff = Backoff {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(60),
    attempts: u32::MAX,
};

/// The timers of a consumer, as far as they concern the present run.
#[derive(Debug)]
pub(super) struct DueTimers {
    under_way: HashSet<String>,
    failed: HashMap<String, (u32, Instant)>,
    /// None is due before this; `None`: none is set.
    next: Option<Timestamp>,
}

impl DueTimers {
    pub(super) fn new() -> Self {
        Self {
            under_way: HashSet::new(),
            failed: HashMap::new(),
            next: Some(Timestamp::from_micros(0)),
        }
    }

    /// Whether timers have to be looked for.
    pub(super) fn may_be_due(&self, now: Timestamp) -> bool {
        let retry_is_due = || self.failed.keys().any(|id| self.is_ready(id));
        let is_due = self.next.is_some_and(|next| next <= now) || retry_is_due();
        is_due && self.under_way.len() < LIST_MAX
    }

    /// Notes that a timer was set.
    pub(super) fn set(&mut self, due: Timestamp) {
        self.next = Some(self.next.map_or(due, |next| next.min(due)));
    }

    /// Returns those of the earliest timers that start now.
    pub(super) fn take_due(&mut self, earliest: Vec<Timer>, now: Timestamp) -> Vec<Timer> {
        let is_all = earliest.len() < PAGE_LEAST;
        self.next = match earliest.iter().find(|timer| timer.due > now) {
            Some(later) => Some(later.due),
            None if is_all => None,
            None => Some(now),
        };
        let mut due = earliest;
        due.retain(|timer| timer.due <= now);
        if is_all {
            // A timer that was cancelled or moved is not retried.
            let known: HashSet<&str> = due.iter().map(|timer| timer.id.as_str()).collect();
            self.failed.retain(|id, _| known.contains(id.as_str()));
        }
        due.retain(|timer| self.is_ready(&timer.id));
        due
    }

    fn is_ready(&self, id: &str) -> bool {
        let paused = |&(_, until): &(u32, Instant)| Instant::now() < until;
        !self.under_way.contains(id) && !self.failed.get(id).is_some_and(paused)
    }

    pub(super) fn begin(&mut self, id: &str) {
        self.under_way.insert(id.to_owned());
    }

    /// Notes that the handler of a timer ended, or that the timer waits for another time.
    pub(super) fn end(&mut self, id: &str, failed: bool) {
        self.under_way.remove(id);
        if failed {
            let failures = self.failed.get(id).map_or(0, |(failures, _)| *failures) + 1;
            let until = Instant::now() + AGAIN.pause(failures);
            self.failed.insert(id.to_owned(), (failures, until));
        } else {
            self.failed.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(id: &str, due: u64) -> Timer {
        Timer {
            id: id.to_owned(),
            due: Timestamp::from_micros(due),
            data: Vec::new().into(),
        }
    }

    fn ids(timers: &[Timer]) -> Vec<&str> {
        timers.iter().map(|timer| timer.id.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_is_told_of_when_due_and_not_while_under_way_or_paused() {
        let now = Timestamp::from_micros(10);
        let mut timers = DueTimers::new();
        assert!(timers.may_be_due(now), "what is set is not known at first");
        let all = || vec![timer("a", 5), timer("b", 10), timer("c", 11)];
        assert_eq!(ids(&timers.take_due(all(), now)), ["a", "b"]);
        assert!(!timers.may_be_due(now), "the next is later");
        timers.begin("a");
        timers.end("b", true);
        assert!(!timers.may_be_due(now), "one is under way, one pauses");
        assert!(timers.take_due(all(), now).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(timers.may_be_due(now), "the pause is over");
        assert_eq!(ids(&timers.take_due(all(), now)), ["b"]);
        timers.set(Timestamp::from_micros(3));
        assert!(timers.may_be_due(now));
        assert!(timers.take_due(Vec::new(), now).is_empty());
        assert!(!timers.may_be_due(Timestamp::from_micros(u64::MAX)));
    }
}
