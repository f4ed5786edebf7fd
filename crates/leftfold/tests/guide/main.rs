//! The code of the guide in `docs/guide`, compiled and run.

#![expect(
    clippy::indexing_slicing,
    reason = "an index that is missing in a JSON value is null"
)]

mod account;
mod blocks;
mod decisions;
mod erasure;
mod inline;
mod listeners;
mod messages;
mod more_events;
mod more_tests;
#[path = "../it/nats_server.rs"]
#[expect(dead_code, reason = "no chapter kills the server")]
mod nats_server;
mod processes;
mod projections;
mod reading;
mod snapshots;
mod store;
mod tenants;
mod versions;
