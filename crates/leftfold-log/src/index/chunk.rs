//! Chunks: runs of up to 128 postings, the unit in which postings are stored and fetched.
//!
//! **Owns:** a chunk's encoding, [`Chunk`] and its searches. **Does not know:** where chunks lie.
//! **Invariants:** positions rise strictly; a chunk that decodes lies within the range its source covers.

use crate::record::{Malformed, malformed, varint};

/// Postings of one chunk. Twice as many: fewer tree nodes, longer decoding per seek.
pub(crate) const CHUNK_POSTINGS: usize = 128;

/// Some consecutive postings of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// How many postings of the term in the same source precede this chunk.
    pub(crate) ordinal: u64,
    /// The positions, rising; never empty.
    pub(crate) positions: Vec<u64>,
}

impl Chunk {
    pub(crate) fn at_or_after(&self, position: u64) -> Option<u64> {
        let index = self.positions.partition_point(|&p| p < position);
        self.positions.get(index).copied()
    }

    pub(crate) fn at_or_before(&self, position: u64) -> Option<u64> {
        let index = self.positions.partition_point(|&p| p <= position);
        index
            .checked_sub(1)
            .and_then(|index| self.positions.get(index))
            .copied()
    }
}

/// Appends the positions as distances: the first from `origin`, each other from the one before.
pub(crate) fn encode(out: &mut Vec<u8>, origin: u64, positions: &[u64]) {
    let mut before = origin;
    for &position in positions {
        varint::put(out, position.saturating_sub(before));
        before = position;
    }
}

/// Decodes `count` positions between `origin` and `last` off the front of `bytes`.
pub(crate) fn decode(
    bytes: &mut &[u8],
    count: usize,
    origin: u64,
    last: u64,
) -> Result<Vec<u64>, Malformed> {
    if count > CHUNK_POSTINGS || count > bytes.len() {
        return Err(malformed("a chunk claims more postings than it can hold"));
    }
    let mut positions = Vec::with_capacity(count);
    let mut before = origin;
    for index in 0..count {
        let distance = varint::take(bytes)?;
        before = before
            .checked_add(distance)
            .ok_or(malformed("a posting is out of range"))?;
        if before > last || (index > 0 && distance == 0) {
            return Err(malformed("postings do not rise within their range"));
        }
        positions.push(before);
    }
    Ok(positions)
}
