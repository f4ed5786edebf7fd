//! The fixed parts of an index file: header, footer, and the checksum of its blocks.
//!
//! **Owns:** docs/format.md section 6, but for the blocks' contents. **Does not know:** terms.
//! **Invariants:** a block's checksum covers the log's id, the file's range and the block's offset, so that a block
//! of another file or at another place is refused.

use leftfold_model::Position;

use crate::record::{LogId, Malformed, malformed, take, take_array};

/// Bytes of the header, and of the footer.
pub(crate) const EDGE_BYTES: usize = 64;
/// The format this version writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"LFINDEX\0";
const END_MAGIC: [u8; 8] = *b"LFINDEND";

/// Computes the checksums of one index file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockChecksum(u32);

impl BlockChecksum {
    pub(crate) fn of(log: LogId, first: Position, last: Position) -> Self {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&log.0), &first.get().to_le_bytes());
        Self(crc32c::crc32c_append(crc, &last.get().to_le_bytes()))
    }

    pub(crate) fn checksum(self, offset: u64, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &offset.to_le_bytes()), bytes)
    }

    /// Checks and removes the checksum at the end of a block.
    pub(crate) fn open(self, offset: u64, block: &[u8]) -> Result<&[u8], Malformed> {
        let (bytes, crc) = block
            .split_last_chunk()
            .ok_or(malformed("a block is too short"))?;
        if self.checksum(offset, bytes) == u32::from_le_bytes(*crc) {
            Ok(bytes)
        } else {
            Err(malformed("a block's checksum does not match"))
        }
    }
}

/// The first bytes of an index file.
pub(crate) fn encode_header(log: LogId, first: Position, last: Position) -> Vec<u8> {
    let mut out = Vec::with_capacity(EDGE_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&log.0);
    out.extend_from_slice(&first.get().to_le_bytes());
    out.extend_from_slice(&last.get().to_le_bytes());
    out.resize(EDGE_BYTES - 4, 0);
    let crc = BlockChecksum::of(log, first, last).checksum(0, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Checks that `bytes` are the header of this log's index of this range: there is one right answer.
pub(crate) fn check_header(
    bytes: &[u8],
    log: LogId,
    first: Position,
    last: Position,
) -> Result<(), Malformed> {
    if bytes == encode_header(log, first, last) {
        Ok(())
    } else {
        Err(malformed("the header is not this log's"))
    }
}

/// The format of a header that a newer version wrote for this range, if it is one.
pub(crate) fn newer_format(
    bytes: &[u8],
    log: LogId,
    first: Position,
    last: Position,
) -> Option<u32> {
    let covered = BlockChecksum::of(log, first, last).open(0, bytes).ok()?;
    let format = covered.strip_prefix(&MAGIC)?.first_chunk()?;
    Some(u32::from_le_bytes(*format)).filter(|&format| format > FORMAT)
}

/// The last bytes of an index file: where its parts lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) terms: u64,
    pub(crate) postings: u64,
    pub(crate) filter_offset: u64,
    pub(crate) filter_blocks: u64,
    pub(crate) fences_offset: u64,
}

impl Footer {
    pub(crate) fn encode(&self, seal: BlockChecksum, offset: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(EDGE_BYTES);
        out.extend_from_slice(&END_MAGIC);
        let fields = [
            self.terms,
            self.postings,
            self.filter_offset,
            self.filter_blocks,
            self.fences_offset,
        ];
        for field in fields {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.resize(EDGE_BYTES - 4, 0);
        out.extend_from_slice(&seal.checksum(offset, &out).to_le_bytes());
        out
    }

    pub(crate) fn decode(
        bytes: &[u8],
        seal: BlockChecksum,
        offset: u64,
    ) -> Result<Self, Malformed> {
        let mut rest = seal.open(offset, bytes)?;
        if take(&mut rest, END_MAGIC.len())? != END_MAGIC {
            return Err(malformed("the file does not end as an index does"));
        }
        let mut field = || Ok::<_, Malformed>(u64::from_le_bytes(take_array(&mut rest)?));
        Ok(Self {
            terms: field()?,
            postings: field()?,
            filter_offset: field()?,
            filter_blocks: field()?,
            fences_offset: field()?,
        })
    }
}
