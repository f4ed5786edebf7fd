//! Group commit: the appends of all callers, decided and written by one call of a database function.
//!
//! **Owns:** the modules of appending. **Does not know:** reads.
//! **Invariants:** one group is one transaction; a refused append does not affect the others of its group.
//! **Reading order:** `writer`, `group`, `items`, `columns`, `response`, `search_lane`, `search`, then the function in
//! `schema/sql/0002_append.sql`.

mod columns;
mod driven;
mod group;
mod items;
mod response;
mod revision_cache;
mod search;
mod search_lane;
mod transaction;
mod writer;

pub(crate) use driven::PostgresTransactionAppender;
pub(crate) use search_lane::Pending;
pub(crate) use transaction::append_in;
pub(crate) use writer::Writer;
