//! The time of day, for what is told to clients.
//!
//! **Owns:** the only look at the system's clock. **Does not know:** what the time is for.
//! **Invariants:** nothing is decided by it but whether a client's deadline is over.

use std::time::SystemTime;

/// The time now.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place that asks the system"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
