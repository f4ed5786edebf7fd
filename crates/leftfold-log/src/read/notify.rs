//! Notifying followers of commits, by the terms they wait for.
//!
//! **Owns:** [`CommitNotifier`], [`TermWaiter`], [`TouchedTerms`]. **Does not know:** what is committed, how followers read.
//! **Invariants:** a follower that registers for a term and then loads the view misses no commit of an event with that term,
//! because a commit publishes the view before it looks up the waiters. Spurious wake-ups are allowed. They happen when hashes
//! collide, when a group is large, or when the group began before the first waiter registered.
//!
//! Without this, each commit would wake every follower, and a thousand idle ones would cost more than the appends.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use event_listener::{Event, EventListener};
use foldhash::fast::RandomState;

/// Maximum recorded terms of a group. More: each commit looks up more; fewer: large groups wake all followers sooner.
const TOUCHED_MAX: usize = 4_096;

/// The followers that wait for commits.
#[derive(Debug, Default)]
pub(crate) struct CommitNotifier {
    /// Those that wait for every commit.
    all: Event,
    /// Those that wait for some terms, by the hashes of these.
    watched: Mutex<HashMap<u64, Vec<Arc<Event>>, RandomState>>,
    /// How many of them there are.
    watching: AtomicUsize,
    hasher: RandomState,
}

/// The terms of the events of a group.
#[derive(Debug, Default)]
pub(crate) enum TouchedTerms {
    /// Not recorded.
    #[default]
    Any,
    /// Their hashes, some of them twice.
    Terms(Vec<u64>),
}

impl CommitNotifier {
    fn watched(&self) -> MutexGuard<'_, HashMap<u64, Vec<Arc<Event>>, RandomState>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, term: &[u8]) -> u64 {
        self.hasher.hash_one(term)
    }

    /// Resolves with the next commit, or when the log is closed.
    pub(crate) fn listen(&self) -> EventListener {
        self.all.listen()
    }

    /// Registers a waiter for these terms.
    pub(crate) fn watch<'a>(self: &Arc<Self>, terms: impl Iterator<Item = &'a [u8]>) -> TermWaiter {
        let mut hashes: Vec<u64> = terms.map(|term| self.hash(term)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let event = Arc::new(Event::new());
        let mut watched = self.watched();
        for hash in &hashes {
            let watchers = watched.entry(*hash).or_default();
            watchers.push(Arc::clone(&event));
        }
        self.watching.fetch_add(1, Ordering::Relaxed);
        drop(watched);
        TermWaiter {
            notifier: Arc::clone(self),
            hashes,
            event,
        }
    }

    /// Returns an empty list for the terms of the next group.
    pub(crate) fn touched(&self) -> TouchedTerms {
        if self.watching.load(Ordering::Relaxed) == 0 {
            return TouchedTerms::Any;
        }
        TouchedTerms::Terms(Vec::new())
    }

    /// Records that the group has an event with this term.
    pub(crate) fn touch(&self, touched: &mut TouchedTerms, term: &[u8]) {
        if let TouchedTerms::Terms(hashes) = touched {
            if hashes.len() < TOUCHED_MAX {
                hashes.push(self.hash(term));
            } else {
                *touched = TouchedTerms::Any;
            }
        }
    }

    /// Wakes the followers that a commit may concern. Its view must be published already.
    pub(crate) fn wake(&self, touched: &TouchedTerms) {
        self.all.notify(usize::MAX);
        match touched {
            TouchedTerms::Any => self.wake_watchers(),
            TouchedTerms::Terms(hashes) => {
                let watched = self.watched();
                for watcher in hashes.iter().filter_map(|hash| watched.get(hash)).flatten() {
                    watcher.notify(usize::MAX);
                }
            }
        }
    }

    /// Wakes all followers.
    pub(crate) fn wake_all(&self) {
        self.all.notify(usize::MAX);
        self.wake_watchers();
    }

    fn wake_watchers(&self) {
        for watcher in self.watched().values().flatten() {
            watcher.notify(usize::MAX);
        }
    }
}

/// A follower's registration for some terms; dropping it ends the registration.
#[derive(Debug)]
pub(crate) struct TermWaiter {
    notifier: Arc<CommitNotifier>,
    hashes: Vec<u64>,
    event: Arc<Event>,
}

impl TermWaiter {
    /// Resolves with the next commit of an event with one of the terms, or when the log is closed.
    pub(crate) fn listen(&self) -> EventListener {
        self.event.listen()
    }
}

impl Drop for TermWaiter {
    fn drop(&mut self) {
        let mut watched = self.notifier.watched();
        for hash in &self.hashes {
            if let Some(watchers) = watched.get_mut(hash) {
                watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.event));
                if watchers.is_empty() {
                    watched.remove(hash);
                }
            }
        }
        self.notifier.watching.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use event_listener::Listener;

    use super::*;

    fn watch(notifier: &Arc<CommitNotifier>, terms: &[&str]) -> TermWaiter {
        notifier.watch(terms.iter().map(|term| term.as_bytes()))
    }

    fn is_woken(listener: EventListener) -> bool {
        listener.wait_timeout(Duration::ZERO).is_some()
    }

    #[test]
    fn a_commit_wakes_those_who_watch_its_terms_and_those_who_want_to_know_of_all() {
        let notifier = Arc::new(CommitNotifier::default());
        let (a, b) = (watch(&notifier, &["a", "x"]), watch(&notifier, &["b"]));
        let mut touched = notifier.touched();
        notifier.touch(&mut touched, b"a");
        let (all, of_a, of_b) = (notifier.listen(), a.listen(), b.listen());
        notifier.wake(&touched);
        assert!(is_woken(all) && is_woken(of_a) && !is_woken(of_b));
    }

    #[test]
    fn a_group_begun_before_anybody_watched_wakes_everybody() {
        let notifier = Arc::new(CommitNotifier::default());
        let mut touched = notifier.touched();
        let late = watch(&notifier, &["a"]);
        notifier.touch(&mut touched, b"a");
        let woken = late.listen();
        notifier.wake(&touched);
        assert!(is_woken(woken));
    }

    #[test]
    fn a_large_group_wakes_everybody() {
        let notifier = Arc::new(CommitNotifier::default());
        let watch = watch(&notifier, &["none of them"]);
        let mut touched = notifier.touched();
        for term in 0..=TOUCHED_MAX {
            notifier.touch(&mut touched, term.to_string().as_bytes());
        }
        let woken = watch.listen();
        notifier.wake(&touched);
        assert!(is_woken(woken));
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let notifier = Arc::new(CommitNotifier::default());
        let (a, b) = (watch(&notifier, &["a", "b"]), watch(&notifier, &["b"]));
        drop(a);
        assert_eq!(notifier.watched().len(), 1);
        drop(b);
        assert!(notifier.watched().is_empty());
        assert!(matches!(notifier.touched(), TouchedTerms::Any));
    }
}
