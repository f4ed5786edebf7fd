//! The system's clock.
//!
//! **Owns:** [`system_time`], the default clock of stores. **Does not know:** its callers.
//! **Invariants:** a clock set before 1970 reads as 1970; it never panics.

use std::time::{SystemTime, UNIX_EPOCH};

use leftfold_model::Timestamp;

/// Returns the time of the system's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the default clock of stores that have no other"
)]
pub(crate) fn system_time() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}
