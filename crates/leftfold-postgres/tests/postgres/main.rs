//! The store over PostgreSQL, on servers that the tests start by themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and measure their own patience"
)]

mod beside;
mod conformance;
mod crashes;
mod encrypted;
mod example;
mod held;
mod lives;
mod pooler;
mod promises;
mod rights;
mod scavenge;
mod schema;
mod server;
mod soak;
mod story;
mod wire;
