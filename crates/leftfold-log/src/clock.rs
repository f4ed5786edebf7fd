//! The clock that events get their recorded time from.
//!
//! **Owns:** [`Clock`] and the system's. **Does not know:** what times are used for.
//! **Invariants:** no order depends on a clock; a clock that jumps changes recorded times only.

use std::{
    fmt::Debug,
    time::{SystemTime, UNIX_EPOCH},
};

use leftfold_model::Timestamp;

/// A source of recorded times.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Returns the time to record for events committed now.
    fn now(&self) -> Timestamp;
}

/// The clock of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one implementation of Clock on real time"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}
