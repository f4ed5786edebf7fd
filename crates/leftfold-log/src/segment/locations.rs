//! Where in its segment each event lies.
//!
//! **Owns:** [`Locations`], in memory for the newest segment and in a file for sealed ones, and the file's layout
//! (docs/format.md section 5). **Does not know:** what lies at an offset.
//! **Invariants:** derived from the segment and rebuilt if missing; offsets rise; every block is checksummed; the file says
//! which events of its segment are erased, so that one of another generation is not taken for it.
//!
//! File: header of 64 bytes `magic [8] | format u32 | count u32 | log id [16] | first u64 | end u64 | erased sum u64 | zeros
//! [4] | crc u32`, then blocks of 4 KiB: 1,023 offsets of 32 bits and a checksum. The format is 1 and the sum 0 if nothing
//! is erased.

use std::sync::{Arc, PoisonError, RwLock, atomic::Ordering};

use leftfold_model::Position;

use super::Segment;
use crate::{
    cache::{FileCache, FileId},
    disk::{FileKind, FileName},
    error::StorageError,
    nowait,
    record::{
        Checksum, Malformed,
        header::{Erased, SegmentHeader},
        malformed, take, take_array,
    },
};

const HEADER_BYTES: usize = 64;
const BLOCK_BYTES: usize = 4_096;
const BLOCK_OFFSETS: usize = (BLOCK_BYTES - 4) / 4;
const MAGIC: [u8; 8] = *b"LFLOCATE";
const FORMAT: u32 = 2;
const FORMAT_WHOLE: u32 = 1;

/// Where the events of one segment lie.
#[derive(Debug, Clone)]
pub(crate) enum Locations {
    /// The segment is still written, or not sealed yet.
    Memory(Arc<RwLock<Growing>>),
    /// The segment is sealed; its locations are in a file.
    File(Sealed),
}

/// Locations in memory.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    /// Offset of each event's record.
    pub(crate) offsets: Vec<u32>,
    /// Offset behind the last frame.
    pub(crate) end: u32,
}

/// What is known of locations in a file without reading its blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sealed {
    pub(crate) count: u32,
    pub(crate) end: u32,
    pub(crate) seal: Checksum,
    /// The file, to the cache.
    pub(crate) id: FileId,
}

impl Locations {
    /// How many events the segment holds.
    pub(crate) fn count(&self) -> u32 {
        match self {
            Self::Memory(growing) => {
                let growing = growing.read().unwrap_or_else(PoisonError::into_inner);
                u32::try_from(growing.offsets.len()).unwrap_or(u32::MAX)
            }
            Self::File(sealed) => sealed.count,
        }
    }

    /// Offset behind the last frame.
    pub(crate) fn end(&self) -> u32 {
        match self {
            Self::Memory(growing) => growing.read().unwrap_or_else(PoisonError::into_inner).end,
            Self::File(sealed) => sealed.end,
        }
    }
}

impl Segment {
    /// Looks up several positions of this segment.
    pub(crate) fn location_reader<'a>(&'a self, handles: &'a FileCache) -> LocationReader<'a> {
        LocationReader {
            segment: self,
            handles,
            first: self.first,
            blocks: Vec::new(),
            offsets: Vec::new(),
        }
    }
}

/// Looks up positions of one segment; keeps the blocks it saw.
#[derive(Debug)]
pub(crate) struct LocationReader<'a> {
    segment: &'a Segment,
    handles: &'a FileCache,
    first: Position,
    blocks: Vec<(usize, Arc<[u8]>)>,
    /// Scratch.
    offsets: Vec<u32>,
}

impl LocationReader<'_> {
    /// Adds the offsets of the records at these positions, each with an offset at or behind its end.
    pub(crate) fn of(
        &mut self,
        positions: &[Position],
        out: &mut Vec<(u64, u64)>,
    ) -> Result<(), StorageError> {
        let follow = |a: &Position, b: &Position| a.next() == *b;
        for run in positions.chunk_by(follow) {
            let Some(first) = run.first() else { continue };
            let index = first.get().saturating_sub(self.first.get());
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            self.offsets(index, run.len())?;
            let found = self.offsets.len().checked_sub(1);
            if found != Some(run.len()) || !self.offsets.is_sorted_by(|a, b| a < b) {
                let what = format!("no sound location for position {first}");
                return Err(self.damage(0, what));
            }
            let pairs = self.offsets.windows(2).filter_map(|pair| match pair {
                [start, end] => Some((u64::from(*start), u64::from(*end))),
                _ => None,
            });
            out.extend(pairs);
        }
        Ok(())
    }

    /// Looks up the offsets of `count` records from `index` on, and of what follows the last.
    fn offsets(&mut self, index: usize, count: usize) -> Result<(), StorageError> {
        let mut offsets = std::mem::take(&mut self.offsets);
        offsets.clear();
        let wanted = index..index.saturating_add(count).saturating_add(1);
        match &self.segment.locations {
            Locations::Memory(growing) => {
                let growing = growing.read().unwrap_or_else(PoisonError::into_inner);
                let known =
                    wanted.start.min(growing.offsets.len())..wanted.end.min(growing.offsets.len());
                offsets.extend_from_slice(growing.offsets.get(known).unwrap_or_default());
                if offsets.len() == count {
                    offsets.push(growing.end);
                }
            }
            Locations::File(sealed) => {
                let end = wanted.end.min(sealed.count as usize);
                let mut at = wanted.start;
                while at < end {
                    let block = self.block(sealed, at / BLOCK_OFFSETS)?;
                    let within = at % BLOCK_OFFSETS;
                    let some = (end - at).min(BLOCK_OFFSETS - within);
                    let bytes = block.get(within * 4..(within + some) * 4);
                    let (numbers, _) = bytes.unwrap_or_default().as_chunks();
                    offsets.extend(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)));
                    at += some;
                }
                if offsets.len() == count {
                    offsets.push(sealed.end);
                }
            }
        }
        self.offsets = offsets;
        Ok(())
    }

    fn block(&mut self, sealed: &Sealed, number: usize) -> Result<Arc<[u8]>, StorageError> {
        let held = self.blocks.iter().rev().find(|(held, _)| *held == number);
        if let Some((_, block)) = held {
            return Ok(Arc::clone(block));
        }
        let offset = block_offset(number);
        let read = || self.read_block(sealed, number, offset);
        let block = self.handles.blocks().get(sealed.id, offset, read)?;
        self.blocks.push((number, Arc::clone(&block)));
        Ok(block)
    }
}

/// Where a block lies in its file.
fn block_offset(number: usize) -> u64 {
    HEADER_BYTES as u64 + number as u64 * BLOCK_BYTES as u64
}

impl LocationReader<'_> {
    /// Gets hold of the blocks for these positions that are in the cache, and announces those that will be read, if
    /// there are several.
    pub(crate) fn prepare(&mut self, positions: &[Position]) -> Result<(), StorageError> {
        let Locations::File(sealed) = &self.segment.locations else {
            return Ok(());
        };
        let first = self.first.get();
        let number = |position: &Position| {
            let index = position.get().saturating_sub(first);
            usize::try_from(index).unwrap_or(usize::MAX) / BLOCK_OFFSETS
        };
        let mut missing = Vec::new();
        for chunk in positions.chunk_by(|a, b| number(a) == number(b)) {
            let Some(number) = chunk.first().map(number) else {
                continue;
            };
            match self.handles.blocks().find(sealed.id, block_offset(number)) {
                Some(block) => self.blocks.push((number, block)),
                None => missing.push(number),
            }
        }
        if missing.len() > 1 {
            let file = self.handles.get(&self.segment.locations_name())?;
            for number in missing {
                file.will_read(block_offset(number), BLOCK_BYTES as u64);
            }
        }
        Ok(())
    }

    fn read_block(
        &self,
        sealed: &Sealed,
        number: usize,
        offset: u64,
    ) -> Result<Vec<u8>, StorageError> {
        let mut block = vec![0; BLOCK_BYTES];
        let name = &self.segment.locations_name();
        let file = self.handles.get(name)?;
        let read = nowait::read_exact_at(&*file, &mut block, offset);
        read.map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damage(offset, "the file is cut short"),
            _ => StorageError::io("read", name, e),
        })?;
        check_block(&block, sealed.seal, self.first, number)
            .map_err(|m| self.damage(offset, m.what))?;
        Ok(block)
    }

    /// Reports damage of the locations file, so that maintenance rebuilds it.
    fn damage(&self, offset: u64, found: impl Into<String>) -> StorageError {
        if matches!(self.segment.locations, Locations::File(_)) {
            self.segment
                .has_damaged_locations
                .store(true, Ordering::Release);
            self.handles.report_damage();
        }
        StorageError::corrupt(&self.segment.locations_name(), offset, found)
    }
}

/// Distinguishes the blocks of one file, and them from records, under the log's seal.
fn place(first: Position, number: usize) -> Position {
    Position::new(first.get() ^ ((number as u64 + 1) << 44))
}

fn check_block(
    block: &[u8],
    seal: Checksum,
    first: Position,
    number: usize,
) -> Result<(), Malformed> {
    let (offsets, crc) = block
        .split_last_chunk()
        .ok_or(malformed("a block is too short"))?;
    if seal.checksum(place(first, number), offsets) == u32::from_le_bytes(*crc) {
        Ok(())
    } else {
        Err(malformed("a block's checksum does not match"))
    }
}

/// What the locations file of a segment is: one of a rewritten segment has a name of its own, for the file it takes the
/// place of may still be read.
pub(crate) fn kind(first: Position, generation: u32, erased: Erased) -> FileKind {
    let generation = if erased.is_none() { 0 } else { generation };
    FileKind::Locations { first, generation }
}

fn header(of: &SegmentHeader, count: u32, end: u32) -> Vec<u8> {
    let format = if of.erased.is_none() {
        FORMAT_WHOLE
    } else {
        FORMAT
    };
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&format.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&of.log.0);
    out.extend_from_slice(&of.first.get().to_le_bytes());
    out.extend_from_slice(&u64::from(end).to_le_bytes());
    out.extend_from_slice(&of.erased.sum.to_le_bytes());
    out.resize(HEADER_BYTES - 4, 0);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

/// Writes the locations of a sealed segment and makes them durable.
pub(crate) fn write(
    handles: &FileCache,
    of: &SegmentHeader,
    growing: &Growing,
) -> Result<Sealed, StorageError> {
    let kind = kind(of.first, of.generation, of.erased);
    let count = u32::try_from(growing.offsets.len()).unwrap_or(u32::MAX);
    let seal = Checksum::of(of.log);
    let mut bytes = header(of, count, growing.end);
    for (number, offsets) in growing.offsets.chunks(BLOCK_OFFSETS).enumerate() {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        offsets
            .iter()
            .for_each(|offset| block.extend_from_slice(&offset.to_le_bytes()));
        block.resize(BLOCK_BYTES - 4, 0);
        let crc = seal.checksum(place(of.first, number), &block);
        block.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&block);
    }
    let file = handles.create(kind)?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    file.persist()?;
    Ok(Sealed {
        count,
        end: growing.end,
        seal,
        id: handles.blocks().file(),
    })
}

/// Opens the locations file of a sealed segment.
pub(crate) fn open(handles: &FileCache, of: &SegmentHeader) -> Result<Sealed, StorageError> {
    let name = FileName::of(kind(of.first, of.generation, of.erased));
    let file = handles.get(&name)?;
    let size = file
        .size()
        .map_err(|e| StorageError::io("measure", &name, e))?;
    let mut bytes = vec![0; HEADER_BYTES];
    if size < HEADER_BYTES as u64 {
        return Err(StorageError::corrupt(&name, size, "the file is cut short"));
    }
    file.read_exact_at(&mut bytes, 0)
        .map_err(|e| StorageError::io("read", &name, e))?;
    if let Some(found) = newer_format(&bytes) {
        let (file, newest) = (name, FORMAT);
        return Err(StorageError::NewerFormat {
            file,
            found,
            newest,
        });
    }
    let (count, end) =
        decode_counts(&bytes).map_err(|m| StorageError::corrupt(&name, 0, m.what))?;
    let blocks = u64::from(count).div_ceil(BLOCK_OFFSETS as u64);
    let fits = size == HEADER_BYTES as u64 + blocks * BLOCK_BYTES as u64;
    if bytes != header(of, count, end) || !fits {
        return Err(StorageError::corrupt(
            &name,
            0,
            "the header does not fit the file or the log",
        ));
    }
    Ok(Sealed {
        count,
        end,
        seal: Checksum::of(of.log),
        id: handles.blocks().file(),
    })
}

/// The format of a header that a newer version wrote, if it is one.
fn newer_format(bytes: &[u8]) -> Option<u32> {
    let (covered, crc) = bytes.split_last_chunk()?;
    let format = covered.strip_prefix(&MAGIC)?.first_chunk()?;
    let is_sound = crc32c::crc32c(covered) == u32::from_le_bytes(*crc);
    Some(u32::from_le_bytes(*format)).filter(|&format| is_sound && format > FORMAT)
}

fn decode_counts(mut bytes: &[u8]) -> Result<(u32, u32), Malformed> {
    take(&mut bytes, MAGIC.len() + 4)?;
    let count = u32::from_le_bytes(take_array(&mut bytes)?);
    take(&mut bytes, 24)?;
    let end = u64::from_le_bytes(take_array(&mut bytes)?);
    Ok((
        count,
        u32::try_from(end).map_err(|_| malformed("a segment is too long"))?,
    ))
}
