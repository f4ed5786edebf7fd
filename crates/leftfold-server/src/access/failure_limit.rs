//! A limit on how often authentication fails.
//!
//! **Owns:** [`FailureLimiter`]: token buckets by key. **Does not know:** what the keys are, what is authenticated.
//! **Invariants:** memory is bounded; when there are too many keys, those are forgotten that failed least lately.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Keys that are remembered, at most.
const KEYS_MAX: usize = 16 * 1024;

/// Failures that each key may have: so many at once, and one more in each interval.
#[derive(Debug)]
pub(super) struct FailureLimiter<K> {
    burst: u32,
    refill: Duration,
    /// For each key the time at which its last failure is forgiven.
    forgiven: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash + Clone> FailureLimiter<K> {
    pub(super) fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            forgiven: Mutex::default(),
        }
    }

    /// How long a key must wait before its next attempt; `None`: it need not.
    pub(super) fn wait(&self, key: &K) -> Option<Duration> {
        let forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = forgiven.get(key)?.checked_duration_since(Instant::now())?;
        let allowed = self.refill * (self.burst - 1);
        owed.checked_sub(allowed).filter(|wait| !wait.is_zero())
    }

    /// Notes a failure.
    pub(super) fn note(&self, key: &K) {
        let mut forgiven = self.forgiven.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if forgiven.len() >= KEYS_MAX && !forgiven.contains_key(key) {
            forgiven.retain(|_, until| *until > now);
            if forgiven.len() >= KEYS_MAX
                && let Some(oldest) = forgiven.iter().min_by_key(|(_, until)| **until)
            {
                let oldest = oldest.0.clone();
                forgiven.remove(&oldest);
            }
        }
        let until = forgiven.entry(key.clone()).or_insert(now);
        *until = (*until).max(now) + self.refill;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_that_fails_too_often_waits_and_others_do_not() {
        let limiter = FailureLimiter::new(3, Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(limiter.wait(&"a"), None);
            limiter.note(&"a");
        }
        assert_eq!(limiter.wait(&"a"), Some(Duration::from_secs(10)));
        assert_eq!(limiter.wait(&"b"), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(limiter.wait(&"a"), None);
        limiter.note(&"a");
        assert!(limiter.wait(&"a").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_keys_that_are_remembered_is_bounded() {
        let limiter = FailureLimiter::new(1, Duration::from_secs(10));
        for key in 0..KEYS_MAX + 100 {
            limiter.note(&key);
        }
        assert!(limiter.forgiven.lock().unwrap().len() <= KEYS_MAX);
        assert!(
            limiter.wait(&(KEYS_MAX + 99)).is_some(),
            "the newest one is remembered"
        );
    }
}
