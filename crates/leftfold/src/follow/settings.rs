//! The settings of a listener.
//!
//! **Owns:** [`Follow`], [`Start`], [`Backoff`] and their defaults. **Does not know:** how a listener runs.
//! **Invariants:** every queue, pause and duration has a bound.

use std::{fmt, sync::Arc, time::Duration};

use leftfold_model::{EventId, Position, Timestamp};

use super::listener::Listener;
use crate::{Store, clock::system_time};

/// The start of a consumer that is not known yet. A known one continues at its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the first event of the log.
    #[default]
    Beginning,
    /// At the events committed after its first claim.
    Now,
    /// After this position.
    After(Position),
}

/// Exponential backoff with jitter: pauses double, and a random part of up to a half is taken off each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
    pub(crate) attempts: u32,
}

impl Default for Backoff {
    /// 5 attempts; 100 ms after the first, 30 s at most.
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(30),
            attempts: 5,
        }
    }
}

impl Backoff {
    /// Sets the maximum number of attempts, at least one.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets the pause after the first attempt.
    #[must_use]
    pub fn initial(mut self, pause: Duration) -> Self {
        self.initial = pause;
        self
    }

    /// Sets the longest pause.
    #[must_use]
    pub fn max(mut self, pause: Duration) -> Self {
        self.max = pause;
        self
    }

    /// The pause after the attempt with this number, from 1.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let doubled = self
            .initial
            .saturating_mul(1 << (attempt.saturating_sub(1)).min(20));
        let longest = doubled.min(self.max);
        // Any source of chance will do; the random part of a fresh id is one.
        let [.., chance] = *EventId::fresh().as_bytes();
        longest - longest / 2 * u32::from(chance) / 255
    }
}

/// A listener with its settings; made by [`Store::follow`].
#[must_use = "nothing is handled before `spawn`"]
#[derive(Debug)]
pub struct Follow<L> {
    pub(super) store: Store,
    pub(super) listener: Arc<L>,
    pub(super) settings: Settings,
}

/// See [`Follow`].
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) start: Start,
    pub(super) parallel: usize,
    pub(super) backoff: Backoff,
    pub(super) timeout: Duration,
    pub(super) lease: Duration,
    pub(super) park: bool,
    pub(super) stop_at_parked_keys: usize,
    pub(super) pause_at_parked_events: usize,
    pub(super) holder: String,
    pub(super) clock: Clock,
}

/// What tells whether a timer is due.
#[derive(Clone)]
pub(super) struct Clock(pub(super) Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}

impl<L: Listener> Follow<L> {
    pub(crate) fn new(store: Store, listener: L) -> Self {
        let settings = Settings {
            start: Start::default(),
            parallel: 1,
            backoff: Backoff::default(),
            timeout: Duration::from_secs(30),
            lease: Duration::from_secs(10),
            park: true,
            stop_at_parked_keys: 100,
            pause_at_parked_events: 100_000,
            holder: format!("{}/{}", std::process::id(), EventId::fresh()),
            clock: Clock(Arc::new(system_time)),
        };
        Self {
            store,
            listener: Arc::new(listener),
            settings,
        }
    }

    /// Sets where a consumer starts that is not known yet. Default: at the beginning.
    pub fn from(mut self, start: Start) -> Self {
        self.settings.start = start;
        self
    }

    /// Handles events of up to `keys` keys at a time. Default: 1. Handlers of a listener share one task, so one that computes
    /// for long should use a thread of its own. Reactions of
    /// a process run in tasks of their own if `keys` is above 1.
    pub fn parallel(mut self, keys: usize) -> Self {
        self.settings.parallel = keys.clamp(1, 10_000);
        self
    }

    /// Sets how often a failed event is retried, and the pauses.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Parks an event whose attempts all failed, and later events of its key. This is the default.
    pub fn park_on_failure(mut self) -> Self {
        self.settings.park = true;
        self
    }

    /// Ends the listener with [`FollowError::Failed`](crate::FollowError::Failed) when all attempts of an event failed.
    pub fn stop_on_failure(mut self) -> Self {
        self.settings.park = false;
        self
    }

    /// Ends the listener when `keys` keys are parked and one more fails. Default: 100.
    pub fn stop_at_parked_keys(mut self, keys: usize) -> Self {
        self.settings.stop_at_parked_keys = keys;
        self
    }

    /// Reads no more of the log while about `events` events are parked, those that wait behind others included. Default: 100,000.
    pub fn pause_at_parked_events(mut self, events: usize) -> Self {
        self.settings.pause_at_parked_events = events.max(1);
        self
    }

    /// Sets the timeout of an attempt, which then counts as failed. Default: 30 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Sets how long a claim lasts, from 100 ms to a day. Default: 10 seconds. Another process takes over no
    /// sooner after this one is gone. The claim is renewed three times in that time.
    pub fn lease(mut self, lease: Duration) -> Self {
        let longest = leftfold_store::consumers::TTL_MAX;
        self.settings.lease = lease.clamp(Duration::from_millis(100), longest);
        self
    }

    /// Names the holder of the claim, for errors in other processes. It must be unique to this listener's run. Default: an id
    /// of the process and a random part.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.settings.holder = holder.into();
        self
    }

    /// Takes the time that timers are compared with from here; the system's clock unless said. For tests.
    pub fn timer_clock(mut self, clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.settings.clock = Clock(Arc::new(clock));
        self
    }
}
