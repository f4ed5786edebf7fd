//! The first bytes of a segment: which log it belongs to and where it begins.
//!
//! **Owns:** the segment header's layout (docs/format.md section 2). **Does not know:** file names.
//! **Invariants:** the magic and the format number never move, so that every version can tell that a file is of
//! a newer one; everything else is covered by the checksum; a segment is of format 2 only if it holds erased events, so
//! that a log that was never scavenged stays readable to versions that know format 1 alone.
//!
//! Layout, 64 bytes: `magic [8] | format u32 | generation u32 | log id [16] | first u64 | erased u32 | sum u64 | zeros [8] |
//! crc u32`; in format 1 `erased` and `sum` are zeros.

use leftfold_model::Position;

use super::{LogId, Malformed, malformed, take, take_array};

/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// The newest format this version reads: that of a segment with erased events.
pub(crate) const FORMAT: u32 = 2;
/// The format of a segment without any.
const FORMAT_WHOLE: u32 = 1;

const MAGIC: [u8; 8] = *b"LEFTFOLD";

/// What a segment says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) log: LogId,
    pub(crate) generation: u32,
    pub(crate) first: Position,
    pub(crate) erased: Erased,
}

/// Which events of a segment are erased: their number, and a checksum of their positions that distinguishes two such sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Erased {
    pub(crate) events: u32,
    pub(crate) sum: u64,
}

impl Erased {
    /// Takes in one more event.
    pub(crate) fn add(&mut self, position: Position) {
        self.events = self.events.saturating_add(1);
        // splitmix64's finalizer: sums of mixed positions are equal by chance only.
        let mut mixed = position.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.sum = self.sum.wrapping_add(mixed ^ (mixed >> 31));
    }

    /// Whether nothing is erased.
    pub(crate) fn is_none(&self) -> bool {
        self.events == 0
    }
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
        let format = if self.erased.is_none() {
            FORMAT_WHOLE
        } else {
            FORMAT
        };
        out.extend_from_slice(&format.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.log.0);
        out.extend_from_slice(&self.first.get().to_le_bytes());
        out.extend_from_slice(&self.erased.events.to_le_bytes());
        out.extend_from_slice(&self.erased.sum.to_le_bytes());
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
        let erased = Erased {
            events: u32::from_le_bytes(take_array(&mut rest)?),
            sum: u64::from_le_bytes(take_array(&mut rest)?),
        };
        let zeros = take(&mut rest, 8)?;
        let crc = u32::from_le_bytes(take_array(&mut rest)?);
        let (covered, _) = bytes.split_at(SEGMENT_HEADER_BYTES - 4);
        if crc != crc32c::crc32c(covered) {
            return Err(malformed("a segment header's checksum does not match").into());
        }
        if format > FORMAT {
            return Err(HeaderError::NewerFormat(format));
        }
        let fits = match format {
            FORMAT_WHOLE => erased == Erased::default(),
            FORMAT => !erased.is_none(),
            _ => false,
        };
        if !fits || first == Position::START || zeros.iter().any(|&byte| byte != 0) {
            return Err(malformed("a segment header holds an impossible value").into());
        }
        Ok(Self {
            log,
            generation,
            first,
            erased,
        })
    }
}
