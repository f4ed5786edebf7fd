//! The second KurrentDB protocol over a real socket: what its clients rely on, rule by rule.
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

#[path = "append_v2/checks.rs"]
mod checks;
#[path = "append_v2/client.rs"]
mod client;
#[path = "append_v2/record.rs"]
mod record;
#[path = "append_v2/records.rs"]
mod records;
#[path = "append_v2/session.rs"]
mod session;
mod test_server;
