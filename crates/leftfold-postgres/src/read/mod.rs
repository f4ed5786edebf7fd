//! Reads, page by page, each page a statement of its own.
//!
//! **Owns:** the modules of reading. **Does not know:** appends.
//! **Invariants:** events never change and positions follow commits, so the pages of a read are consistent without a
//! transaction around them. No connection is held while the caller processes a page.
//! **Reading order:** `request`, `reader`, `page`, `select`, `decode`, `entries`.

mod decode;
mod entries;
mod page;
mod reader;
mod request;
mod select;

pub(crate) use entries::entries;
pub(crate) use page::{events, fetch, head, newest, retry, select, with_retry};
pub(crate) use reader::read;
pub(crate) use request::{Bounds, PageRequest, Place};
pub(crate) use select::Select;
