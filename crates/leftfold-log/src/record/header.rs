//! The first bytes of a segment: which log it belongs to and where it begins.
//!
//! **Owns:** the segment header's layout (docs/format.md section 2). **Does not know:** file names.
//! **Invariants:** the magic and the format number never move, so that every version can tell that a file is of
//! a newer one; everything else is covered by the checksum.
//!
//! Layout, 64 bytes: `magic [8] | format u32 | generation u32 | log id [16] | first u64 | zeros [20] | crc u32`.

use leftfold_model::Position;

use super::{LogId, Malformed, malformed, take, take_array};

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// The format this version writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: [u8; 8] = *b"LEFTFOLD";

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    pub(crate) generation: u32,
    pub(crate) first: Position,
}

/// Why a header was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeaderError {
    /// The file was written by a newer version.
    NewerFormat(u32),
    /// The bytes are no header.
    Malformed(Malformed),
}

impl From<Malformed> for HeaderError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.log.0);
        out.extend_from_slice(&self.first.get().to_le_bytes());
        out.resize(SEGMENT_HEADER_BYTES - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header.copy_from_slice(&out);
        header
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let mut rest = bytes.as_slice();
        if take_array(&mut rest)? != MAGIC {
            return Err(malformed("the file does not begin as a segment does").into());
        }
        let format = u32::from_le_bytes(take_array(&mut rest)?);
        let generation = u32::from_le_bytes(take_array(&mut rest)?);
        let log = LogId(take_array(&mut rest)?);
        let first = Position::new(u64::from_le_bytes(take_array(&mut rest)?));
        let zeros = take(&mut rest, 20)?;
        let crc = u32::from_le_bytes(take_array(&mut rest)?);
        let (covered, _) = bytes.split_at(SEGMENT_HEADER_BYTES - 4);
        if crc != crc32c::crc32c(covered) {
            return Err(malformed("a segment header's checksum does not match").into());
        }
        if format > FORMAT {
            return Err(HeaderError::NewerFormat(format));
        }
        if format == 0 || first == Position::START || zeros.iter().any(|&byte| byte != 0) {
            return Err(malformed("a segment header holds an impossible value").into());
        }
        Ok(Self {
            log,
            generation,
            first,
        })
    }
}
