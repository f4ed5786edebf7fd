//! Iterating over all terms of an index file.
//!
//! **Owns:** [`Scan`]. **Does not know:** the purpose of the scan.
//! **Invariants:** terms come in ascending order, each once; memory is one dictionary block, which bypasses the cache.

use std::sync::Arc;

use super::{
    IndexFile, Term,
    entry::{self, Child, Entry},
};
use crate::error::StorageError;

/// A walk over the terms of an index file, in order.
#[derive(Debug)]
pub(crate) struct Scan {
    index_file: Arc<IndexFile>,
    next_block: usize,
    at: Child,
    block: Vec<u8>,
    consumed: usize,
    term: Vec<u8>,
}

impl Scan {
    /// A walk that begins at the first term at or behind `from`, or a little before it.
    pub(crate) fn from(index_file: Arc<IndexFile>, from: &[u8]) -> Self {
        let next_block = index_file.block_for(from);
        let at = Child {
            last: 0,
            offset: 0,
            bytes: 0,
        };
        Self {
            index_file,
            next_block,
            at,
            block: Vec::new(),
            consumed: 0,
            term: Vec::new(),
        }
    }

    /// The next term and what the file knows of it.
    pub(crate) fn next(&mut self) -> Result<Option<(Term, Entry)>, StorageError> {
        if self.consumed >= self.block.len() {
            let Some(at) = self.index_file.dictionary_block(self.next_block) else {
                return Ok(None);
            };
            self.at = at;
            let mut block = self.index_file.read_block(&at)?;
            let entries = entry::entries(&block).map(<[u8]>::len);
            block.truncate(entries.map_err(|m| self.index_file.malformed(self.at.offset, &m))?);
            self.block = block;
            self.next_block += 1;
            self.consumed = 0;
            self.term.clear();
        }
        let mut rest = self.block.get(self.consumed..).unwrap_or_default();
        let before = rest.len();
        let entry = self
            .index_file
            .take_entry(&self.at, &mut rest, &mut self.term)?;
        self.consumed += before - rest.len();
        Ok(Some((Term::from_bytes(&self.term), entry)))
    }

    /// The file.
    pub(crate) fn index_file(&self) -> &Arc<IndexFile> {
        &self.index_file
    }
}
