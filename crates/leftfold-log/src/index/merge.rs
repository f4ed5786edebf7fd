//! Joining neighbouring index files into one.
//!
//! **Owns:** which files to join ([`due`]) and how ([`merge`]). **Does not know:** when, or on which thread.
//! **Invariants:** the joined file answers exactly as its parts did; parts are adjacent, so postings are joined end to
//! end; the number of files grows with the logarithm of the log.

use std::sync::Arc;

use leftfold_model::Position;

use super::{Frozen, Scan, Term, entry::Entry, freeze};
use crate::{
    disk::{Disk, FileName},
    error::StorageError,
    record::LogId,
};

/// How many files of a size are joined into one of the next. More: fewer rewrites, more files per lookup.
const FAN_IN: usize = 8;

/// Which neighbouring files to join now, by their ranges, oldest first: a range of indexes.
///
/// Files are of a level by how many events they cover; `FAN_IN` neighbours of one level make one of the next.
pub(crate) fn due(
    ranges: &[(Position, Position)],
    segment_events: u64,
) -> Option<std::ops::Range<usize>> {
    let level = |&(first, last): &(Position, Position)| {
        let segments = last.get().saturating_sub(first.get()) / segment_events.max(1);
        (segments.max(1)).ilog(FAN_IN as u64)
    };
    let levels: Vec<u32> = ranges.iter().map(level).collect();
    // The newest run first: that keeps the number of files low soonest.
    let mut end = levels.len();
    while end > 0 {
        let run = levels.get(..end)?;
        let of = *run.last()?;
        let start = run
            .iter()
            .rposition(|&level| level != of)
            .map_or(0, |index| index + 1);
        if end - start >= FAN_IN {
            return Some(start..start + FAN_IN);
        }
        end = start;
    }
    None
}

/// Writes the join of `parts` (adjacent, oldest first). The parts stay; the caller removes them.
pub(crate) fn merge(
    disk: &dyn Disk,
    log: LogId,
    parts: &[Arc<Frozen>],
) -> Result<Option<FileName>, StorageError> {
    let (Some(oldest), Some(newest)) = (parts.first(), parts.last()) else {
        return Ok(None);
    };
    let range = (oldest.first(), newest.last());
    let mut source = Join::of(parts)?;
    freeze::write(disk, log, range, &mut source).map(Some)
}

/// The terms of several files as one.
struct Join {
    parts: Vec<Part>,
    /// Parts that hold the current term, in order, and how many of their postings were given.
    current: std::collections::VecDeque<(Arc<Frozen>, Entry, u64)>,
    terms_max: u64,
}

struct Part {
    scan: Scan,
    head: Option<(Term, Entry)>,
}

impl Join {
    fn of(parts: &[Arc<Frozen>]) -> Result<Self, StorageError> {
        let mut opened = Vec::with_capacity(parts.len());
        for part in parts {
            let mut scan = Scan::from(Arc::clone(part), &[]);
            let head = scan.next()?;
            opened.push(Part { scan, head });
        }
        let terms_max = parts.iter().map(|part| part.terms()).sum();
        Ok(Self {
            parts: opened,
            current: std::collections::VecDeque::new(),
            terms_max,
        })
    }
}

impl freeze::TermPostings for Join {
    fn terms_max(&self) -> u64 {
        self.terms_max
    }

    fn next_term(&mut self) -> Result<Option<(Term, u64)>, StorageError> {
        let heads = self
            .parts
            .iter()
            .filter_map(|part| part.head.as_ref().map(|(term, _)| term));
        let Some(term) = heads.min().cloned() else {
            return Ok(None);
        };
        self.current.clear();
        let mut base = None;
        for part in &mut self.parts {
            if part.head.as_ref().is_some_and(|(head, _)| *head == term) {
                let next = part.scan.next()?;
                if let Some((_, entry)) = std::mem::replace(&mut part.head, next) {
                    base.get_or_insert(entry.base);
                    self.current
                        .push_back((Arc::clone(part.scan.frozen()), entry, 0));
                }
            }
        }
        Ok(Some((term, base.unwrap_or(0))))
    }

    fn next_postings(&mut self) -> Result<Option<Vec<u64>>, StorageError> {
        while let Some((frozen, entry, given)) = self.current.front_mut() {
            if let Some(chunk) = frozen.chunk_at(entry, *given)? {
                *given = chunk.ordinal + chunk.positions.len() as u64;
                return Ok(Some(chunk.positions));
            }
            self.current.pop_front();
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_files_stays_logarithmic() {
        let mut ranges: Vec<(Position, Position)> = Vec::new();
        let mut most = 0;
        for n in 0..4_096_u64 {
            ranges.push((Position::new(n * 100 + 1), Position::new(n * 100 + 100)));
            while let Some(run) = due(&ranges, 100) {
                let joined = (ranges[run.start].0, ranges[run.end - 1].1);
                ranges.splice(run, [joined]);
            }
            most = most.max(ranges.len());
        }
        assert!(most <= 7 * 5, "{most} files");
        assert!(ranges.windows(2).all(|pair| pair[0].1.next() == pair[1].0));
    }
}
