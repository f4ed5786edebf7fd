//! The settings of a listener.
//!
//! **Owns:** [`Follow`], [`Start`], [`Backoff`] and their defaults. **Does not know:** how a listener runs.
//! **Invariants:** every queue, pause and duration has a bound.

use std::{sync::Arc, time::Duration};

use leftfold_model::{EventId, Position};

use super::listener::Listener;
use crate::Store;

/// Where a consumer starts that is not known yet. One that is known goes on where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// With the first event of the log.
    #[default]
    Beginning,
    /// With what is committed after it was first claimed.
    Now,
    /// Behind this position.
    After(Position),
}

/// Pauses between attempts: doubling, each shortened at random by up to a half, so that many do not come back at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub(super) initial: Duration,
    pub(super) max: Duration,
    pub(super) attempts: u32,
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
    /// With at most so many attempts, at least one.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// With this pause after the first attempt.
    #[must_use]
    pub fn initial(mut self, pause: Duration) -> Self {
        self.initial = pause;
        self
    }

    /// With no pause longer than this.
    #[must_use]
    pub fn max(mut self, pause: Duration) -> Self {
        self.max = pause;
        self
    }

    /// The pause after the attempt with this number, from 1.
    pub(super) fn pause(&self, attempt: u32) -> Duration {
        let doubled = self
            .initial
            .saturating_mul(1 << (attempt.saturating_sub(1)).min(20));
        let longest = doubled.min(self.max);
        // Any source of chance will do; the random part of a fresh id is one.
        let [.., chance] = *EventId::fresh().as_bytes();
        longest - longest / 2 * u32::from(chance) / 255
    }
}

/// A listener and how it is to be run; made by [`Store::follow`].
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
    pub(super) parked_keys_max: usize,
    pub(super) holder: String,
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
            parked_keys_max: 100,
            holder: format!("{}/{}", std::process::id(), EventId::fresh()),
        };
        Self {
            store,
            listener: Arc::new(listener),
            settings,
        }
    }

    /// Starts a consumer that is not known yet here; at the beginning unless said.
    pub fn from(mut self, start: Start) -> Self {
        self.settings.start = start;
        self
    }

    /// Handles events of up to so many keys at a time; 1 unless said. They share one task: a handler that computes for long
    /// should do so on a thread of its own.
    pub fn parallel(mut self, keys: usize) -> Self {
        self.settings.parallel = keys.clamp(1, 10_000);
        self
    }

    /// Tries a failed event again so often and after such pauses.
    pub fn retry(mut self, backoff: Backoff) -> Self {
        self.settings.backoff = backoff;
        self
    }

    /// Parks an event whose attempts all failed, with what follows of its key; this is so unless said.
    pub fn then_park(mut self) -> Self {
        self.settings.park = true;
        self
    }

    /// Ends the listener with [`FollowError::Failed`](crate::FollowError::Failed) when all attempts of an event failed.
    pub fn then_stop(mut self) -> Self {
        self.settings.park = false;
        self
    }

    /// Ends the listener when so many keys are parked and one more fails; 100 unless said.
    pub fn parked_keys_max(mut self, keys: usize) -> Self {
        self.settings.parked_keys_max = keys;
        self
    }

    /// Drops an attempt that takes longer than this and counts it as failed; 30 seconds unless said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Claims the consumer for so long at a time; 10 seconds unless said, 100 ms to a day. Another process takes over no
    /// sooner after this one is gone. The claim is renewed three times in that while.
    pub fn lease(mut self, lease: Duration) -> Self {
        let longest = leftfold_store::consumers::TTL_MAX;
        self.settings.lease = lease.clamp(Duration::from_millis(100), longest);
        self
    }

    /// Names who holds the claim, for people: part of the errors of others. It must be unique to this listener's run; an id
    /// unless said.
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.settings.holder = holder.into();
        self
    }
}
