//! Appending: groups of appends, decided and inserted as one commit.
//!
//! **Owns:** the order of its modules. **Does not know:** reads.
//! **Reading order:** `writer`, `known`, `lookup`, `decide`, `encode`.

mod decide;
mod encode;
mod json_copy;
mod known;
mod lookup;
mod writer;

pub(crate) use writer::{Pending, Writer};
