//! Bytes to records and frames, and back.
//!
//! **Owns:** the layouts of docs/format.md sections 2 to 4: segment header, frame header, record.
//! **Does not know:** files, threads, clocks, indexes.
//! **Invariants:** no input makes a decoder panic or allocate more than its own length; every byte is covered
//! by a checksum, lengths included; a checksum also covers the log's id and the record's position, so that
//! a record of another log, or one at the wrong place, does not decode.
//! **Reading order:** [`Checksum`], [`event`], [`names`], [`frame`], [`header`].

pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod header;
pub(crate) mod names;
pub(crate) mod varint;

use leftfold_model::Position;

/// The identity of a log: random, made once, part of every checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogId(pub(crate) [u8; 16]);

/// Computes the checksums of one log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum {
    of_log: u32,
}

impl Checksum {
    /// The seal of the log with this id.
    pub(crate) fn of(log: LogId) -> Self {
        Self {
            of_log: crc32c::crc32c(&log.0),
        }
    }

    /// CRC32C over the log's id, a place in it, and `bytes`.
    pub(crate) fn checksum(self, place: Position, bytes: &[u8]) -> u32 {
        let seeded = crc32c::crc32c_append(self.of_log, &place.get().to_le_bytes());
        crc32c::crc32c_append(seeded, bytes)
    }
}

/// Why bytes are not what they should be. The caller adds the file and turns the place into an offset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Malformed {
    /// What is wrong.
    pub(crate) what: &'static str,
}

/// Shorthand for decoders.
pub(crate) const fn malformed(what: &'static str) -> Malformed {
    Malformed { what }
}

/// Splits `count` bytes off the front of `bytes`.
pub(crate) fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (head, rest) = bytes
        .split_at_checked(count)
        .ok_or(malformed("a field runs past the end"))?;
    *bytes = rest;
    Ok(head)
}

/// Splits a fixed-size array off the front of `bytes`.
pub(crate) fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, rest) = bytes
        .split_first_chunk()
        .ok_or(malformed("a field runs past the end"))?;
    *bytes = rest;
    Ok(*head)
}
