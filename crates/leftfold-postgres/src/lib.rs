//! The event store over PostgreSQL 13 and newer.
//!
//! **Owns:** [`PostgresStore`]: the contract [`EventStore`](leftfold_store::EventStore) in SQL, its schema, and appends
//! in an application's own transactions; [`PostgresKeys`].
//! **Does not know:** aggregates, protocols, other stores.
//! **Invariants:** positions are dense and follow commits, because an append takes one lock and holds it to the end of its
//! transaction. One database function is the only way to write events. No session state is required, so connections may
//! go through a pooler in transaction mode.
//! **Reading order:** [`PostgresOptions`], [`PostgresStore`], `backend`, `append`, `read`, `subscribe`, `erase`, `consumers`,
//! `schema/sql`.

mod append;
mod backend;
mod consumers;
mod erase;
mod error;
mod keys;
mod listing;
mod name;
mod options;
mod pool;
mod read;
mod schema;
mod session;
mod snapshots;
mod statements;
mod store;
mod subscribe;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod value;
mod verify;

pub use error::{DatabaseError, OpenError};
pub use keys::PostgresKeys;
pub use options::PostgresOptions;
pub use pool::Connection;
pub use schema::{Migration, SCHEMA_VERSION};
pub use store::PostgresStore;
pub use verify::{Finding, Report};

/// The driver, for applications that write their own tables and events in one transaction.
pub use tokio_postgres;
