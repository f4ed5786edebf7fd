//! Appends: gathered from all callers, decided and written by one call of one function of the database.
//!
//! **Owns:** the rooms of appending. **Does not know:** reads.
//! **Invariants:** one group is one transaction; a refused append of a group does not touch the others.
//! **Reading order:** `writer`, `group`, `columns`, `response`, then `schema/sql/0004_append.sql`.

mod columns;
mod group;
mod response;
mod revision_cache;
mod transaction;
mod writer;

pub(crate) use transaction::append_in;
pub(crate) use writer::{Pending, Writer};
