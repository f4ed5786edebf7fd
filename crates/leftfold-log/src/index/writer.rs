//! Writing an index file.
//!
//! **Owns:** the order in which the parts of an index file are written. **Does not know:** where terms come from.
//! **Invariants:** the file gets its name after its bytes are durable; memory holds one dictionary block, one path
//! of tree nodes, the filter and the fences, however long the postings are.

use leftfold_model::Position;

use super::{
    bloom,
    chunk::{self, CHUNK_POSTINGS},
    entry::{self, Child, Entry, INLINE_POSTINGS, NODE_CHILDREN, Stored},
    layout::{BlockChecksum, Footer, encode_header},
    mem_index::{MemIndexShards, MemTerm},
};
use crate::{
    atomic_file::AtomicFile,
    cache::FileCache,
    disk::{FileKind, FileName},
    error::StorageError,
    planted::{self, Planted},
    record::{LogId, varint},
};

/// A dictionary block is closed when it is this long: one read of the page cache's unit.
const DICTIONARY_BLOCK_BYTES: usize = 4_096;
/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes written before they are synced.
const SYNC_BYTES: u64 = 1024 * 1024;

/// Terms in rising order, with their postings in rising order.
pub(crate) trait TermPostings {
    /// How many terms there are, at most.
    fn terms_max(&self) -> u64;
    /// Goes to the next term; writes it into `term` and gives its base.
    fn next_term(&mut self, term: &mut Vec<u8>) -> Result<Option<u64>, StorageError>;
    /// Adds the next postings of the current term to `postings`; `false`: there are no more.
    fn next_postings(&mut self, postings: &mut Vec<u64>) -> Result<bool, StorageError>;
}

/// The terms of a tail that gets no more postings.
#[derive(Debug)]
pub(crate) struct TailPostings<'a> {
    terms: std::vec::IntoIter<MemTerm<'a>>,
    current: Option<MemTerm<'a>>,
}

impl<'a> TailPostings<'a> {
    pub(crate) fn of(shards: &'a MemIndexShards<'a>) -> Self {
        Self {
            terms: shards.sorted().into_iter(),
            current: None,
        }
    }
}

impl TermPostings for TailPostings<'_> {
    fn terms_max(&self) -> u64 {
        self.terms.len() as u64
    }
    fn next_term(&mut self, term: &mut Vec<u8>) -> Result<Option<u64>, StorageError> {
        self.current = self.terms.next();
        Ok(self.current.as_ref().map(|of_tail| {
            term.clear();
            term.extend_from_slice(of_tail.term.as_bytes());
            of_tail.base()
        }))
    }
    fn next_postings(&mut self, postings: &mut Vec<u64>) -> Result<bool, StorageError> {
        let of_tail = self.current.take();
        Ok(of_tail.is_some_and(|of_tail| {
            postings.extend(of_tail.positions());
            true
        }))
    }
}

/// Writes the index of the events from `first` to `last`, and makes it durable. `None`: `go_on` said no.
pub(crate) fn write(
    files: &FileCache,
    log: LogId,
    (first, last): (Position, Position),
    source: &mut dyn TermPostings,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<FileName>, StorageError> {
    let file = files.create(FileKind::Index { first, last })?;
    let mut writer = Writer {
        file,
        seal: BlockChecksum::of(log, first, last),
        log,
        origin: first.get(),
        buffer: encode_header(log, first, last),
        written: 0,
        synced: 0,
        pending: Vec::new(),
        dictionary: Vec::new(),
        entries: 0,
        restarts: Vec::new(),
        block_first: Vec::new(),
        previous: Vec::new(),
        fences: Vec::new(),
        filter: bloom::Builder::for_terms(source.terms_max()),
        footer: Footer {
            filter_blocks: bloom::blocks(source.terms_max()),
            ..Footer::default()
        },
    };
    let mut term = Vec::new();
    while let Some(base) = source.next_term(&mut term)? {
        writer.term(&term, base, source)?;
        if !go_on() {
            return Ok(None);
        }
    }
    writer.finish()?;
    writer.file.persist()?;
    Ok(Some(FileName::of(FileKind::Index { first, last })))
}

struct Writer<'a> {
    file: AtomicFile<'a>,
    seal: BlockChecksum,
    log: LogId,
    origin: u64,
    buffer: Vec<u8>,
    written: u64,
    synced: u64,
    /// Scratch: postings that are not written yet.
    pending: Vec<u64>,
    dictionary: Vec<u8>,
    entries: usize,
    restarts: Vec<u16>,
    block_first: Vec<u8>,
    previous: Vec<u8>,
    fences: Vec<u8>,
    filter: bloom::Builder,
    footer: Footer,
}

impl Writer<'_> {
    fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Writes a block and its checksum.
    fn block(&mut self, bytes: &[u8], last: u64) -> Result<Child, StorageError> {
        let offset = self.offset();
        self.buffer.extend_from_slice(bytes);
        self.buffer
            .extend_from_slice(&self.seal.checksum(offset, bytes).to_le_bytes());
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        Ok(Child {
            last,
            offset,
            bytes: u32::try_from(bytes.len() + 4).unwrap_or(u32::MAX),
        })
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.write_at(&self.buffer, self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        // A little at a time, so that no sync of an append waits behind a whole index.
        if self.written - self.synced >= SYNC_BYTES && !planted::is(Planted::IndexNotSynced) {
            self.file.sync()?;
            self.synced = self.written;
        }
        Ok(())
    }

    fn term(
        &mut self,
        term: &[u8],
        base: u64,
        source: &mut dyn TermPostings,
    ) -> Result<(), StorageError> {
        let (count, stored) = self.postings(source)?;
        self.footer.terms += 1;
        self.footer.postings += count;
        self.filter.add(bloom::hash(&self.log.0, term));
        if self.dictionary.is_empty() {
            self.block_first = term.to_vec();
        }
        if self.entries.is_multiple_of(entry::RESTART_ENTRIES) {
            self.previous.clear();
            let offset = u16::try_from(self.dictionary.len()).unwrap_or(u16::MAX);
            self.restarts.push(offset);
        }
        self.entries += 1;
        let entry = Entry {
            base,
            count,
            stored,
        };
        entry::encode(
            &mut self.dictionary,
            &self.previous,
            term,
            &entry,
            self.origin,
        );
        self.previous.clear();
        self.previous.extend_from_slice(term);
        if self.dictionary.len() >= DICTIONARY_BLOCK_BYTES {
            self.close_dictionary_block()?;
        }
        Ok(())
    }

    fn postings(&mut self, source: &mut dyn TermPostings) -> Result<(u64, Stored), StorageError> {
        let mut tree = Tree::default();
        let mut pending = std::mem::take(&mut self.pending);
        pending.clear();
        let mut before = 0;
        while source.next_postings(&mut pending)? {
            tree.count += (pending.len() - before) as u64;
            let mut rest = pending.as_slice();
            // The last full chunk stays back: a short list is stored in the entry instead.
            while let Some((full, behind)) = rest.split_at_checked(CHUNK_POSTINGS) {
                if behind.is_empty() {
                    break;
                }
                self.chunk(full, &mut tree)?;
                rest = behind;
            }
            let done = pending.len() - rest.len();
            pending.drain(..done);
            before = pending.len();
        }
        if tree.count <= INLINE_POSTINGS {
            let stored = Stored::Inline(pending.as_slice().into());
            self.pending = pending;
            return Ok((tree.count, stored));
        }
        self.chunk(&pending, &mut tree)?;
        self.pending = pending;
        let (root, height) = self.root(tree.levels)?;
        Ok((tree.count, Stored::Tree { root, height }))
    }

    fn chunk(&mut self, positions: &[u64], tree: &mut Tree) -> Result<(), StorageError> {
        let mut bytes = Vec::with_capacity(positions.len() * 2);
        bytes.push(u8::try_from(positions.len()).unwrap_or(u8::MAX));
        chunk::encode(&mut bytes, self.origin, positions);
        let mut child = self.block(&bytes, positions.last().copied().unwrap_or(0))?;
        for level in 0.. {
            if tree.levels.len() == level {
                tree.levels.push(Vec::new());
            }
            let Some(children) = tree.levels.get_mut(level) else {
                break;
            };
            children.push(child);
            if children.len() < NODE_CHILDREN {
                break;
            }
            let children = std::mem::take(children);
            child = self.block(&entry::encode_node(&children), child.last)?;
        }
        Ok(())
    }

    /// Closes the open nodes from the lowest level up.
    fn root(&mut self, levels: Vec<Vec<Child>>) -> Result<(Child, u8), StorageError> {
        let mut carried: Option<Child> = None;
        let top = levels
            .iter()
            .rposition(|level| !level.is_empty())
            .unwrap_or(0);
        for (height, mut children) in levels.into_iter().enumerate().take(top + 1) {
            children.extend(carried.take());
            if let ([only], true) = (children.as_slice(), height == top) {
                return Ok((*only, u8::try_from(height).unwrap_or(u8::MAX)));
            }
            if let Some(last) = children.last().map(|child| child.last) {
                carried = Some(self.block(&entry::encode_node(&children), last)?);
            }
        }
        let root = carried.unwrap_or(Child {
            last: self.origin,
            offset: 0,
            bytes: 0,
        });
        Ok((root, u8::try_from(top + 1).unwrap_or(u8::MAX)))
    }

    fn close_dictionary_block(&mut self) -> Result<(), StorageError> {
        let mut block = std::mem::take(&mut self.dictionary);
        entry::encode_restarts(&mut block, &self.restarts);
        self.restarts.clear();
        self.entries = 0;
        let child = self.block(&block, 0)?;
        varint::put(&mut self.fences, self.block_first.len() as u64);
        self.fences.extend_from_slice(&self.block_first);
        varint::put(&mut self.fences, child.offset);
        varint::put(&mut self.fences, u64::from(child.bytes));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), StorageError> {
        if !self.dictionary.is_empty() {
            self.close_dictionary_block()?;
        }
        self.footer.filter_offset = self.offset();
        let filter =
            std::mem::replace(&mut self.filter, bloom::Builder::for_terms(0)).into_blocks();
        for block in filter.chunks(bloom::BLOCK_BYTES) {
            self.block(block.get(..bloom::BLOCK_BYTES - 4).unwrap_or_default(), 0)?;
        }
        self.footer.fences_offset = self.offset();
        let fences = std::mem::take(&mut self.fences);
        self.block(&fences, 0)?;
        let footer = self.footer.encode(self.seal, self.offset());
        self.buffer.extend_from_slice(&footer);
        self.flush()?;
        if planted::is(Planted::IndexNotSynced) {
            return Ok(());
        }
        self.file.sync()
    }
}

/// The open nodes of a term's tree, lowest level first.
#[derive(Default)]
struct Tree {
    count: u64,
    levels: Vec<Vec<Child>>,
}
