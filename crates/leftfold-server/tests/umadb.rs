//! UmaDB's protocol over a real socket: what its clients rely on, rule by rule.
//!
//! **Owns:** the wiring of these tests. **Does not know:** clients other than the generated one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "umadb/appending.rs"]
mod appending;
#[path = "umadb/asking.rs"]
mod asking;
#[path = "umadb/following.rs"]
mod following;
#[path = "umadb/health.rs"]
mod health;
#[path = "umadb/reading.rs"]
mod reading;
mod running;
#[path = "umadb/tracking.rs"]
mod tracking;
