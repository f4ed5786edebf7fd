//! The event store over PostgreSQL 13 and newer, for teams whose data lives there.
//!
//! **Owns:** [`PostgresStore`]: the contract [`EventStore`](leftfold_store::EventStore) in SQL, its schema, and what
//! an application writes in the same transaction as its own tables.
//! **Does not know:** aggregates, wires, other stores.
//! **Invariants:** positions are dense and follow commits, because appends take one lock last and hold it to the end of
//! their transaction; one function of the database is the only door for events; no session state is needed, so a
//! pooler in transaction mode may stand in between.
//! **Reading order:** [`PostgresOptions`], [`PostgresStore`], `backend`, `append`, `read`, `follow`, `erase`, then `schema/sql`.

mod append;
mod backend;
mod checkpoints;
mod connect;
mod erase;
mod error;
mod follow;
mod leases;
mod listing;
mod name;
mod options;
mod parked;
mod pool;
mod read;
mod schema;
mod snapshots;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod value;
mod verify;

pub use checkpoints::Checkpoints;
pub use error::{DatabaseError, OpenError};
pub use leases::{Lease, Leases};
pub use options::PostgresOptions;
pub use parked::{Parked, ParkedEvent};
pub use pool::Connection;
pub use schema::{Migration, SCHEMA_VERSION};
pub use store::PostgresStore;
pub use verify::{Finding, Report};

/// The driver, for applications that write their own tables beside events.
pub use tokio_postgres;
