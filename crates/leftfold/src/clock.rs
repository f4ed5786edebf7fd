//! The time of day.
//!
//! **Owns:** [`system_time`], and times as text. **Does not know:** what they are for.
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

/// Returns a time as text, as RFC 3339 defines it; one that no calendar has, as its microseconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| time.as_micros().to_string(), |time| time.to_string())
}
