//! The inverted index: which positions belong to a stream, a category, a type or a tag.
//!
//! **Owns:** terms, their postings in memory ([`Tail`]) and in files ([`Frozen`]), merging, and the sets that
//! queries are made of. **Does not know:** records, segments, or how events are stored.
//! **Invariants:** the index is derived from the log and can be rebuilt from it; a source covers a contiguous
//! range of positions; sources do not overlap; postings rise strictly; damage is reported, never answered from.
//! **Reading order:** [`Term`], [`Tail`], [`Frozen`], [`Sources`], [`PositionSet`].

mod chunk;
mod entry;
mod filter;
mod freeze;
mod frozen;
mod layout;
mod listing;
mod merge;
mod set;
mod sources;
mod tail;
mod term;

pub(crate) use freeze::{TailPostings, write as write_frozen};
pub(crate) use frozen::{Frozen, Scan};
pub(crate) use listing::{Listed, Listing};
pub(crate) use merge::{due as merge_due, merge};
pub(crate) use set::PositionSet;
pub(crate) use sources::Sources;
pub(crate) use tail::Tail;
pub(crate) use term::{Term, TermKind, write as write_term};

#[cfg(test)]
mod tests;
