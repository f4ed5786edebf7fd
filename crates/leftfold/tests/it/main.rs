//! The framework through its public API.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod account;
mod causes;
mod client;
mod codec;
mod commands;
mod contention;
mod contexts;
mod decide;
mod deletion;
mod erasure;
mod erasure_copies;
mod erasure_failures;
mod execute;
mod faulty;
mod fixtures;
mod guarded;
mod history;
mod inspect;
mod jetstream;
mod listeners;
mod listening;
mod live;
mod messages;
mod mongodb;
mod nats_server;
mod observe;
mod postgres;
mod processes;
mod projections;
mod queue;
mod readable;
mod several_enums;
mod snapshots;
mod state_cache;
mod tenants;
mod typed_events;
mod upcast;
mod web;
mod webhooks;
