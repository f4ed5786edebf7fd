//! The client of Leftfold's server: the store contract over the wire.
//!
//! **Owns:** [`Client`], connections and their loss, and what an append's outcome is when an answer does not come.
//! **Does not know:** rules about streams; how the server stores.
//! **Invariants:** an append is reported as not written only if that is certain; a read never continues as something else
//! than it began; a subscription has no gap and no repetition, however often it connects anew; no type that was generated
//! from the wire contract leaves this crate.
//! **Reading order:** [`Client`], [`ClientOptions`], `append`, `session`, `read`, `subscribe`, then `call` and the
//! translations.

mod address;
mod append;
mod backoff;
mod call;
mod client;
mod connection;
mod decode;
mod encode;
mod error;
mod list;
mod options;
mod queued_append;
mod read;
mod session;
mod snapshots;
mod status;
mod subscribe;

pub use client::Client;
pub use error::{ConnectError, TransportError};
pub use options::ClientOptions;
