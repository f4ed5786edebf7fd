//! An immutable snapshot of all sources of the index.
//!
//! **Owns:** [`IndexSnapshot`]: lookups that span index files and mem indexes. **Does not know:** its callers.
//! **Invariants:** cheap to clone and never changed; its sources are adjacent, oldest first, files before mem indexes.

use std::sync::Arc;

use leftfold_model::{Position, Query, QueryItem, Scope};

use super::{
    IndexFile, MemIndex, Term, TermKind,
    set::{Everything, Intersection, PositionSet, TermSet, Union},
    term_reader::TermReader,
    write_term,
};
use crate::{
    error::StorageError,
    nowait,
    planted::{self, Planted},
};

/// The index files and tails that a reader sees.
#[derive(Clone, Debug)]
pub(crate) struct IndexSnapshot {
    pub(crate) index_files: Arc<[Arc<IndexFile>]>,
    pub(crate) tails: Arc<[Arc<MemIndex>]>,
}

impl IndexSnapshot {
    /// How many events the stream has, up to `through`.
    pub(crate) fn stream_events(
        &self,
        stream: &Term,
        through: Position,
    ) -> Result<u64, StorageError> {
        let newest = self.tails.last();
        match newest.and_then(|tail| tail.count(stream.as_bytes(), through)) {
            Some((base, count)) => Ok(base + count),
            None => self.older_stream_events(stream, through),
        }
    }

    /// How many events the stream has, up to `through`, in all sources but the newest tail.
    pub(crate) fn older_stream_events(
        &self,
        stream: &Term,
        through: Position,
    ) -> Result<u64, StorageError> {
        for tail in self.tails.iter().rev().skip(1) {
            if let Some((base, count)) = tail.count(stream.as_bytes(), through) {
                return Ok(base + count);
            }
        }
        for index_file in self.index_files.iter().rev() {
            if let Some(entry) = index_file.entry(stream.as_bytes())? {
                return Ok(entry.base.saturating_add(entry.count));
            }
        }
        Ok(0)
    }

    /// The position of the stream's event with this revision, if it is not behind `through`.
    pub(crate) fn position_of(
        &self,
        stream: &Term,
        revision: u64,
        through: Position,
    ) -> Result<Option<Position>, StorageError> {
        for tail in self.tails.iter().rev() {
            if let Some((base, _)) = tail.count(stream.as_bytes(), through)
                && let Some(ordinal) = revision.checked_sub(base)
            {
                return Ok(tail.position_at(stream.as_bytes(), ordinal, through));
            }
        }
        for index_file in self.index_files.iter().rev() {
            if let Some(entry) = index_file.entry(stream.as_bytes())?
                && let Some(ordinal) = revision.checked_sub(entry.base)
            {
                let Some(chunk) = index_file.chunk_at(&entry, ordinal)? else {
                    return Ok(None);
                };
                let index =
                    usize::try_from(ordinal.saturating_sub(chunk.ordinal)).unwrap_or(usize::MAX);
                return Ok(chunk
                    .positions
                    .get(index)
                    .map(|&position| Position::new(position)));
            }
        }
        Ok(None)
    }

    /// Whether a look at the newest posting of each term shows that nothing behind `after` matches the query. `false`:
    /// there may be a match.
    pub(crate) fn surely_none_after(
        &self,
        query: &Query,
        after: Position,
    ) -> Result<bool, StorageError> {
        let Query::Items(items) = query else {
            return Ok(false);
        };
        let mut term = Vec::new();
        for item in items {
            let mut possible = true;
            for tag in item.tag_list() {
                write_term(&mut term, TermKind::Tag, tag.as_str());
                possible = possible && self.has_after(&term, after)?;
            }
            let mut any_type = item.type_list().is_empty();
            for event_type in item.type_list() {
                write_term(&mut term, TermKind::Type, event_type.as_str());
                any_type = any_type || possible && self.has_after(&term, after)?;
            }
            if possible && any_type {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the term has a posting behind `after`.
    fn has_after(&self, term: &[u8], after: Position) -> Result<bool, StorageError> {
        nowait::charge(1)?;
        for tail in self.tails.iter().rev() {
            if tail.newest(term).is_some_and(|newest| newest > after) {
                return Ok(true);
            }
            if tail.first() <= after {
                return Ok(false);
            }
        }
        for index_file in self.index_files.iter().rev() {
            let unseen_from = match planted::is(Planted::HasAfterOffByOne) {
                true => after.next(),
                false => after,
            };
            if index_file.last() <= unseen_from {
                return Ok(false);
            }
            let entry = index_file.entry(term)?;
            if entry.is_some_and(|entry| entry.last() > after.get()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The positions up to `through` that belong to the scope and match the query.
    pub(crate) fn select(
        &self,
        scope: &Scope,
        query: &Query,
        through: Position,
    ) -> Box<dyn PositionSet> {
        let scope: Option<Box<dyn PositionSet>> = match scope {
            Scope::Stream(stream) => Some(self.term(Term::stream(stream), through)),
            Scope::Category(category) => {
                Some(self.term(Term::category(category.as_str()), through))
            }
            _ => None,
        };
        let query = match query {
            Query::All => None,
            Query::Items(items) => Some(any_of(
                items.iter().map(|item| self.item(item, through)).collect(),
            )),
        };
        match (scope, query) {
            (Some(scope), Some(query)) => Box::new(Intersection(vec![scope, query])),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Box::new(Everything { through }),
        }
    }

    fn item(&self, item: &QueryItem, through: Position) -> Box<dyn PositionSet> {
        let mut sets: Vec<Box<dyn PositionSet>> = Vec::new();
        for tag in item.tag_list() {
            sets.push(self.term(Term::tag(tag), through));
        }
        if !item.type_list().is_empty() {
            let types = item
                .type_list()
                .iter()
                .map(|t| self.term(Term::event_type(t), through));
            sets.push(any_of(types.collect()));
        }
        match sets.len() {
            1 => sets.remove(0),
            _ => Box::new(Intersection(sets)),
        }
    }

    fn term(&self, term: Term, through: Position) -> Box<dyn PositionSet> {
        let files = self
            .index_files
            .iter()
            .map(|index_file| TermReader::File(Arc::clone(index_file), None));
        let tails = self
            .tails
            .iter()
            .map(|tail| TermReader::Tail(Arc::clone(tail)));
        Box::new(TermSet::new(term, files.chain(tails).collect(), through))
    }
}

fn any_of(mut sets: Vec<Box<dyn PositionSet>>) -> Box<dyn PositionSet> {
    match sets.len() {
        1 => sets.remove(0),
        _ => Box::new(Union(sets)),
    }
}
