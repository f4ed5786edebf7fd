//! The store over MongoDB, on servers that the tests start by themselves.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod conformance;
mod crashes;
mod format;
mod json;
mod large;
mod restored;
mod server;
