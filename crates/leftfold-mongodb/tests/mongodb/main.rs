//! The store over MongoDB, on servers that the tests start by themselves.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise, and measure their own patience"
)]

mod conformance;
mod crashes;
mod large;
mod server;
