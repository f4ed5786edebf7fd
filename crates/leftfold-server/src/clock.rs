//! The time of day, for responses to clients.
//!
//! **Owns:** the only read of the system's clock. **Does not know:** what the time is for.
//! **Invariants:** the only decision that depends on it is whether a client's deadline has passed.

use std::time::SystemTime;

/// Returns the current time.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place that asks the system"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
