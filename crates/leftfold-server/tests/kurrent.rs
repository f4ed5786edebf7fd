//! The first KurrentDB protocol over a real socket: what its clients rely on, rule by rule.
//!
//! **Owns:** the wiring of these tests. **Does not know:** clients other than the generated one.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests stop at the first surprise; not every binary uses every helper"
)]

#[path = "kurrent/appending.rs"]
mod appending;
#[path = "kurrent/batching.rs"]
mod batching;
#[path = "kurrent/client.rs"]
mod client;
#[path = "kurrent/deleting.rs"]
mod deleting;
#[path = "kurrent/following.rs"]
mod following;
#[path = "kurrent/group_client.rs"]
mod group_client;
#[path = "kurrent/groups.rs"]
mod groups;
#[path = "kurrent/ids.rs"]
mod ids;
#[path = "kurrent/reading.rs"]
mod reading;
#[path = "kurrent/small_services.rs"]
mod small_services;
#[path = "kurrent/system_indexes.rs"]
mod system_indexes;
mod test_server;
#[path = "kurrent/two_servers.rs"]
mod two_servers;
#[path = "kurrent/unsupported.rs"]
mod unsupported;
