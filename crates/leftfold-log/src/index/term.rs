//! Terms: what postings lists are kept for.
//!
//! **Owns:** [`Term`]. **Does not know:** postings.
//! **Invariants:** a term's bytes are its kind and its name, so kinds never mix; terms sort by bytes, so all
//! streams of a listing lie side by side.

use std::borrow::Borrow;

use leftfold_model::{EventType, StreamName, Tag};

/// What a term names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum TermKind {
    Stream = 1,
    Category = 2,
    Type = 3,
    Tag = 4,
}

/// Writes the bytes of a term into `out`, replacing what it held; for callers that look up many.
pub(crate) fn write(out: &mut Vec<u8>, kind: TermKind, name: &str) {
    out.clear();
    out.push(kind as u8);
    out.extend_from_slice(name.as_bytes());
}

/// Bytes of a term's [`sort_prefix`].
pub(crate) const FRONT_BYTES: usize = 24;

/// The first bytes of a term, and zeros if it is shorter: terms whose fronts differ sort as those do.
pub(crate) fn sort_prefix(term: &[u8]) -> [u8; FRONT_BYTES] {
    let mut front = [0; FRONT_BYTES];
    for (to, from) in front.iter_mut().zip(term) {
        *to = *from;
    }
    front
}

/// A kind and a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Term(Box<[u8]>);

impl Term {
    fn of(kind: TermKind, name: &str) -> Self {
        let mut bytes = Vec::with_capacity(1 + name.len());
        write(&mut bytes, kind, name);
        Self(bytes.into())
    }

    pub(crate) fn stream(name: &StreamName) -> Self {
        Self::of(TermKind::Stream, name.as_str())
    }
    pub(crate) fn category(name: &str) -> Self {
        Self::of(TermKind::Category, name)
    }
    pub(crate) fn event_type(name: &EventType) -> Self {
        Self::of(TermKind::Type, name.as_str())
    }
    pub(crate) fn tag(name: &Tag) -> Self {
        Self::of(TermKind::Tag, name.as_str())
    }
    pub(crate) fn stream_prefix(prefix: &str) -> Self {
        Self::of(TermKind::Stream, prefix)
    }

    /// A term read from a file; the reader has checked the bytes against their checksum.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name without the kind.
    pub(crate) fn name(&self) -> &[u8] {
        self.0.get(1..).unwrap_or_default()
    }
}

impl Borrow<[u8]> for Term {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}
