//! The client of Leftfold's server: the store contract over the wire.
//!
//! **Owns:** [`Client`], connections and their loss, and the outcome of an append whose response does not arrive.
//! **Does not know:** rules about streams; how the server stores.
//! **Invariants:** the client reports an append as not written only if that is certain; a resumed read returns what the read
//! would have returned; a subscription has no gap and no repetition across reconnections; no type generated from the wire
//! contract is public.
//! **Reading order:** [`Client`], [`ClientOptions`], `append`, `session`, `read`, `subscribe`, then `call` and the
//! translations.

mod access;
mod address;
mod append;
mod backoff;
mod call;
mod channel;
mod client;
mod connection;
mod consumers;
mod credentials;
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

pub use access::{AccessCallError, AccessClient, CreatedApiKey, RemoteApiKey, RemoteUser};
pub use client::Client;
pub use credentials::Credentials;
pub use error::{ConnectError, RpcError};
pub use options::ClientOptions;
