//! The inverted index: which positions belong to a stream, a category, a type or a tag.
//!
//! **Owns:** terms, their postings in memory ([`MemIndex`]) and in files ([`IndexFile`]), merging, and the sets that
//! queries are made of. **Does not know:** records, segments, or how events are stored.
//! **Invariants:** the index is derived from the log and can be rebuilt from it; a source covers a contiguous
//! range of positions; sources do not overlap; postings rise strictly; damage is reported, never answered from.
//! **Reading order:** [`Term`], [`MemIndex`], [`IndexFile`], [`IndexSnapshot`], [`PositionSet`].

mod bloom;
mod chunk;
mod entry;
mod layout;
mod listing;
mod mem_index;
mod merge;
mod reader;
mod scan;
mod set;
mod snapshot;
mod term;
mod term_reader;
mod writer;

pub(crate) use listing::{Listed, Listing};
pub(crate) use mem_index::MemIndex;
pub(crate) use merge::{merge, pick_merge};
pub(crate) use reader::IndexFile;
pub(crate) use scan::Scan;
pub(crate) use set::PositionSet;
pub(crate) use snapshot::IndexSnapshot;
pub(crate) use term::{Term, TermKind, write as write_term};
pub(crate) use writer::{TailPostings, write as write_index_file};

#[cfg(test)]
mod tests;
