//! A bloom filter: tells without a read that an index file lacks a term.
//!
//! **Owns:** the filter's layout and arithmetic. **Does not know:** files.
//! **Invariants:** a term that was added is always reported as possible; every block carries a checksum.
//!
//! A blocked Bloom filter (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007): all
//! bits of a term lie in one block of 64 bytes, so a lookup is one read. 480 bits for 40 terms on average and 7
//! bits a term give about 1 % false positives.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Bytes of a block: 60 of bits, 4 of checksum.
pub(crate) const BLOCK_BYTES: usize = 64;
const BITS_BYTES: usize = BLOCK_BYTES - 4;
const BITS: u64 = BITS_BYTES as u64 * 8;
const TERMS_PER_BLOCK: u64 = 40;
const PROBES: u32 = 7;

/// The hash of a term in the log with this id; the id keeps anyone from choosing terms that collide.
pub(crate) fn hash(log: &[u8; 16], term: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_key(log);
    hasher.write(term);
    hasher.finish()
}

/// How many blocks a filter for `terms` terms has.
pub(crate) fn blocks(terms: u64) -> u64 {
    terms.div_ceil(TERMS_PER_BLOCK).max(1)
}

/// The block of a term.
pub(crate) fn block_of(hash: u64, blocks: u64) -> u64 {
    // The high half of a 128-bit product spreads the hash evenly over any number of blocks.
    u64::try_from((u128::from(hash) * u128::from(blocks)) >> 64).unwrap_or(0)
}

/// The bits of a term in its block: seven groups of nine bits of the hash, each scaled to the block.
///
/// All terms of a block share the high bits of their hashes, so these are mixed again first (the finalizer of
/// splitmix64; Steele, Lea, Flood, 2014). Without that, larger filters would admit ever more absent terms.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let mut mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    (0..PROBES).map(move |probe| {
        let bit = (((mixed >> (9 * probe)) & 0x1ff) * BITS) >> 9;
        (usize::try_from(bit / 8).unwrap_or(0), 1_u8 << (bit % 8))
    })
}

/// A filter under construction: 1.6 bytes of memory a term.
#[derive(Debug)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    blocks: u64,
}

impl Builder {
    /// A filter for up to `terms` terms.
    pub(crate) fn for_terms(terms: u64) -> Self {
        let blocks = blocks(terms);
        let size = usize::try_from(blocks)
            .unwrap_or(usize::MAX)
            .saturating_mul(BLOCK_BYTES);
        Self {
            bytes: vec![0; size],
            blocks,
        }
    }

    /// Adds a term by its hash.
    pub(crate) fn add(&mut self, hash: u64) {
        let start = usize::try_from(block_of(hash, self.blocks)).unwrap_or(0) * BLOCK_BYTES;
        let Some(block) = self.bytes.get_mut(start..start + BITS_BYTES) else {
            return;
        };
        for (byte, bit) in bits(hash) {
            if let Some(byte) = block.get_mut(byte) {
                *byte |= bit;
            }
        }
    }

    /// The blocks, each with 4 bytes left for its checksum.
    pub(crate) fn into_blocks(self) -> Vec<u8> {
        self.bytes
    }
}

/// Whether the term may be in the file, by the bits of its block.
pub(crate) fn may_contain(block: &[u8], hash: u64) -> bool {
    bits(hash).all(|(byte, bit)| block.get(byte).is_some_and(|found| found & bit != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_terms_are_possible_and_few_others_are_however_large_the_filter() {
        for terms in [10_000_u32, 1_000_000] {
            let mut builder = Builder::for_terms(u64::from(terms));
            let of = |n: u32| hash(&[1; 16], &n.to_le_bytes());
            (0..terms).for_each(|n| builder.add(of(n)));
            let filter = builder.into_blocks();
            let blocks = blocks(u64::from(terms));
            let possible = |n: u32| {
                let start = usize::try_from(block_of(of(n), blocks)).unwrap() * BLOCK_BYTES;
                may_contain(&filter[start..start + BITS_BYTES], of(n))
            };
            assert!((0..terms).step_by(7).all(possible));
            let wrong = (terms..terms + 100_000).filter(|&n| possible(n)).count();
            assert!(
                wrong < 1_000,
                "{wrong} of 100,000 absent terms look possible among {terms}"
            );
        }
    }
}
