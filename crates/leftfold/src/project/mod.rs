//! Projections: models for reading, folded from the log.
//!
//! **Owns:** [`Projection`], which writes into a view and remembers there how far it is; [`LiveProjection`], which keeps a
//! model in memory. **Does not know:** queries on a view.
//! **Invariants:** a view and its checkpoint change in one transaction, so every event is in the view exactly once; no event
//! is skipped: one that fails stops the projection, or is parked with what follows of its key.
//! **Reading order:** [`Projection`], [`View`], `settings`, `run`, `parking`, `handle`, `inline`; the views `memory`,
//! `key_value`, `sql`.

mod error;
mod handle;
#[cfg(feature = "sqlx-postgres")]
mod inline;
mod key_value;
mod live;
mod memory;
mod parking;
mod projection;
mod run;
mod settings;
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
mod sql;
mod view;

pub use error::ProjectionError;
pub use handle::{ProjectionHandle, ProjectionState, ProjectionStatus};
#[cfg(feature = "sqlx-postgres")]
pub use inline::InlineError;
#[cfg(feature = "sqlx-postgres")]
pub(crate) use inline::InlineStore;
pub use key_value::{KeyValueReader, KeyValueTransaction, KeyValueView};
pub use live::{Live, LiveProjection};
pub use memory::{MemoryTransaction, MemoryView};
pub use projection::Projection;
pub use settings::{CatchUp, Project};
#[cfg(feature = "sqlx-postgres")]
pub use sql::PostgresView;
#[cfg(feature = "sqlx-sqlite")]
pub use sql::SqliteView;
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-sqlite"))]
pub use sql::{SqlDatabase, SqlTransaction, SqlView};
pub use view::{ProjectionId, VersionStatus, View, ViewChanges, ViewCheckpoint, ViewError};
