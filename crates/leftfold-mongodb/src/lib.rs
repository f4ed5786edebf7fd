//! The event store over MongoDB, for teams whose data lives there.
//!
//! **Owns:** [`MongoStore`]: the contract [`EventStore`](leftfold_store::EventStore) over a few collections of one database.
//! **Does not know:** aggregates, wires, other stores.
//! **Invariants:** one document is one commit, and its number is its key, so the server's unique key on `_id` orders all
//! writers of all processes; positions are dense and follow commits; no transaction, replica set or counter is needed;
//! nothing is answered that a majority of the servers could still lose.
//! **Reading order:** [`MongoOptions`], [`MongoStore`], `backend`, `document`, `log`, `append`, `read`, `tail`, `erase`,
//! `consumers`.

mod append;
mod backend;
mod consumers;
mod document;
mod entries;
mod erase;
mod error;
mod keys;
mod listing;
mod log;
mod options;
mod payload;
mod query;
mod read;
mod snapshots;
mod store;
mod tail;
#[cfg(feature = "testing")]
pub mod testing;
mod verify;

pub use error::OpenError;
pub use options::MongoOptions;
pub use store::MongoStore;
pub use verify::Report;
