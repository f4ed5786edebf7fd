//! Projections that are written in the transaction of the append.
//!
//! **Owns:** the modules of inline projections over PostgreSQL. **Does not know:** what a projection writes.
//! **Invariants:** events that go through the store of an inline projection are in its view when they are in the log, in one
//! commit, or in neither; an append that finds events missing in a view writes them first.
//! **Reading order:** `register`, `store`, `attempt`, `view`, `places`, `driver`, `error`.

mod attempt;
mod driver;
mod error;
mod places;
mod register;
mod store;
mod view;

pub use error::InlineError;
pub(crate) use store::InlineStore;

/// A transaction of the database that holds log and views.
type PgTransaction = sqlx::Transaction<'static, sqlx::Postgres>;
