//! The code of the guide in `docs/guide`, compiled and run.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod account;
mod blocks;
mod decisions;
mod more_events;
mod more_tests;
mod snapshots;
mod store;
mod versions;
