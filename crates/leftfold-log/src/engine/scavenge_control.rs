//! Cancelling and rate-limiting a scavenge.
//!
//! **Owns:** [`ScavengeControl`] and [`RateLimiter`]. **Does not know:** segments, or what is erased.
//! **Invariants:** at most one segment is rewritten at a time; after [`ScavengeControl::stop`] none is.

use std::{
    cell::Cell,
    sync::{PoisonError, TryLockError},
    time::Duration,
};

use super::sync::{Condvar, Mutex, MutexGuard};
use crate::scavenge::ScavengeError;

/// Shortest sleep. Shorter waits add up until they are as long, because threads cannot sleep so shortly.
const PAUSE: Duration = Duration::from_millis(20);

/// Serialises the rewriting of segments, and cancels it when the log closes.
#[derive(Debug, Default)]
pub(crate) struct ScavengeControl {
    /// Held for one segment.
    one_at_a_time: Mutex<()>,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl ScavengeControl {
    fn stopped(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires the right to rewrite one segment.
    pub(super) fn segment(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Acquires the right to rewrite one segment, unless another thread has it.
    pub(super) fn try_segment(&self) -> Option<MutexGuard<'_, ()>> {
        match self.one_at_a_time.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Cancels a scavenge in progress, waits until it holds no files, and lets none begin afterwards.
    pub(super) fn stop(&self) {
        *self.stopped() = true;
        self.changed.notify_all();
        drop(self.segment());
    }

    /// Sleeps for `pause`; returns an error as soon as the scavenge is cancelled.
    pub(super) fn pause(&self, pause: Duration) -> Result<(), ScavengeError> {
        let mut stopped = self.stopped();
        if !pause.is_zero() {
            let changed = &self.changed;
            let waited = changed.wait_timeout_while(stopped, pause, |stopped| !*stopped);
            stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if *stopped {
            Err(ScavengeError::Closed)
        } else {
            Ok(())
        }
    }
}

/// Limits the bytes per second that a scavenge reads and writes.
#[derive(Debug)]
pub(super) struct RateLimiter<'a> {
    control: &'a ScavengeControl,
    bytes_per_second: Option<u64>,
    /// Bytes that were not waited for yet.
    owed: Cell<u64>,
}

impl<'a> RateLimiter<'a> {
    pub(super) fn new(control: &'a ScavengeControl, bytes_per_second: Option<u64>) -> Self {
        Self {
            control,
            bytes_per_second,
            owed: Cell::new(0),
        }
    }

    /// Waits until `bytes` more may be read or written.
    pub(super) fn acquire(&self, bytes: u64) -> Result<(), ScavengeError> {
        let owed = self.owed.get().saturating_add(bytes);
        let pause = throttle_delay(owed, self.bytes_per_second);
        self.owed.set(if pause.is_zero() { owed } else { 0 });
        self.control.pause(pause)
    }
}

/// Returns how long these bytes have to be waited for; zero while the wait is too short to sleep for.
fn throttle_delay(bytes: u64, bytes_per_second: Option<u64>) -> Duration {
    let Some(rate) = bytes_per_second else {
        return Duration::ZERO;
    };
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    let pause = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    if pause < PAUSE { Duration::ZERO } else { pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_wait_as_long_as_the_bound_asks_and_few_bytes_are_gathered_first() {
        let pause = |bytes, rate| throttle_delay(bytes, Some(rate));
        assert_eq!(pause(5_000_000, 1_000_000), Duration::from_secs(5));
        assert_eq!(pause(20_000, 1_000_000), PAUSE);
        assert_eq!(pause(19_999, 1_000_000), Duration::ZERO);
        assert_eq!(throttle_delay(u64::MAX, None), Duration::ZERO);
        assert!(pause(u64::MAX, 0) > Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn gathered_bytes_are_waited_for_once_and_none_after_the_end() {
        let control = ScavengeControl::default();
        let limiter = RateLimiter::new(&control, Some(100_000));
        let mut owed = Vec::new();
        for _ in 0..4 {
            limiter.acquire(700).unwrap();
            owed.push(limiter.owed.get());
        }
        assert_eq!(owed, [700, 1_400, 0, 700]);
        control.stop();
        let ended = limiter.acquire(u64::MAX / 2);
        assert!(matches!(ended, Err(ScavengeError::Closed)));
    }
}
