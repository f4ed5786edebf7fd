//! The events to erase, and the segments that hold them.
//!
//! **Owns:** [`TruncationSet`].
//! **Does not know:** files. **Invariants:** memory is the truncations and one number per segment, however many events they
//! cover; a segment whose truncated events are all erased already is recognised without reading it.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use leftfold_model::{Position, Query, Revision, Scope, StreamName};

use super::Truncation;
use crate::{error::StorageError, index::IndexSnapshot, record::header::Erased, segment::Segments};

/// Positions asked of the index at once.
const ASKED: usize = 1_024;

/// Cuts, by stream.
#[derive(Debug)]
pub(crate) struct TruncationSet {
    before: HashMap<StreamName, Revision, RandomState>,
}

impl TruncationSet {
    /// Several truncations of one stream are the farthest of them.
    pub(crate) fn of(truncations: &[Truncation]) -> Self {
        let mut before = HashMap::default();
        for truncation in truncations {
            let farthest = before
                .entry(truncation.stream.clone())
                .or_insert(truncation.before);
            *farthest = truncation.before.max(*farthest);
        }
        Self { before }
    }

    /// Whether this event goes.
    pub(crate) fn covers(&self, stream: &StreamName, revision: Revision) -> bool {
        let before = self.before.get(stream);
        before.is_some_and(|&before| revision < before)
    }

    /// For each of the segments, which of its events are under the truncations, erased or not.
    pub(crate) fn erasable_per_segment(
        &self,
        segments: &Segments,
        sources: &IndexSnapshot,
        head: Position,
    ) -> Result<Vec<Erased>, StorageError> {
        let mut shares = vec![Erased::default(); segments.list.len()];
        let mut positions = Vec::new();
        for (stream, before) in &self.before {
            let scope = Scope::Stream(stream.clone());
            let mut set = sources.select(&scope, &Query::All, head);
            let (mut left, mut from, mut segment) = (before.get(), Position::FIRST, 0);
            while left > 0 {
                positions.clear();
                let wanted = usize::try_from(left).unwrap_or(ASKED).min(ASKED);
                set.next_some(from, wanted, &mut positions)?;
                for &position in &positions {
                    let next = |segment: usize| segments.list.get(segment + 1);
                    while next(segment).is_some_and(|next| next.first <= position) {
                        segment += 1;
                    }
                    if let Some(share) = shares.get_mut(segment) {
                        share.add(position);
                    }
                }
                let Some(last) = positions.last() else { break };
                from = last.next();
                left -= positions.len() as u64;
            }
        }
        Ok(shares)
    }
}
