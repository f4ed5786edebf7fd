//! The postings of one term in one source.
//!
//! **Owns:** [`TermReader`]. **Does not know:** other sources, or sets.
//! **Invariants:** a file's entry for the term is looked up once, when it is first needed.

use std::sync::Arc;

use leftfold_model::Position;

use super::{IndexFile, MemIndex, Term, chunk::Chunk, entry::Entry};
use crate::error::StorageError;

/// Reads the postings of one term from one source.
#[derive(Debug)]
pub(crate) enum TermReader {
    Tail(Arc<MemIndex>),
    /// The entry is looked up when first needed, and remembered.
    File(Arc<IndexFile>, Option<Option<Entry>>),
}

impl TermReader {
    pub(crate) fn first(&self) -> Position {
        match self {
            Self::Tail(tail) => tail.first(),
            Self::File(index_file, _) => index_file.first(),
        }
    }

    pub(crate) fn chunk_after(
        &mut self,
        term: &Term,
        position: Position,
        through: Position,
    ) -> Result<Option<Chunk>, StorageError> {
        match self {
            Self::Tail(tail) => Ok(tail.chunk_after(term.as_bytes(), position, through)),
            Self::File(index_file, _) if index_file.last() < position => Ok(None),
            Self::File(index_file, entry) => match resolve(index_file, entry, term)? {
                Some(entry) => index_file.chunk_after(entry, position.get()),
                None => Ok(None),
            },
        }
    }

    pub(crate) fn chunk_before(
        &mut self,
        term: &Term,
        position: Position,
        through: Position,
    ) -> Result<Option<Chunk>, StorageError> {
        match self {
            Self::Tail(tail) => Ok(tail.chunk_before(term.as_bytes(), position, through)),
            Self::File(index_file, entry) => match resolve(index_file, entry, term)? {
                Some(entry) => index_file.chunk_before(entry, position.get()),
                None => Ok(None),
            },
        }
    }
}

fn resolve<'a>(
    index_file: &IndexFile,
    known: &'a mut Option<Option<Entry>>,
    term: &Term,
) -> Result<Option<&'a Entry>, StorageError> {
    if known.is_none() {
        *known = Some(index_file.entry(term.as_bytes())?);
    }
    Ok(known.as_ref().and_then(Option::as_ref))
}
