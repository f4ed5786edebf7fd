//! The timers of a consumer that are due next.
//!
//! **Owns:** [`DueTimers`]: the earliest timers in memory, which are under way, which failed, and when to read more of them.
//! **Does not know:** what a timer means, how the store is read.
//! **Invariants:** up to a place in the order of timers, all that the store has are here, with the changes that are not written
//! yet; a timer is under way once at a time; a failed one is retried after growing pauses, without limit; memory is bounded; all
//! of this can be read again from the store.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use leftfold_model::Timestamp;
use leftfold_store::consumers::{ConsumerChange, LIST_MAX, Timer};
use tokio::time::Instant;

use super::settings::Backoff;

/// Interval between two looks for due timers.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Pauses before a failed timer is retried.
const AGAIN: Backoff = Backoff {
    initial: Duration::from_millis(500),
    max: Duration::from_secs(60),
    attempts: u32::MAX,
};

/// Timers that wait in memory, at most.
const WAITING_MAX: usize = 10_000;
/// Timers of a page that may not be the last one: a store returns so many at least if it has them.
const PAGE_LEAST: usize = 64;
/// How long before the last known timer is due more of them are read.
const AHEAD: Duration = Duration::from_secs(1);
/// Pause between two reads of which the first one brought nothing new.
const NOTHING_NEW: Duration = Duration::from_millis(500);

/// A timer's place in the order in which timers are due.
type Due = (Timestamp, String);

/// The timers of a consumer, as far as they concern the present run.
#[derive(Debug)]
pub(super) struct DueTimers {
    waiting: BTreeMap<Due, Timer>,
    /// When those that wait are due.
    due_of: HashMap<String, Timestamp>,
    under_way: HashMap<String, Timer>,
    /// Those that failed, and are retried then.
    paused: HashMap<String, (Instant, Timer)>,
    failures: HashMap<String, u32>,
    /// The last place up to which all timers are known; `None`: all timers are.
    known: Option<Due>,
    /// The number of timers that the last read returned.
    page: usize,
    /// No read before this: the last one brought nothing new.
    not_before: Option<Instant>,
}

impl DueTimers {
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            due_of: HashMap::new(),
            under_way: HashMap::new(),
            paused: HashMap::new(),
            failures: HashMap::new(),
            known: Some((Timestamp::from_micros(0), String::new())),
            page: LIST_MAX,
            not_before: None,
        }
    }

    /// Whether more timers have to be read.
    pub(super) fn wants_page(&self, now: Timestamp) -> bool {
        let ahead = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX);
        let soon = now.as_micros().saturating_add(ahead);
        let is_near = |known: &Due| known.0.as_micros() <= soon;
        self.known.as_ref().is_some_and(is_near)
            && self.waiting.len() <= self.page / 4 * 3
            && self.not_before.is_none_or(|then| Instant::now() >= then)
    }

    /// Takes the earliest timers of the store, as they are before the changes that are not written yet.
    pub(super) fn take_page(&mut self, page: Vec<Timer>) {
        let last = page.last().map(|last| (last.due, last.id.clone()));
        let is_whole = page.len() < PAGE_LEAST;
        let is_new = self.known < last;
        self.known = last.filter(|_| !is_whole);
        self.page = page.len();
        self.not_before = (!is_new && !is_whole).then(|| Instant::now() + NOTHING_NEW);
        self.waiting.clear();
        self.due_of.clear();
        for timer in page {
            self.insert(timer);
        }
    }

    /// Takes a change of a timer.
    pub(super) fn change(&mut self, change: &ConsumerChange) {
        match change {
            ConsumerChange::SetTimer(timer) => {
                self.remove(&timer.id);
                self.insert(timer.clone());
            }
            ConsumerChange::CancelTimer(id) => {
                self.remove(id);
                self.paused.remove(id);
                self.failures.remove(id);
            }
            ConsumerChange::Park(_) | ConsumerChange::Unpark(_) => {}
        }
    }

    fn insert(&mut self, timer: Timer) {
        if self.under_way.contains_key(&timer.id) || self.paused.contains_key(&timer.id) {
            return;
        }
        let due = (timer.due, timer.id.clone());
        if self.known.as_ref().is_some_and(|known| due > *known) {
            return;
        }
        self.due_of.insert(timer.id.clone(), timer.due);
        self.waiting.insert(due, timer);
        if self.waiting.len() > WAITING_MAX {
            // The store has it.
            self.waiting
                .pop_last()
                .map(|((_, id), _)| self.due_of.remove(&id));
            self.known = self.waiting.last_key_value().map(|(due, _)| due.clone());
        }
    }

    fn remove(&mut self, id: &str) {
        if let Some((id, due)) = self.due_of.remove_entry(id) {
            self.waiting.remove(&(due, id));
        }
    }

    /// Returns those that are due, which are under way from then on.
    pub(super) fn begin_due(&mut self, now: Timestamp) -> Vec<Timer> {
        let mut begun = Vec::new();
        if !self.paused.is_empty() {
            let present = Instant::now();
            let is_over = |_: &String, (until, _): &mut (Instant, Timer)| *until <= present;
            begun.extend(self.paused.extract_if(is_over).map(|(_, (_, timer))| timer));
        }
        while self.under_way.len() + begun.len() < LIST_MAX
            && let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            let timer = first.remove();
            self.due_of.remove(&timer.id);
            begun.push(timer);
        }
        let under_way = begun.iter().map(|timer| (timer.id.clone(), timer.clone()));
        self.under_way.extend(under_way);
        begun
    }

    /// Notes that the handler of a timer ended, or that the timer waits for another time.
    pub(super) fn end(&mut self, id: &str, failed: bool) {
        self.not_before = None;
        let Some(timer) = self.under_way.remove(id) else {
            return;
        };
        if failed {
            let failures = self.failures.entry(timer.id.clone()).or_default();
            *failures += 1;
            let until = Instant::now() + AGAIN.pause(*failures);
            self.paused.insert(timer.id.clone(), (until, timer));
        } else {
            self.failures.remove(id);
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

    fn set(id: &str, due: u64) -> ConsumerChange {
        ConsumerChange::SetTimer(timer(id, due))
    }

    fn cancel(id: &str) -> ConsumerChange {
        ConsumerChange::CancelTimer(id.to_owned())
    }

    fn begun(timers: &mut DueTimers, now: u64) -> Vec<String> {
        let begun = timers.begin_due(Timestamp::from_micros(now));
        begun.into_iter().map(|timer| timer.id).collect()
    }

    fn wants_page(timers: &DueTimers, now: u64) -> bool {
        timers.wants_page(Timestamp::from_micros(now))
    }

    /// The timers with these numbers, each due then.
    fn page(of: std::ops::Range<u64>) -> Vec<Timer> {
        of.map(|nth| timer(&format!("t{nth:05}"), nth)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_begins_when_due_and_not_while_under_way_or_paused() {
        let mut timers = DueTimers::new();
        assert!(wants_page(&timers, 10), "what is set is not known at first");
        timers.take_page(vec![timer("a", 5), timer("b", 10), timer("c", 11)]);
        assert!(!wants_page(&timers, 10), "all are known");
        assert_eq!(begun(&mut timers, 10), ["a", "b"]);
        assert!(begun(&mut timers, 10).is_empty(), "the next is later");
        timers.end("b", true);
        timers.change(&set("a", 5));
        assert!(
            begun(&mut timers, 10).is_empty(),
            "one is under way, one pauses"
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(begun(&mut timers, 10), ["b"], "the pause is over");
        timers.end("b", true);
        timers.change(&cancel("b"));
        timers.change(&set("d", 3));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(
            begun(&mut timers, 10),
            ["d"],
            "what was cancelled is not retried"
        );
        timers.change(&set("c", 20));
        assert!(begun(&mut timers, 19).is_empty(), "it was moved");
        assert_eq!(begun(&mut timers, 20), ["c"]);
    }

    #[test]
    fn timers_behind_a_page_are_read_before_they_are_due_and_are_not_told_of_before() {
        let mut timers = DueTimers::new();
        timers.take_page(page(0..100));
        // It stands behind what is known, so others may stand in front of it.
        timers.change(&set("later", 5_000_000));
        assert_eq!(begun(&mut timers, 4_000_000).len(), 100);
        assert!(begun(&mut timers, 6_000_000).is_empty());
        assert!(wants_page(&timers, 4_000_000));
        // Those under way are in the store until their end is written.
        let mut next = page(0..100);
        next.extend([timer("earlier", 4_500_000), timer("later", 5_000_000)]);
        timers.take_page(next);
        assert_eq!(begun(&mut timers, 6_000_000), ["earlier", "later"]);
    }

    /// A server returns 64 in a page, however many there are.
    #[tokio::test(start_paused = true)]
    async fn a_page_that_brings_nothing_new_is_read_again_after_a_pause_or_an_end() {
        let mut timers = DueTimers::new();
        timers.take_page(page(0..64));
        assert_eq!(begun(&mut timers, 100).len(), 64);
        assert!(wants_page(&timers, 100), "there may be more");
        timers.take_page(page(0..64));
        assert!(begun(&mut timers, 100).is_empty());
        assert!(!wants_page(&timers, 100), "all of them are under way");
        timers.end("t00000", false);
        timers.change(&cancel("t00000"));
        assert!(wants_page(&timers, 100));
        timers.take_page(page(1..65));
        assert_eq!(begun(&mut timers, 100), ["t00064"]);
        timers.take_page(page(1..65));
        assert!(!wants_page(&timers, 100));
        tokio::time::advance(NOTHING_NEW).await;
        assert!(wants_page(&timers, 100));
        timers.take_page(page(1..64));
        tokio::time::advance(NOTHING_NEW).await;
        assert!(!wants_page(&timers, 100), "a shorter page is the last one");
    }

    #[test]
    fn memory_is_bounded_and_what_is_not_kept_is_read_later() {
        let mut timers = DueTimers::new();
        timers.take_page(Vec::new());
        let all = WAITING_MAX as u64 + 100;
        for timer in page(0..all).into_iter().rev() {
            timers.change(&ConsumerChange::SetTimer(timer));
        }
        assert_eq!(timers.waiting.len(), WAITING_MAX);
        assert_eq!(timers.due_of.len(), WAITING_MAX);
        let mut last = 0;
        let mut ended = 0;
        while ended < all {
            if wants_page(&timers, all) {
                timers.take_page(page(ended..all.min(ended + LIST_MAX as u64)));
            }
            for id in begun(&mut timers, all) {
                let nth = id.trim_start_matches('t').parse::<u64>().unwrap();
                assert_eq!(nth, last, "in order, none left out");
                last += 1;
                timers.end(&id, false);
                timers.change(&cancel(&id));
                ended += 1;
            }
        }
        assert!(begun(&mut timers, all).is_empty());
    }
}
