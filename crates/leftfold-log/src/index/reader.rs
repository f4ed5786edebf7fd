//! Reading an index file.
//!
//! **Owns:** [`IndexFile`], an open index file.
//! **Does not know:** how it was written, what other files index.
//! **Invariants:** immutable; the file is open only while it is read, unless it is pinned; every byte is verified against a
//! checksum before use; memory holds the first term of each dictionary block, and everything else is read on demand, through
//! the block cache.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use leftfold_model::Position;

use super::{
    bloom,
    chunk::{self, CHUNK_POSTINGS, Chunk},
    entry::{self, Child, Entry, NODE_CHILDREN, Stored},
    layout::{BlockChecksum, EDGE_BYTES, FORMAT, Footer, check_header, newer_format},
    term::{FRONT_BYTES, sort_prefix},
};
use crate::{
    cache::{FileCache, FileId, PinnedFile},
    disk::{DiskFile, FileKind, FileName},
    error::StorageError,
    nowait,
    record::{LogId, Malformed, malformed, take, varint},
};

/// A dictionary block holds few long terms or many short ones; it never gets near this.
const BLOCK_BYTES_MAX: u64 = 64 * 1024;
/// Blocks of the filter that are read and cached together.
const FILTER_GROUP: u64 = 64;

/// An open index file.
#[derive(Debug)]
pub(crate) struct IndexFile {
    files: Arc<FileCache>,
    /// The file, once its name is going to be removed or given to another.
    pinned: OnceLock<PinnedFile>,
    is_damaged: AtomicBool,
    id: FileId,
    name: FileName,
    log: LogId,
    first: Position,
    last: Position,
    seal: BlockChecksum,
    footer: Footer,
    bytes: u64,
    fences: Vec<Fence>,
}

/// The first term of a dictionary block and where the block lies.
#[derive(Debug)]
struct Fence {
    /// The front of the term: most comparisons need no more, and no look at memory elsewhere.
    front: [u8; FRONT_BYTES],
    first: Box<[u8]>,
    block: Child,
}

impl IndexFile {
    /// Opens the index of the events from `first` to `last`, and checks its edges.
    pub(crate) fn open(
        files: &Arc<FileCache>,
        log: LogId,
        (first, last): (Position, Position),
    ) -> Result<Self, StorageError> {
        let name = FileName::of(FileKind::Index { first, last });
        let file = files.get(&name)?;
        let bytes = file
            .size()
            .map_err(|e| StorageError::io("measure", &name, e))?;
        let seal = BlockChecksum::of(log, first, last);
        let mut index_file = Self {
            files: Arc::clone(files),
            pinned: OnceLock::new(),
            is_damaged: AtomicBool::new(false),
            id: files.blocks().file(),
            name,
            log,
            first,
            last,
            seal,
            footer: Footer::default(),
            bytes,
            fences: Vec::new(),
        };
        let footer_offset = bytes
            .checked_sub(EDGE_BYTES as u64)
            .filter(|&at| at >= EDGE_BYTES as u64);
        let footer_offset =
            footer_offset.ok_or_else(|| index_file.damage(bytes, "the file is cut short"))?;
        let header = index_file.read(0, EDGE_BYTES as u64)?;
        if let Some(found) = newer_format(&header, log, first, last) {
            return Err(StorageError::NewerFormat {
                file: name,
                found,
                newest: FORMAT,
            });
        }
        check_header(&header, log, first, last).map_err(|m| index_file.malformed(0, &m))?;
        let footer = index_file.read(footer_offset, EDGE_BYTES as u64)?;
        let footer = Footer::decode(&footer, seal, footer_offset);
        index_file.footer = footer.map_err(|m| index_file.malformed(footer_offset, &m))?;
        index_file.read_fences(footer_offset)?;
        Ok(index_file)
    }

    fn read_fences(&mut self, end: u64) -> Result<(), StorageError> {
        let Footer {
            filter_offset,
            filter_blocks,
            fences_offset,
            ..
        } = self.footer;
        let filter_end = filter_blocks
            .checked_mul(bloom::BLOCK_BYTES as u64)
            .and_then(|bytes| filter_offset.checked_add(bytes));
        let in_order =
            filter_end == Some(fences_offset) && fences_offset < end && filter_blocks > 0;
        if !in_order {
            return Err(self.damage(end, "the parts of the file do not fit together"));
        }
        let block = self.read(fences_offset, end - fences_offset)?;
        let bytes = self
            .seal
            .open(fences_offset, &block)
            .map_err(|m| self.malformed(fences_offset, &m))?;
        let fences = decode_fences(bytes, filter_offset);
        self.fences = fences.map_err(|m| self.malformed(fences_offset, &m))?;
        Ok(())
    }

    /// Keeps the file readable after its name is removed or given to another file.
    pub(crate) fn pin(&self) -> Result<(), StorageError> {
        if self.pinned.get().is_none() {
            let _ = self.pinned.set(self.files.pin(self.file()?));
        }
        Ok(())
    }

    /// Whether a read found damage.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    fn file(&self) -> Result<Arc<dyn DiskFile>, StorageError> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(Arc::clone(&pinned.file));
        }
        let opened = self.files.get(&self.name);
        // It may have been pinned, and its name removed, in between.
        match self.pinned.get() {
            Some(pinned) => Ok(Arc::clone(&pinned.file)),
            None => opened,
        }
    }

    pub(crate) fn first(&self) -> Position {
        self.first
    }
    pub(crate) fn last(&self) -> Position {
        self.last
    }
    pub(crate) fn name(&self) -> &FileName {
        &self.name
    }
    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
    /// How many terms it holds.
    pub(crate) fn terms(&self) -> u64 {
        self.footer.terms
    }
    /// How many postings it holds, over all terms.
    pub(crate) fn postings(&self) -> u64 {
        self.footer.postings
    }

    /// What the file knows of a term; `None` if it does not hold it.
    pub(crate) fn entry(&self, term: &[u8]) -> Result<Option<Entry>, StorageError> {
        if !self.may_contain(term)? {
            return Ok(None);
        }
        let term_front = sort_prefix(term);
        let not_behind = |fence: &Fence| match fence.front.cmp(&term_front) {
            std::cmp::Ordering::Equal => &*fence.first <= term,
            order => order.is_lt(),
        };
        let index = self.fences.partition_point(not_behind);
        let Some(fence) = index
            .checked_sub(1)
            .and_then(|index| self.fences.get(index))
        else {
            return Ok(None);
        };
        let block = self.block(&fence.block)?;
        let range = (self.first.get(), self.last.get());
        entry::find(&block, term, range).map_err(|m| self.malformed(fence.block.offset, &m))
    }

    fn may_contain(&self, term: &[u8]) -> Result<bool, StorageError> {
        let hash = bloom::hash(&self.log.0, term);
        let index = bloom::block_of(hash, self.footer.filter_blocks);
        let (group, within) = (index / FILTER_GROUP, index % FILTER_GROUP);
        let offset = self.footer.filter_offset + group * FILTER_GROUP * bloom::BLOCK_BYTES as u64;
        let read = || self.read_filter(group * FILTER_GROUP, FILTER_GROUP);
        let blocks = self.files.blocks().get(self.id, offset, read)?;
        let mut blocks = blocks.chunks(bloom::BLOCK_BYTES);
        let block = blocks.nth(usize::try_from(within).unwrap_or(usize::MAX));
        let bits = block.and_then(|block| block.split_last_chunk::<4>());
        Ok(bits.is_none_or(|(bits, _)| bloom::may_contain(bits, hash)))
    }

    /// Reads and checks up to `count` blocks of the filter.
    fn read_filter(&self, first: u64, count: u64) -> Result<Vec<u8>, StorageError> {
        let size = bloom::BLOCK_BYTES as u64;
        let offset = self.footer.filter_offset + first * size;
        let count = count.min(self.footer.filter_blocks.saturating_sub(first));
        let blocks = self.read(offset, count * size)?;
        for (block, nth) in blocks.chunks(bloom::BLOCK_BYTES).zip(0..) {
            let offset = offset + nth * size;
            self.seal
                .open(offset, block)
                .map_err(|m| self.malformed(offset, &m))?;
        }
        Ok(blocks)
    }

    /// The chunk that holds the first posting at or behind `position`.
    pub(crate) fn chunk_after(
        &self,
        entry: &Entry,
        position: u64,
    ) -> Result<Option<Chunk>, StorageError> {
        match &entry.stored {
            Stored::Inline(positions) => Ok((entry.last() >= position).then(|| Chunk {
                ordinal: 0,
                positions: positions.clone(),
            })),
            Stored::Tree { root, .. } if root.last < position => Ok(None),
            Stored::Tree { root, height } => self
                .descend(root, *height, |children| {
                    children.partition_point(|child| child.last < position)
                })
                .map(Some),
        }
    }

    /// The chunk that holds the last posting at or before `position`.
    pub(crate) fn chunk_before(
        &self,
        entry: &Entry,
        position: u64,
    ) -> Result<Option<Chunk>, StorageError> {
        let chunk = match self.chunk_after(entry, position)? {
            Some(chunk) if chunk.at_or_before(position).is_some() => return Ok(Some(chunk)),
            Some(chunk) => chunk.ordinal.checked_sub(1),
            None => entry.count.checked_sub(1),
        };
        match chunk {
            Some(ordinal) => self.chunk_at(entry, ordinal),
            None => Ok(None),
        }
    }

    /// The chunk that holds the posting with this ordinal.
    pub(crate) fn chunk_at(
        &self,
        entry: &Entry,
        ordinal: u64,
    ) -> Result<Option<Chunk>, StorageError> {
        if ordinal >= entry.count {
            return Ok(None);
        }
        match &entry.stored {
            Stored::Inline(positions) => Ok(Some(Chunk {
                ordinal: 0,
                positions: positions.clone(),
            })),
            Stored::Tree { root, height } => {
                let mut index = ordinal / CHUNK_POSTINGS as u64;
                let mut width =
                    (NODE_CHILDREN as u64).saturating_pow(u32::from(*height).saturating_sub(1));
                let choose = |_: &[Child]| {
                    let child = usize::try_from(index / width).unwrap_or(usize::MAX);
                    index %= width;
                    width = (width / NODE_CHILDREN as u64).max(1);
                    child
                };
                self.descend(root, *height, choose).map(Some)
            }
        }
    }

    /// Walks from the root to a chunk by the children that `choose` names.
    fn descend(
        &self,
        root: &Child,
        height: u8,
        mut choose: impl FnMut(&[Child]) -> usize,
    ) -> Result<Chunk, StorageError> {
        let (mut at, mut index) = (*root, 0_u64);
        for _ in 0..height {
            let block = self.block(&at)?;
            let children = entry::decode_node(&block).map_err(|m| self.malformed(at.offset, &m))?;
            let chosen = choose(&children);
            let child = children.get(chosen);
            let child = *child.ok_or_else(|| self.damage(at.offset, "a node lacks a child"))?;
            index = index
                .saturating_mul(NODE_CHILDREN as u64)
                .saturating_add(chosen as u64);
            at = child;
        }
        let block = self.block(&at)?;
        let chunk = self
            .decode_chunk(&block)
            .map_err(|m| self.malformed(at.offset, &m))?;
        if chunk.last() != Some(&at.last) {
            return Err(self.damage(at.offset, "a chunk does not end where its node says"));
        }
        Ok(Chunk {
            ordinal: index.saturating_mul(CHUNK_POSTINGS as u64),
            positions: chunk,
        })
    }

    fn decode_chunk(&self, mut bytes: &[u8]) -> Result<Vec<u64>, Malformed> {
        let count = usize::from(*take(&mut bytes, 1)?.first().unwrap_or(&0));
        let positions = chunk::decode(&mut bytes, count, self.first.get(), self.last.get())?;
        if bytes.is_empty() {
            Ok(positions)
        } else {
            Err(malformed("bytes follow a chunk"))
        }
    }

    /// The number of the dictionary block that holds `term`, if the file does.
    pub(super) fn block_for(&self, term: &[u8]) -> usize {
        let behind = self.fences.partition_point(|fence| &*fence.first <= term);
        behind.saturating_sub(1)
    }

    /// Where the dictionary block of this number lies; `None` behind the last one.
    pub(super) fn dictionary_block(&self, number: usize) -> Option<Child> {
        self.fences.get(number).map(|fence| fence.block)
    }

    pub(super) fn take_entry(
        &self,
        block: &Child,
        rest: &mut &[u8],
        term: &mut Vec<u8>,
    ) -> Result<Entry, StorageError> {
        let range = (self.first.get(), self.last.get());
        entry::take_entry(rest, term, range).map_err(|m| self.malformed(block.offset, &m))
    }

    /// A block without its checksum, from the cache if it is there.
    fn block(&self, at: &Child) -> Result<Arc<[u8]>, StorageError> {
        let read = || self.read_block(at);
        self.files.blocks().get(self.id, at.offset, read)
    }

    /// Reads a block, checks its checksum and removes it.
    pub(super) fn read_block(&self, at: &Child) -> Result<Vec<u8>, StorageError> {
        let bytes = u64::from(at.bytes);
        let fits = at
            .offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.footer.filter_offset);
        if !fits || bytes > BLOCK_BYTES_MAX {
            return Err(self.damage(at.offset, "a block lies outside of its part of the file"));
        }
        let mut block = self.read(at.offset, bytes)?;
        let length = self
            .seal
            .open(at.offset, &block)
            .map_err(|m| self.malformed(at.offset, &m))?
            .len();
        block.truncate(length);
        Ok(block)
    }

    fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, StorageError> {
        if offset.checked_add(bytes).is_none_or(|end| end > self.bytes) {
            return Err(self.damage(offset, "a part runs past the end of the file"));
        }
        let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
        let read = nowait::read_exact_at(&*self.file()?, &mut buffer, offset);
        read.map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => self.damage(offset, "the file is cut short"),
            _ => StorageError::io("read", &self.name, e),
        })?;
        Ok(buffer)
    }

    pub(super) fn malformed(&self, offset: u64, malformed: &Malformed) -> StorageError {
        self.damage(offset, malformed.what)
    }

    /// Reports damage, so that maintenance rebuilds the file.
    fn damage(&self, offset: u64, found: &str) -> StorageError {
        self.is_damaged.store(true, Ordering::Release);
        self.files.report_damage();
        StorageError::corrupt(&self.name, offset, found)
    }

    /// Checks the checksums of the filter.
    pub(crate) fn check_filter(&self) -> Result<(), StorageError> {
        let mut first = 0;
        while first < self.footer.filter_blocks {
            self.read_filter(first, FILTER_GROUP)?;
            first += FILTER_GROUP;
        }
        Ok(())
    }
}

fn decode_fences(mut bytes: &[u8], limit: u64) -> Result<Vec<Fence>, Malformed> {
    let mut fences = Vec::new();
    while !bytes.is_empty() {
        let length = varint::take_length(&mut bytes)?;
        let first: Box<[u8]> = take(&mut bytes, length)?.into();
        let offset = varint::take(&mut bytes)?;
        let length = varint::take(&mut bytes)?;
        let length = u32::try_from(length).map_err(|_| malformed("a block is too long"))?;
        if offset >= limit {
            return Err(malformed("a block lies outside of the dictionary"));
        }
        fences.push(Fence {
            front: sort_prefix(&first),
            first,
            block: Child {
                last: 0,
                offset,
                bytes: length,
            },
        });
    }
    if fences.is_sorted_by(|a, b| a.first < b.first) {
        Ok(fences)
    } else {
        Err(malformed("fences do not rise"))
    }
}
