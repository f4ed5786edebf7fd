//! The names of an event: written once, then referred to.
//!
//! **Owns:** [`NameRef`] and its bytes; [`NameEncoder`], which finds names to refer to, and [`NameResolver`], which resolves such
//! references in a walk. **Does not know:** the rest of a record; files.
//! **Invariants:** a reference leads to an earlier event of the same segment, at most [`BACK_MAX`] events before, which
//! holds its names itself: no chains; the same names decode to the same names either way.
//!
//! Most events have the stream, type and tags of an event shortly before. A record then says how many events before
//! instead of repeating them.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash, Hasher},
};

use foldhash::fast::FixedState;
use leftfold_model::{EventType, NewEvent, Position, StreamName, Tag, limits};

use super::{Malformed, malformed, take, varint};

/// How many events before its own a reference may lead. More: fewer names are repeated, readers look further.
pub(crate) const BACK_MAX: u64 = 1_024;
/// How many names are remembered for references.
const SLOTS: usize = 1_024;

/// How a record tells its names.
#[derive(Clone, Debug)]
pub(crate) enum NameRef<N> {
    /// By themselves.
    Inline(N),
    /// They are those of the event this many before.
    Back(u64),
}

/// The names of an event, borrowed.
#[derive(Clone, Debug)]
pub(crate) struct Names<'a> {
    pub(crate) stream: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) tags: Tags<'a>,
}

/// The tags of an [`EventRef`](super::event::EventRef).
#[derive(Clone, Debug)]
pub struct Tags<'a> {
    bytes: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Tags<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        take_text(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Tags<'_> {}

/// The names of an event, owned.
#[derive(Clone, Debug)]
pub(crate) struct OwnedNames {
    pub(crate) stream: StreamName,
    pub(crate) event_type: EventType,
    pub(crate) tags: Vec<Tag>,
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    let length = varint::take_length(bytes).ok()?;
    std::str::from_utf8(take(bytes, length).ok()?).ok()
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    varint::put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn text_length(text: &str) -> usize {
    varint::length(text.len() as u64) + text.len()
}

impl NameRef<()> {
    /// Bytes that [`Self::put`] adds.
    pub(crate) fn length(&self, stream: &StreamName, event: &NewEvent) -> usize {
        match self {
            Self::Back(events) => varint::length(*events),
            Self::Inline(()) => {
                let tags = event.tags().iter().map(|tag| text_length(tag.as_str()));
                text_length(stream.as_str())
                    + text_length(event.event_type().as_str())
                    + varint::length(event.tags().len() as u64)
                    + tags.sum::<usize>()
            }
        }
    }

    /// Adds the names, or the reference to them.
    pub(crate) fn put(&self, out: &mut Vec<u8>, stream: &StreamName, event: &NewEvent) {
        match self {
            Self::Back(events) => varint::put(out, *events),
            Self::Inline(()) => {
                put_text(out, stream.as_str());
                put_text(out, event.event_type().as_str());
                varint::put(out, event.tags().len() as u64);
                for tag in event.tags() {
                    put_text(out, tag.as_str());
                }
            }
        }
    }
}

/// Splits a reference off the front of `bytes`.
pub(crate) fn take_back(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let events = varint::take(bytes)?;
    if (1..=BACK_MAX).contains(&events) {
        Ok(events)
    } else {
        Err(malformed("a reference to names is out of range"))
    }
}

impl<'a> Names<'a> {
    /// Splits names off the front of `bytes`.
    pub(crate) fn take(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        let stream = take_text(bytes).ok_or(malformed("a stream name is bad"))?;
        let event_type = take_text(bytes).ok_or(malformed("an event type is bad"))?;
        let count = varint::take(bytes)?;
        if count > limits::TAGS_PER_EVENT_MAX as u64 {
            return Err(malformed("an event has too many tags"));
        }
        let tags = Tags {
            bytes,
            left: usize::try_from(count).unwrap_or(0),
        };
        for _ in 0..count {
            take_text(bytes).ok_or(malformed("a tag is bad"))?;
        }
        Ok(Self {
            stream,
            event_type,
            tags,
        })
    }

    /// The bytes that [`Self::take`] reads.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, self.stream);
        put_text(&mut out, self.event_type);
        varint::put(&mut out, self.tags.len() as u64);
        for tag in self.tags.clone() {
            put_text(&mut out, tag);
        }
        out
    }

    pub(crate) fn owned(&self) -> Result<OwnedNames, Malformed> {
        let tag = |tag| Tag::new(tag).map_err(|_| malformed("a tag is bad"));
        Ok(OwnedNames {
            stream: StreamName::new(self.stream).map_err(|_| malformed("a stream name is bad"))?,
            event_type: EventType::new(self.event_type)
                .map_err(|_| malformed("an event type is bad"))?,
            tags: self.tags.clone().map(tag).collect::<Result<_, _>>()?,
        })
    }
}

/// Names that were written to the segment lately.
#[derive(Debug)]
pub(crate) struct NameEncoder {
    slots: Vec<Slot>,
    /// Equal in every log, so that equal appends give equal bytes.
    hasher: FixedState,
}

#[derive(Clone, Debug)]
enum Slot {
    Empty,
    /// Names of this hash came once: they are not worth remembering yet.
    Once(u64),
    /// These stand at this position.
    Held(Position, OwnedNames),
}

impl Default for NameEncoder {
    fn default() -> Self {
        Self {
            slots: vec![Slot::Empty; SLOTS],
            hasher: FixedState::with_seed(0),
        }
    }
}

impl NameEncoder {
    /// Forgets everything: what comes next is written to another segment, or what came last was not written.
    pub(crate) fn clear(&mut self) {
        self.slots.fill(Slot::Empty);
    }

    /// How the event that is written at this position tells its names.
    pub(crate) fn naming(
        &mut self,
        position: Position,
        stream: &StreamName,
        event: &NewEvent,
    ) -> NameRef<()> {
        let hash = self.hash(stream, event);
        let index = usize::try_from(hash % SLOTS as u64).unwrap_or(0);
        let Some(slot) = self.slots.get_mut(index) else {
            return NameRef::Inline(());
        };
        let hold = match slot {
            Slot::Held(at, names) if names.are(stream, event) => {
                let back = position.get().saturating_sub(at.get());
                if (1..=BACK_MAX).contains(&back) {
                    return NameRef::Back(back);
                }
                true
            }
            Slot::Once(before) => *before == hash,
            _ => false,
        };
        *slot = if hold {
            Slot::Held(position, OwnedNames::of(stream, event))
        } else {
            Slot::Once(hash)
        };
        NameRef::Inline(())
    }

    fn hash(&self, stream: &StreamName, event: &NewEvent) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        stream.hash(&mut hasher);
        event.event_type().hash(&mut hasher);
        event.tags().hash(&mut hasher);
        hasher.finish()
    }
}

impl OwnedNames {
    fn of(stream: &StreamName, event: &NewEvent) -> Self {
        Self {
            stream: stream.clone(),
            event_type: event.event_type().clone(),
            tags: event.tags().to_vec(),
        }
    }

    fn are(&self, stream: &StreamName, event: &NewEvent) -> bool {
        self.stream == *stream
            && self.event_type == *event.event_type()
            && self.tags == event.tags()
    }
}

/// Names met in a walk over a segment, as far back as references lead.
#[derive(Debug, Default)]
pub(crate) struct NameResolver {
    held: VecDeque<(Position, OwnedNames)>,
}

impl NameResolver {
    /// The names of the event at `position`, which comes behind all that came before.
    pub(crate) fn resolve(
        &mut self,
        position: Position,
        naming: &NameRef<Names<'_>>,
    ) -> Result<OwnedNames, Malformed> {
        match naming {
            NameRef::Inline(names) => {
                let names = names.owned()?;
                let oldest = position.get().saturating_sub(BACK_MAX);
                while self.held.front().is_some_and(|(at, _)| at.get() < oldest) {
                    self.held.pop_front();
                }
                self.held.push_back((position, names.clone()));
                Ok(names)
            }
            NameRef::Back(events) => {
                let at = position.get().saturating_sub(*events);
                let found = self.held.binary_search_by_key(&at, |(at, _)| at.get());
                let names = found.ok().and_then(|index| self.held.get(index));
                let (_, names) = names.ok_or(malformed("a reference leads to no names"))?;
                Ok(names.clone())
            }
        }
    }
}
