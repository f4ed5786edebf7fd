//! Iterating over stream names in byte order.
//!
//! **Owns:** [`Listing`]. **Does not know:** what else is listed of a stream.
//! **Invariants:** each stream comes once, however many sources hold it; memory is one dictionary block per index file and
//! the matching names of the mem indexes.

use std::{collections::VecDeque, sync::Arc};

use leftfold_model::Position;

use super::{IndexSnapshot, MemIndex, Scan, Term, entry::Entry};
use crate::error::StorageError;

/// A walk over streams.
#[derive(Debug)]
pub(crate) struct Listing {
    prefix: Term,
    after: Option<Term>,
    through: Position,
    scans: Vec<(Scan, Option<(Term, Entry)>)>,
    tails: Vec<(Arc<MemIndex>, VecDeque<Term>)>,
}

/// One stream: its name, how many events it has, and the position of its last one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) name: Vec<u8>,
    pub(crate) events: u64,
    pub(crate) last: Position,
}

impl Listing {
    pub(crate) fn of(
        sources: &IndexSnapshot,
        prefix: &str,
        after: Option<&str>,
        through: Position,
    ) -> Result<Self, StorageError> {
        let prefix = Term::stream_prefix(prefix);
        let after = after.map(Term::stream_prefix);
        let from = after.as_ref().map_or(prefix.as_bytes(), |after| {
            after.as_bytes().max(prefix.as_bytes())
        });
        let wanted = |term: &Term| {
            term.as_bytes().starts_with(prefix.as_bytes())
                && after.as_ref().is_none_or(|after| term > after)
        };
        let scans = sources
            .index_files
            .iter()
            .map(|index_file| (Scan::from(Arc::clone(index_file), from), None))
            .collect();
        let tails = sources
            .tails
            .iter()
            .map(|tail| (Arc::clone(tail), tail.terms(wanted).into()))
            .collect();
        let mut listing = Self {
            prefix,
            after,
            through,
            scans,
            tails,
        };
        for index in 0..listing.scans.len() {
            listing.advance(index)?;
        }
        Ok(listing)
    }

    /// Moves one file's walk to its next stream that is wanted, or to its end.
    fn advance(&mut self, index: usize) -> Result<(), StorageError> {
        let Some((scan, head)) = self.scans.get_mut(index) else {
            return Ok(());
        };
        loop {
            *head = scan.next()?;
            let Some((term, _)) = head else { return Ok(()) };
            let matches = term.as_bytes().starts_with(self.prefix.as_bytes());
            if !matches && *term > self.prefix {
                *head = None;
                return Ok(());
            }
            if matches && self.after.as_ref().is_none_or(|after| &*term > after) {
                return Ok(());
            }
        }
    }

    /// The next stream.
    pub(crate) fn next(&mut self) -> Result<Option<Listed>, StorageError> {
        loop {
            let in_files = self
                .scans
                .iter()
                .filter_map(|(_, head)| head.as_ref().map(|(term, _)| term));
            let in_tails = self.tails.iter().filter_map(|(_, terms)| terms.front());
            let Some(term) = in_files.chain(in_tails).min().cloned() else {
                return Ok(None);
            };
            let (events, last) = self.gather(&term)?;
            // A stream whose only events are behind the reader's bound does not exist for it.
            if let Some(last) = last {
                return Ok(Some(Listed {
                    name: term.name().to_vec(),
                    events,
                    last,
                }));
            }
        }
    }

    fn gather(&mut self, term: &Term) -> Result<(u64, Option<Position>), StorageError> {
        let (mut events, mut last) = (0, None);
        for index in 0..self.scans.len() {
            let here = self.scans.get(index).and_then(|(_, head)| head.as_ref());
            if let Some((_, entry)) = here.filter(|(head, _)| head == term) {
                events = entry.base.saturating_add(entry.count);
                last = Some(Position::new(entry.last()));
                self.advance(index)?;
            }
        }
        for (tail, terms) in &mut self.tails {
            if terms.front() == Some(term) {
                terms.pop_front();
                let visible = tail.chunk_before(term.as_bytes(), self.through, self.through);
                if let (Some((base, count)), Some(chunk)) =
                    (tail.count(term.as_bytes(), self.through), visible)
                {
                    events = base + count;
                    last = chunk
                        .positions
                        .last()
                        .map(|&position| Position::new(position));
                }
            }
        }
        Ok((events, last))
    }
}
