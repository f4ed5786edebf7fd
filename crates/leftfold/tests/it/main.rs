//! The framework through its public API.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod account;
mod client;
mod codec;
mod commands;
mod contention;
mod decide;
mod execute;
mod faulty;
mod fixtures;
mod kept;
mod mongodb;
mod observe;
mod postgres;
mod snapshots;
mod typed_events;
mod upcast;
