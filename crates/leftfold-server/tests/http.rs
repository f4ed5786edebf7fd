//! The HTTP API over a real socket, as scripts and browsers use it.
//!
//! **Owns:** the wiring of these tests. **Does not know:** how the routes work.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first surprise; not every binary uses every helper"
)]

#[path = "http/appending.rs"]
mod appending;
#[path = "http/bounds.rs"]
mod bounds;
#[path = "http/browsers.rs"]
mod browsers;
#[path = "http/client.rs"]
mod client;
#[path = "http/cloud_events.rs"]
mod cloud_events;
#[path = "http/cross_protocol.rs"]
mod cross_protocol;
#[path = "http/following.rs"]
mod following;
#[path = "http/groups.rs"]
mod groups;
#[path = "http/reading.rs"]
mod reading;
#[path = "http/refusing.rs"]
mod refusing;
#[path = "http/status.rs"]
mod status;
#[path = "http/streams.rs"]
mod streams;
mod test_server;
#[path = "http/unresponsive_store.rs"]
mod unresponsive_store;
