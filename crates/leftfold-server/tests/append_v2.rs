//! The second KurrentDB protocol over a real socket: what its clients rely on, rule by rule.
//!
//! **Owns:** the wiring of these tests. **Does not know:** clients other than the generated one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "append_v2/asking.rs"]
mod asking;
#[path = "append_v2/checks.rs"]
mod checks;
#[path = "append_v2/record.rs"]
mod record;
#[path = "append_v2/records.rs"]
mod records;
mod running;
#[path = "append_v2/session.rs"]
mod session;
