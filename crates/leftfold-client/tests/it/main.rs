//! The client against a server, both in this process, over real connections.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests stop at the first surprise, and print their seeds"
)]

mod conformance;
mod connecting;
mod cuts;
mod model;
mod outcomes;
mod proxy;
mod restarts;
mod restored;
mod running;
mod strangers;
