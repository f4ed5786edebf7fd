//! Scanning the frames of a segment, for recovery and verification.
//!
//! **Owns:** [`Scan`], and distinguishing the end of a segment from damage. **Does not know:** what to do about either.
//! **Invariants:** memory is one frame; every byte of a frame is verified; frames follow each other without a gap in
//! positions; what follows the last good frame is reported, never interpreted as events.

use bytes::Bytes;
use leftfold_model::Position;

use crate::{
    disk::{DiskFile, FileName},
    error::StorageError,
    planted::{self, Planted},
    record::{
        Checksum,
        frame::{self, FrameHeader, HEADER_BYTES},
        header::SEGMENT_HEADER_BYTES,
    },
};

/// Bytes read ahead, so that small frames do not cost a call each.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// Bytes of a segment file, at most: locations are offsets of 32 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;

/// A walk over the frames of one segment.
#[derive(Debug)]
pub(crate) struct Scan<'a> {
    file: &'a dyn DiskFile,
    name: FileName,
    seal: Checksum,
    size: u64,
    next: Position,
    offset: u64,
    window: (u64, Bytes),
}

/// What a step of the walk found.
#[derive(Debug)]
pub(crate) enum Step {
    /// A good frame: its offset, its header, and its records as (position, offset in the file, bytes).
    Frame(u64, FrameHeader, Vec<(Position, u64, Bytes)>),
    /// No good frame at this offset, for this reason.
    End(u64, &'static str),
}

impl<'a> Scan<'a> {
    /// A walk from the first frame of the segment that begins at position `first`.
    pub(crate) fn of(
        file: &'a dyn DiskFile,
        name: FileName,
        seal: Checksum,
        first: Position,
    ) -> Result<Self, StorageError> {
        let size = file
            .size()
            .map_err(|e| StorageError::io("measure", &name, e))?;
        if size > SEGMENT_BYTES_MAX {
            let what =
                format!("the file has {size} bytes; a segment has {SEGMENT_BYTES_MAX} at most");
            return Err(StorageError::corrupt(&name, SEGMENT_BYTES_MAX, what));
        }
        let offset = SEGMENT_HEADER_BYTES as u64;
        Ok(Self {
            file,
            name,
            seal,
            size,
            next: first,
            offset,
            window: (0, Bytes::new()),
        })
    }

    /// Bytes of the file.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The position the next frame must begin with.
    pub(crate) fn next_position(&self) -> Position {
        self.next
    }

    /// The bytes from `offset` on, `length` of them or as many as there are.
    fn bytes(&mut self, offset: u64, length: usize) -> Result<Bytes, StorageError> {
        let available = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(available);
        let (start, window) = &self.window;
        let within = offset
            .checked_sub(*start)
            .and_then(|within| usize::try_from(within).ok());
        if let Some(within) = within
            && window.len() >= within.saturating_add(length)
        {
            return Ok(window.slice(within..within + length));
        }
        let read = usize::try_from(WINDOW_BYTES)
            .unwrap_or(length)
            .max(length)
            .min(available);
        let mut buffer = vec![0; read];
        let result = self.file.read_exact_at(&mut buffer, offset);
        result.map_err(|e| StorageError::io("read", &self.name, e))?;
        self.window = (offset, Bytes::from(buffer));
        Ok(self.window.1.slice(..length))
    }

    /// The next frame, or where and why there is none.
    pub(crate) fn step(&mut self) -> Result<Step, StorageError> {
        let offset = self.offset;
        let bytes = self.bytes(offset, HEADER_BYTES)?;
        let header = match frame::decode_header(&bytes, self.seal) {
            Ok(header) if header.first == self.next => header,
            Ok(_) => {
                return Ok(Step::End(
                    offset,
                    "a frame does not continue the one before it",
                ));
            }
            Err(malformed) => return Ok(Step::End(offset, malformed.what)),
        };
        let frame = self.bytes(offset, header.frame_bytes())?;
        if frame.len() < header.frame_bytes() {
            return Ok(Step::End(offset, "a frame runs past the end of the file"));
        }
        let body = frame.slice(HEADER_BYTES..);
        let mut records = Vec::with_capacity(usize::from(header.count));
        let base = offset + HEADER_BYTES as u64;
        let each = |position, within: usize, record| {
            records.push((position, base + within as u64, record))
        };
        if let Err(malformed) = frame::records(body, &header, self.seal, each) {
            return Ok(Step::End(offset, malformed.what));
        }
        self.offset = offset + header.frame_bytes() as u64;
        self.next = header.end();
        Ok(Step::Frame(offset, header, records))
    }

    /// Looks behind a place without a good frame for proof that something durable stood there: a later good frame
    /// that was written when the bytes at `damaged` were already synced. Gives that frame's offset.
    pub(crate) fn proof_of_damage(&mut self, damaged: u64) -> Result<Option<u64>, StorageError> {
        let mut offset = damaged + frame::ALIGNMENT as u64;
        while offset + HEADER_BYTES as u64 <= self.size {
            let bytes = self.bytes(offset, HEADER_BYTES)?;
            if bytes.iter().any(|&byte| byte != 0)
                && let Ok(header) = frame::decode_header(&bytes, self.seal)
                && header.first >= self.next
                && offset.saturating_sub(u64::from(header.unsynced)) > damaged
            {
                return Ok(Some(offset));
            }
            offset += frame::ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// Where the next frame is looked for.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Finds the next frame whose header is sound, wherever it is, and what there is of its body, unchecked. The walk goes on
    /// behind it. For salvaging.
    pub(crate) fn next_sound_header(
        &mut self,
    ) -> Result<Option<(u64, FrameHeader, Bytes)>, StorageError> {
        let mut offset = self.offset;
        while offset + HEADER_BYTES as u64 <= self.size {
            let bytes = self.bytes(offset, HEADER_BYTES)?;
            if bytes.iter().any(|&byte| byte != 0)
                && let Ok(header) = frame::decode_header(&bytes, self.seal)
                && header.first >= self.next
            {
                let frame = self.bytes(offset, header.frame_bytes())?;
                self.offset = offset + header.frame_bytes() as u64;
                self.next = header.end();
                return Ok(Some((offset, header, frame.slice(HEADER_BYTES..))));
            }
            offset += frame::ALIGNMENT as u64;
        }
        Ok(None)
    }

    /// Goes on at the next frame behind a hole: a bug, planted for the simulation to find.
    pub(crate) fn jump(&mut self, hole: u64) -> Result<bool, StorageError> {
        if !planted::is(Planted::ScanJumpsHole) {
            return Ok(false);
        }
        let mut offset = hole + frame::ALIGNMENT as u64;
        while offset + HEADER_BYTES as u64 <= self.size {
            let bytes = self.bytes(offset, HEADER_BYTES)?;
            if let Ok(header) = frame::decode_header(&bytes, self.seal) {
                self.offset = offset;
                self.next = header.first;
                return Ok(true);
            }
            offset += frame::ALIGNMENT as u64;
        }
        Ok(false)
    }

    /// Offset behind the last byte that is not zero, from `from` on.
    pub(crate) fn end_of_data(&mut self, from: u64) -> Result<u64, StorageError> {
        let (mut offset, mut end) = (from, from);
        while offset < self.size {
            let bytes = self.bytes(offset, usize::try_from(WINDOW_BYTES).unwrap_or(0))?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|&byte| byte != 0) {
                end = offset + last as u64 + 1;
            }
            offset += bytes.len() as u64;
        }
        Ok(end)
    }
}
