//! UmaDB's protocol over a real socket: what its clients rely on, rule by rule.
//!
//! **Owns:** the wiring of these tests. **Does not know:** clients other than the generated one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::type_complexity,
    clippy::panic,
    reason = "tests stop at the first surprise"
)]

#[path = "umadb/appending.rs"]
mod appending;
#[path = "umadb/client.rs"]
mod client;
#[path = "umadb/following.rs"]
mod following;
#[path = "umadb/health.rs"]
mod health;
#[path = "umadb/ids.rs"]
mod ids;
#[path = "umadb/reading.rs"]
mod reading;
mod test_server;
#[path = "umadb/tracking.rs"]
mod tracking;
