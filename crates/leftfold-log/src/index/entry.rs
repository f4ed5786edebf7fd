//! Dictionary entries and tree nodes: how a term's postings are found in an index file.
//!
//! **Owns:** the bytes of an entry and of a node. **Does not know:** files and checksums.
//! **Invariants:** every node but the last of its level is full, so an ordinal leads straight to its chunk; no
//! bytes make a decoder panic or allocate beyond them.

use super::chunk;
use crate::record::{Malformed, malformed, take, take_array, varint};

/// Lists up to this long live in the dictionary itself: most terms are rare.
pub(crate) const INLINE_POSTINGS: u64 = 8;
/// Children of a full node.
pub(crate) const NODE_CHILDREN: usize = 256;
/// Terms are at most a kind and a stream name long.
const TERM_BYTES_MAX: usize = 1 + leftfold_model::limits::STREAM_NAME_BYTES_MAX;
const CHILD_BYTES: usize = 20;

/// Where a block lies, and the last position below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) last: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// How a term's postings are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// In the entry.
    Inline(Vec<u64>),
    /// Below this root: a chunk if `height` is 0, else a node.
    Tree { root: Child, height: u8 },
}

/// What the dictionary knows of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// For streams: how many postings older sources have.
    pub(crate) base: u64,
    /// How many postings this file has.
    pub(crate) count: u64,
    pub(crate) stored: Stored,
}

impl Entry {
    /// The last position.
    pub(crate) fn last(&self) -> u64 {
        match &self.stored {
            Stored::Inline(positions) => positions.last().copied().unwrap_or(0),
            Stored::Tree { root, .. } => root.last,
        }
    }
}

/// Appends a term, leaving out what it shares with the one before it in the block, and its entry.
pub(crate) fn encode(out: &mut Vec<u8>, before: &[u8], bytes: &[u8], entry: &Entry, origin: u64) {
    let shared = before.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    let suffix = bytes.get(shared..).unwrap_or_default();
    varint::put(out, shared as u64);
    varint::put(out, suffix.len() as u64);
    out.extend_from_slice(suffix);
    varint::put(out, entry.base);
    varint::put(out, entry.count);
    match &entry.stored {
        Stored::Inline(positions) => chunk::encode(out, origin, positions),
        Stored::Tree { root, height } => {
            out.push(*height);
            varint::put(out, root.last);
            varint::put(out, root.offset);
            varint::put(out, u64::from(root.bytes));
        }
    }
}

/// Splits a term and its entry off the front of a dictionary block. `term` holds the one before, and is replaced.
pub(crate) fn take_entry(
    bytes: &mut &[u8],
    term: &mut Vec<u8>,
    (first, last): (u64, u64),
) -> Result<Entry, Malformed> {
    let shared = usize::try_from(varint::take(bytes)?).unwrap_or(usize::MAX);
    let suffix = varint::take_length(bytes)?;
    if shared > term.len() || shared.saturating_add(suffix) > TERM_BYTES_MAX {
        return Err(malformed("a term's length is over the limit"));
    }
    term.truncate(shared);
    term.extend_from_slice(take(bytes, suffix)?);
    let base = varint::take(bytes)?;
    let count = varint::take(bytes)?;
    if count == 0 || count > last.saturating_sub(first).saturating_add(1) {
        return Err(malformed("a term's count is out of range"));
    }
    let stored = if count <= INLINE_POSTINGS {
        Stored::Inline(chunk::decode(
            bytes,
            usize::try_from(count).unwrap_or(0),
            first,
            last,
        )?)
    } else {
        let [height] = take_array(bytes)?;
        let root = Child {
            last: varint::take(bytes)?,
            offset: varint::take(bytes)?,
            bytes: u32::try_from(varint::take(bytes)?)
                .map_err(|_| malformed("a block is too long"))?,
        };
        if height > 7 || !(first..=last).contains(&root.last) {
            return Err(malformed("a tree is out of range"));
        }
        Stored::Tree { root, height }
    };
    Ok(Entry {
        base,
        count,
        stored,
    })
}

/// Entries from one restart to the next.
pub(crate) const RESTART_ENTRIES: usize = 16;

/// Ends a dictionary block: where in it the terms lie that are written whole.
pub(crate) fn encode_restarts(out: &mut Vec<u8>, restarts: &[u16]) {
    for restart in restarts {
        out.extend_from_slice(&restart.to_le_bytes());
    }
    let count = u16::try_from(restarts.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&count.to_le_bytes());
}

/// A dictionary block's entries and its restarts.
fn split_restarts(block: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let short = malformed("a dictionary block is too short");
    let (rest, count) = block.split_last_chunk().ok_or(short)?;
    let restarts = usize::from(u16::from_le_bytes(*count)) * 2;
    let entries = rest.len().checked_sub(restarts);
    let entries = entries.ok_or(malformed("a dictionary block is too short"))?;
    Ok(rest.split_at(entries))
}

/// The entries of a dictionary block.
pub(crate) fn entries(block: &[u8]) -> Result<&[u8], Malformed> {
    split_restarts(block).map(|(entries, _)| entries)
}

/// Finds a term in a dictionary block.
pub(crate) fn find(
    block: &[u8],
    term: &[u8],
    range: (u64, u64),
) -> Result<Option<Entry>, Malformed> {
    let (entries, restarts) = split_restarts(block)?;
    let at = |nth: usize| -> Result<&[u8], Malformed> {
        let bytes = restarts.get(nth * 2..).and_then(<[u8]>::first_chunk);
        let offset = bytes.map(|bytes| usize::from(u16::from_le_bytes(*bytes)));
        let rest = offset.and_then(|offset| entries.get(offset..));
        rest.ok_or(malformed("a restart lies outside of its block"))
    };
    // The last restart whose term is not behind the one looked for.
    let (mut low, mut high) = (0, restarts.len() / 2);
    while low < high {
        let middle = low.midpoint(high);
        if whole_term(at(middle)?)? <= term {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let Some(restart) = low.checked_sub(1) else {
        return Ok(None);
    };
    let mut rest = at(restart)?;
    let mut found = Vec::with_capacity(term.len() + 16);
    while !rest.is_empty() {
        let entry = take_entry(&mut rest, &mut found, range)?;
        match found.as_slice().cmp(term) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => return Ok(Some(entry)),
            std::cmp::Ordering::Greater => break,
        }
    }
    Ok(None)
}

/// The term at the front of an entry that shares nothing with the one before it.
fn whole_term(mut bytes: &[u8]) -> Result<&[u8], Malformed> {
    if varint::take(&mut bytes)? != 0 {
        return Err(malformed("a term at a restart is not whole"));
    }
    let length = varint::take_length(&mut bytes)?;
    take(&mut bytes, length)
}

/// The bytes of a node.
pub(crate) fn encode_node(children: &[Child]) -> Vec<u8> {
    let mut out = Vec::with_capacity(children.len() * CHILD_BYTES);
    for child in children {
        out.extend_from_slice(&child.last.to_le_bytes());
        out.extend_from_slice(&child.offset.to_le_bytes());
        out.extend_from_slice(&child.bytes.to_le_bytes());
    }
    out
}

/// The children of a node, in order.
pub(crate) fn decode_node(mut bytes: &[u8]) -> Result<Vec<Child>, Malformed> {
    if bytes.is_empty() || bytes.len() > NODE_CHILDREN * CHILD_BYTES {
        return Err(malformed("a node has a wrong length"));
    }
    let mut children = Vec::with_capacity(bytes.len() / CHILD_BYTES);
    while !bytes.is_empty() {
        let last = u64::from_le_bytes(take_array(&mut bytes)?);
        let offset = u64::from_le_bytes(take_array(&mut bytes)?);
        children.push(Child {
            last,
            offset,
            bytes: u32::from_le_bytes(take_array(&mut bytes)?),
        });
    }
    if children.is_sorted_by(|a, b| a.last < b.last) {
        Ok(children)
    } else {
        Err(malformed("a node's children do not rise"))
    }
}
