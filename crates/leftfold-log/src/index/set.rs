//! Sets of positions, which queries are evaluated with.
//!
//! **Owns:** [`PositionSet`] and its kinds: everything, a term, an intersection, a union.
//! **Does not know:** events. **Invariants:** a set is bounded by the newest position its reader may see, so it never changes
//! while it is used; memory is one chunk per term, however long the postings.
//!
//! Intersections leap: each set seeks its first position at or after the best candidate so far, so the number of steps follows
//! the rarest set (leapfrog join; Veldhuizen, 2014).

use std::fmt::Debug;

use leftfold_model::Position;

use super::{Term, chunk::Chunk, term_reader::TermReader};
use crate::{error::StorageError, nowait};

/// Steps of looking up a stretch of one term's postings in one source.
const LOOKUP_STEPS: u32 = 8;
/// Steps of asking each set of an intersection once.
const ROUND_STEPS: u32 = 1;

/// A set of positions that can be searched from both ends.
pub(crate) trait PositionSet: Debug + Send {
    /// The smallest member at or behind `position`.
    fn at_or_after(&mut self, position: Position) -> Result<Option<Position>, StorageError>;
    /// The largest member at or before `position`.
    fn at_or_before(&mut self, position: Position) -> Result<Option<Position>, StorageError>;

    /// Adds up to `count` members from `from` on, rising, to `out`.
    fn next_some(
        &mut self,
        from: Position,
        count: usize,
        out: &mut Vec<Position>,
    ) -> Result<(), StorageError> {
        let mut from = from;
        for _ in 0..count {
            let Some(found) = self.at_or_after(from)? else {
                break;
            };
            out.push(found);
            from = found.next();
        }
        Ok(())
    }
}

/// Every position up to a bound.
#[derive(Debug)]
pub(crate) struct Everything {
    pub(crate) through: Position,
}

impl PositionSet for Everything {
    fn at_or_after(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let position = position.max(Position::FIRST);
        Ok((position <= self.through).then_some(position))
    }
    fn next_some(
        &mut self,
        from: Position,
        count: usize,
        out: &mut Vec<Position>,
    ) -> Result<(), StorageError> {
        let (from, through) = (from.max(Position::FIRST).get(), self.through.get());
        out.extend((from..=through).take(count).map(Position::new));
        Ok(())
    }
    fn at_or_before(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let position = position.min(self.through);
        Ok((position >= Position::FIRST).then_some(position))
    }
}

/// The postings of one term over all sources.
#[derive(Debug)]
pub(crate) struct TermSet {
    term: Term,
    /// Oldest first; each covers the positions up to the next one's first.
    parts: Vec<TermReader>,
    through: Position,
    known: Known,
}

/// A stretch of positions of which all members are known: those of `chunk`.
#[derive(Debug)]
struct Known {
    from: u64,
    to: u64,
    chunk: Chunk,
}

impl TermSet {
    pub(crate) fn new(term: Term, parts: Vec<TermReader>, through: Position) -> Self {
        let known = Known {
            from: 1,
            to: 0,
            chunk: Chunk {
                ordinal: 0,
                positions: Vec::new(),
            },
        };
        Self {
            term,
            parts,
            through,
            known,
        }
    }

    fn knows(&self, position: u64) -> bool {
        (self.known.from..=self.known.to).contains(&position)
    }

    /// How many parts begin at or before `position`.
    fn parts_until(&self, position: Position) -> usize {
        self.parts.partition_point(|part| part.first() <= position)
    }
}

impl PositionSet for TermSet {
    fn at_or_after(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        if position > self.through {
            return Ok(None);
        }
        let wanted = position.get();
        if self.knows(wanted)
            && let Some(found) = self.known.chunk.at_or_after(wanted)
        {
            return Ok(Some(Position::new(found)).filter(|&found| found <= self.through));
        }
        if self.knows(wanted) && self.known.to == u64::MAX {
            return Ok(None);
        }
        let start = self.parts_until(position).saturating_sub(1);
        for part in self.parts.get_mut(start..).unwrap_or_default() {
            nowait::charge(LOOKUP_STEPS)?;
            if let Some(chunk) = part.chunk_after(&self.term, position, self.through)?
                && let Some(found) = chunk.at_or_after(wanted)
            {
                let to = chunk.positions.last().copied().unwrap_or(wanted);
                self.known = Known {
                    from: wanted,
                    to,
                    chunk,
                };
                return Ok(Some(Position::new(found)).filter(|&found| found <= self.through));
            }
        }
        let chunk = Chunk {
            ordinal: 0,
            positions: Vec::new(),
        };
        self.known = Known {
            from: wanted,
            to: u64::MAX,
            chunk,
        };
        Ok(None)
    }

    fn at_or_before(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let position = position.min(self.through);
        let wanted = position.get();
        if self.knows(wanted)
            && let Some(found) = self.known.chunk.at_or_before(wanted)
        {
            return Ok(Some(Position::new(found)));
        }
        if self.knows(wanted) && self.known.from == 0 {
            return Ok(None);
        }
        let end = self.parts_until(position);
        for part in self
            .parts
            .get_mut(..end)
            .unwrap_or_default()
            .iter_mut()
            .rev()
        {
            nowait::charge(LOOKUP_STEPS)?;
            if let Some(chunk) = part.chunk_before(&self.term, position, self.through)?
                && let Some(found) = chunk.at_or_before(wanted)
            {
                let from = chunk.positions.first().copied().unwrap_or(wanted);
                self.known = Known {
                    from,
                    to: wanted,
                    chunk,
                };
                return Ok(Some(Position::new(found)));
            }
        }
        let chunk = Chunk {
            ordinal: 0,
            positions: Vec::new(),
        };
        self.known = Known {
            from: 0,
            to: wanted,
            chunk,
        };
        Ok(None)
    }
}

/// Positions that are in all of the sets.
#[derive(Debug)]
pub(crate) struct Intersection(pub(crate) Vec<Box<dyn PositionSet>>);

impl PositionSet for Intersection {
    fn at_or_after(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let mut candidate = position.max(Position::FIRST);
        loop {
            nowait::charge(ROUND_STEPS)?;
            let start = candidate;
            for set in &mut self.0 {
                match set.at_or_after(candidate)? {
                    Some(found) => candidate = found,
                    None => return Ok(None),
                }
            }
            if candidate == start {
                return Ok(Some(candidate));
            }
        }
    }

    fn at_or_before(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let mut candidate = position;
        loop {
            nowait::charge(ROUND_STEPS)?;
            let start = candidate;
            for set in &mut self.0 {
                match set.at_or_before(candidate)? {
                    Some(found) => candidate = found,
                    None => return Ok(None),
                }
            }
            if candidate == start {
                return Ok(Some(candidate));
            }
        }
    }
}

/// Positions that are in at least one of the sets.
#[derive(Debug)]
pub(crate) struct Union(pub(crate) Vec<Box<dyn PositionSet>>);

impl PositionSet for Union {
    fn at_or_after(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let mut best = None;
        for set in &mut self.0 {
            let found = set.at_or_after(position)?;
            best = match (best, found) {
                (Some(best), Some(found)) => Some(std::cmp::min(best, found)),
                (best, found) => best.or(found),
            };
        }
        Ok(best)
    }

    fn at_or_before(&mut self, position: Position) -> Result<Option<Position>, StorageError> {
        let mut best = None;
        for set in &mut self.0 {
            best = best.max(set.at_or_before(position)?);
        }
        Ok(best)
    }
}
