//! A clock and ids that are equal in every run.
//!
//! **Owns:** [`TestClock`], [`sequential_ids`] and a store that uses both. **Does not know:** what is tested.
//! **Invariants:** the nth event of two runs has the same time and the same id.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use leftfold_model::{EventId, Timestamp};
use leftfold_store::MemoryStore;

use crate::Store;

/// A clock that advances by one second each time it is read. Clones share their time.
#[derive(Debug, Clone)]
pub struct TestClock {
    next: Arc<AtomicU64>,
}

impl TestClock {
    /// Creates a clock that starts at this time.
    #[must_use]
    pub fn from(begin: Timestamp) -> Self {
        Self {
            next: Arc::new(AtomicU64::new(begin.as_micros())),
        }
    }

    /// Returns the time, and advances the clock by one second.
    #[must_use]
    pub fn tick(&self) -> Timestamp {
        Timestamp::from_micros(self.next.fetch_add(1_000_000, Ordering::Relaxed))
    }

    /// Advances the clock by this many seconds.
    pub fn advance(&self, seconds: u64) {
        self.next.fetch_add(seconds * 1_000_000, Ordering::Relaxed);
    }
}

/// Returns a generator of ids counted from 1, for [`Store::with_id_generator`].
pub fn sequential_ids() -> impl Fn() -> EventId + Send + Sync + 'static {
    let next = AtomicU64::new(1);
    move || {
        let number = u128::from(next.fetch_add(1, Ordering::Relaxed));
        EventId::from_bytes(u128::to_be_bytes(number))
    }
}

/// Creates a store in memory with this clock and sequential ids.
///
/// ```
/// # use leftfold::{model::Timestamp, testing::{self, TestClock}};
/// let clock = TestClock::from(Timestamp::from_micros(0));
/// let store = testing::store(&clock);
/// # let _ = store;
/// ```
#[must_use]
pub fn store(clock: &TestClock) -> Store {
    let clock = clock.clone();
    Store::new(MemoryStore::with_clock(move || clock.tick())).with_id_generator(sequential_ids())
}
