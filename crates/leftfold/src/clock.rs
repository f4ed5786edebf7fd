//! The time of day.
//!
//! **Owns:** [`system_time`]. **Does not know:** what it is for.
//! **Invariants:** the system's clock may be set to any time at any time; nothing here hides that.

use leftfold_model::Timestamp;

/// Returns the time by the system's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks; the engine has its own clock"
)]
pub(crate) fn system_time() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp::from_micros(u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX))
}
