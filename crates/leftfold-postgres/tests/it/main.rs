//! The store over PostgreSQL, on a server that the tests start by themselves.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod conformance;
mod server;
