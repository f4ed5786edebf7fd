//! Merging neighbouring index files into one.
//!
//! **Owns:** which files to merge ([`pick_merge`]) and how ([`merge`]). **Does not know:** when, or on which thread.
//! **Invariants:** a lookup in the merged file returns what lookups in its parts return; parts are adjacent, so their postings
//! are concatenated; the number of files grows with the logarithm of the log.
//!
//! The policy is the size-tiered compaction of LSM trees: files of similar size are merged, so each posting is rewritten a
//! logarithmic number of times.

use std::sync::Arc;

use super::{IndexFile, Scan, Term, entry::Entry, writer};
use crate::{cache::FileCache, disk::FileName, error::StorageError, record::LogId};

/// Minimum number of files of similar size in a merge. More: fewer rewrites, more files per lookup.
const FAN_IN: usize = 4;
/// Maximum number of files in a merge: each takes a little memory meanwhile.
const FAN_IN_MAX: usize = 8;
/// How much larger than the largest newer file an older one may be to count as of similar size.
const SIZE_RATIO_MAX: u64 = 2;

/// Picks the neighbouring files to merge now, by how many events each covers, oldest first; returns a range of indexes.
///
/// Neighbours are of similar size if each is at most twice as large as the largest newer one. So every event's
/// postings are rewritten about once per factor of four the log grows by, however full segments are.
///
/// While the log is `idle`, two files are enough: it is not growing, and every file less makes reads cheaper.
pub(crate) fn pick_merge(covered: &[u64], idle: bool) -> Option<std::ops::Range<usize>> {
    let fan_in = if idle { 2 } else { FAN_IN };
    // The newest run first: that keeps the number of files low soonest.
    for end in (fan_in..=covered.len()).rev() {
        let mut largest = 0;
        let newest_first = covered.get(..end)?.iter().rev().take(FAN_IN_MAX);
        let alike = newest_first.take_while(|&&events| {
            let alike = largest == 0 || events <= largest * SIZE_RATIO_MAX;
            largest = largest.max(events);
            alike
        });
        let count = alike.count();
        if count >= fan_in {
            return Some(end - count..end);
        }
    }
    None
}

/// Writes one file of `parts` (adjacent, oldest first). The parts stay; the caller removes them. `None` if there are no
/// parts, or `go_on` returned `false`.
pub(crate) fn merge(
    files: &FileCache,
    log: LogId,
    parts: &[Arc<IndexFile>],
    go_on: &dyn Fn() -> bool,
) -> Result<Option<FileName>, StorageError> {
    let (Some(oldest), Some(newest)) = (parts.first(), parts.last()) else {
        return Ok(None);
    };
    let range = (oldest.first(), newest.last());
    let mut source = MergeIter::of(parts)?;
    writer::write(files, log, range, &mut source, go_on)
}

/// Iterates over the terms of several files as one.
struct MergeIter {
    parts: Vec<MergeInput>,
    /// Parts that hold the current term, in order, and how many of their postings were given.
    current: std::collections::VecDeque<(Arc<IndexFile>, Entry, u64)>,
    terms_max: u64,
}

struct MergeInput {
    scan: Scan,
    head: Option<(Term, Entry)>,
}

impl MergeIter {
    fn of(parts: &[Arc<IndexFile>]) -> Result<Self, StorageError> {
        let mut opened = Vec::with_capacity(parts.len());
        for part in parts {
            let mut scan = Scan::from(Arc::clone(part), &[]);
            let head = scan.next()?;
            opened.push(MergeInput { scan, head });
        }
        let terms_max = parts.iter().map(|part| part.terms()).sum();
        Ok(Self {
            parts: opened,
            current: std::collections::VecDeque::new(),
            terms_max,
        })
    }
}

impl writer::TermPostings for MergeIter {
    fn terms_max(&self) -> u64 {
        self.terms_max
    }

    fn next_term(&mut self, term: &mut Vec<u8>) -> Result<Option<u64>, StorageError> {
        let heads = self
            .parts
            .iter()
            .filter_map(|part| part.head.as_ref().map(|(term, _)| term));
        let Some(least) = heads.min() else {
            return Ok(None);
        };
        term.clear();
        term.extend_from_slice(least.as_bytes());
        self.current.clear();
        let mut base = None;
        for part in &mut self.parts {
            let holds = |(head, _): &(Term, Entry)| head.as_bytes() == term.as_slice();
            if part.head.as_ref().is_some_and(holds) {
                let next = part.scan.next()?;
                if let Some((_, entry)) = std::mem::replace(&mut part.head, next) {
                    base.get_or_insert(entry.base);
                    self.current
                        .push_back((Arc::clone(part.scan.index_file()), entry, 0));
                }
            }
        }
        Ok(Some(base.unwrap_or(0)))
    }

    fn next_postings(&mut self, postings: &mut Vec<u64>) -> Result<bool, StorageError> {
        while let Some((index_file, entry, given)) = self.current.front_mut() {
            if let Some(chunk) = index_file.chunk_at(entry, *given)? {
                *given = chunk.ordinal + chunk.positions.len() as u64;
                postings.extend_from_slice(&chunk.positions);
                return Ok(true);
            }
            self.current.pop_front();
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Joins as segments of these sizes come; gives the most files there were, and events rewritten per event.
    fn joined(segments: impl Iterator<Item = u64>) -> (usize, u64) {
        let (mut files, mut most, mut rewritten, mut all) = (Vec::new(), 0, 0, 0);
        for events in segments {
            files.push(events);
            all += events;
            while let Some(run) = pick_merge(&files, false) {
                let sum = files[run.clone()].iter().sum();
                rewritten += sum;
                files.splice(run, [sum]);
            }
            most = most.max(files.len());
        }
        while let Some(run) = pick_merge(&files, true) {
            let sum = files[run.clone()].iter().sum();
            files.splice(run, [sum]);
        }
        assert!(files.len() <= 12, "{} files after idling", files.len());
        assert_eq!(files.iter().sum::<u64>(), all);
        (most, rewritten / all)
    }

    #[test]
    fn the_number_of_files_and_of_rewrites_stays_logarithmic_however_large_segments_are() {
        let mut state = 7_u64;
        let mut chance = move |n: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            1 + (state >> 33) % n
        };
        for events in [1, 100, 262_144] {
            let even = joined((0..4_096).map(|_| events));
            let uneven = joined((0..4_096).map(|_| events.div_ceil(2) + chance(events)));
            let mixed = joined((0..4_096).map(|n| if n % 5 == 0 { events * 50 } else { events }));
            for (files, rewrites) in [even, uneven, mixed] {
                assert!(files <= 24, "{files} files of segments of {events} events");
                assert!(
                    rewrites <= 12,
                    "{rewrites} rewrites of segments of {events} events"
                );
            }
        }
    }
}
