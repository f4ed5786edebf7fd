//! Frames: the records of one append, written and recovered as one.
//!
//! **Owns:** the frame's layout (docs/format.md section 3). **Does not know:** files.
//! **Invariants:** one append is one frame; a frame decodes whole or not at all; zeros are not a frame; the
//! header's checksum is verified before its lengths are believed.
//!
//! Header, 24 bytes: `crc u32 | kind u8 | zero u8 | count u16 | body length u32 | unsynced u32 | first u64`.
//! Then the body: the records, and zeros up to a multiple of 8 bytes. `unsynced` is how many bytes in front of the
//! frame were not known to be durable when it was written; everything before them was.

use bytes::Bytes;
use leftfold_model::{Position, limits};

use super::{Checksum, Malformed, event, malformed, take_array};
use crate::planted::{self, Planted};

/// Bytes of a frame's header.
pub(crate) const HEADER_BYTES: usize = 24;
/// Frames begin at multiples of this many bytes, so that no header straddles a sector by accident of length.
pub(crate) const ALIGNMENT: usize = 8;
/// Bytes of a frame, at most: an append's own limit, and what each record adds.
pub(crate) const FRAME_BYTES_MAX: usize = HEADER_BYTES
    + limits::APPEND_BYTES_MAX
    + limits::APPEND_EVENTS_MAX * (128 + 2 * limits::TAGS_PER_EVENT_MAX);

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// The events of one append.
    Append = 1,
}

/// The front of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    /// How many events.
    pub(crate) count: u16,
    /// Bytes of the body, padding included.
    pub(crate) body_bytes: u32,
    /// Bytes in front of this frame not known to be durable when it was written.
    pub(crate) unsynced: u32,
    /// Position of the first event.
    pub(crate) first: Position,
}

impl FrameHeader {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.body_bytes as usize
    }

    /// The position behind the frame's last event.
    pub(crate) fn end(&self) -> Position {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// Starts a frame at the end of `out`; returns where it begins, for [`finish`].
pub(crate) fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    start
}

/// Pads the frame that begins at `start` and fills in its header. The records were appended since [`begin`].
pub(crate) fn finish(
    out: &mut Vec<u8>,
    start: usize,
    seal: Checksum,
    first: Position,
    count: u16,
    unsynced: u32,
) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    let body = out.len().saturating_sub(start + HEADER_BYTES);
    let body = u32::try_from(body).unwrap_or(u32::MAX);
    let mut header = [0; HEADER_BYTES];
    let fields: [&[u8]; 5] = [
        &[FrameKind::Append as u8, 0],
        &count.to_le_bytes(),
        &body.to_le_bytes(),
        &unsynced.to_le_bytes(),
        &first.get().to_le_bytes(),
    ];
    let (crc, rest) = header.split_at_mut(4);
    for (to, from) in rest.iter_mut().zip(fields.concat()) {
        *to = from;
    }
    crc.copy_from_slice(&seal.checksum(first, rest).to_le_bytes());
    if let Some(place) = out.get_mut(start..start + HEADER_BYTES) {
        place.copy_from_slice(&header);
    }
}

/// Decodes the header at the front of `bytes`.
pub(crate) fn decode_header(bytes: &[u8], seal: Checksum) -> Result<FrameHeader, Malformed> {
    let mut rest = bytes
        .get(..HEADER_BYTES)
        .ok_or(malformed("a frame header runs past the end"))?;
    let crc = u32::from_le_bytes(take_array(&mut rest)?);
    let covered = rest;
    let [kind, zero] = take_array(&mut rest)?;
    let count = u16::from_le_bytes(take_array(&mut rest)?);
    let body_bytes = u32::from_le_bytes(take_array(&mut rest)?);
    let unsynced = u32::from_le_bytes(take_array(&mut rest)?);
    let first = Position::new(u64::from_le_bytes(take_array(&mut rest)?));
    let unchecked = planted::is(Planted::HeaderUnchecked) && kind == FrameKind::Append as u8;
    if crc != seal.checksum(first, covered) && !unchecked {
        return Err(malformed("a frame header's checksum does not match"));
    }
    if kind != FrameKind::Append as u8 || zero != 0 {
        return Err(malformed("a frame's kind is unknown to this version"));
    }
    let header = FrameHeader {
        count,
        body_bytes,
        unsynced,
        first,
    };
    let count_fits = (1..=limits::APPEND_EVENTS_MAX).contains(&usize::from(count));
    let length_fits =
        header.frame_bytes() <= FRAME_BYTES_MAX && (body_bytes as usize).is_multiple_of(ALIGNMENT);
    if !count_fits
        || !length_fits
        || first == Position::START
        || first.saturating_add(u64::from(count)) == Position::MAX
    {
        return Err(malformed("a frame's count or length is over the limit"));
    }
    Ok(header)
}

/// Splits a frame's body into its records and checks each one, and the padding.
///
/// `each` is given each record's position, its offset in the body, and its bytes.
pub(crate) fn records(
    mut body: Bytes,
    header: &FrameHeader,
    seal: Checksum,
    mut each: impl FnMut(Position, usize, Bytes),
) -> Result<(), Malformed> {
    let whole = body.len();
    let mut position = header.first;
    for _ in 0..header.count {
        let offset = whole - body.len();
        let record = event::take_record(&mut body, seal, position)?;
        each(position, offset, record);
        position = position.next();
    }
    if body.len() >= ALIGNMENT || body.iter().any(|&byte| byte != 0) {
        return Err(malformed("bytes follow a frame's last record"));
    }
    Ok(())
}
