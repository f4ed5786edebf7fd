//! The store over PostgreSQL, on servers that the tests start by themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test stops at the first unexpected value, and measures time"
)]

mod conformance;
mod consumers;
mod costly_conditions;
mod crashes;
mod disconnects;
mod example;
mod fixtures;
mod keys;
mod pooler;
mod privileges;
mod rarest_term;
mod relay;
mod restored;
mod retention;
mod scavenge;
mod schema;
mod server;
mod server_settings;
mod soak;
mod stalled_writers;
mod subscriptions;
mod time_limits;
mod tls;
