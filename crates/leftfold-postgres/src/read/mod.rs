//! Reads: one page after the other, each a statement of its own.
//!
//! **Owns:** the rooms of reading. **Does not know:** appends.
//! **Invariants:** events never change and positions follow commits, so pages of one read fit together without a
//! transaction that spans them; no connection is held while the reader thinks.
//! **Reading order:** `reader`, `page`, `select`, `decode`.

mod decode;
mod page;
mod reader;
mod select;

pub(crate) use page::{PageRequest, events, fetch, head, with_retry};
pub(crate) use reader::read;
pub(crate) use select::{Bounds, Select};
