//! The index of a segment that is not flushed yet, in memory.
//!
//! **Owns:** [`MemIndex`]. **Does not know:** files; when it is flushed.
//! **Invariants:** one thread adds, many look up; a lock is held for one lookup and a copy of at most one chunk, never across
//! I/O; a reader names the newest position it may see and gets nothing after it, even if the writer is further; memory is
//! bounded by the events of one segment.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::fast::RandomState;
use leftfold_model::Position;

use super::{
    Term,
    chunk::{CHUNK_POSTINGS, Chunk},
    term::{FRONT_BYTES, sort_prefix},
};

/// Parts of the map, each with its lock, so that readers of different terms do not meet.
const SHARDS: usize = 32;
/// Memory of a term beside its name and postings, about: its entry in the map and the map's empty places.
const TERM_BYTES: usize = 96;

/// The postings of the events of one segment.
#[derive(Debug)]
pub(crate) struct MemIndex {
    first: u64,
    shards: Vec<RwLock<HashMap<Term, List, RandomState>>>,
    hasher: RandomState,
    bytes: AtomicUsize,
}

/// Postings of one term, as distances from the first position of the tail.
#[derive(Debug)]
struct List {
    base: u64,
    postings: Postings,
}

/// Most terms of a segment occur once, and need no allocation.
#[derive(Debug)]
enum Postings {
    One([u32; 1]),
    Many(Vec<u32>),
}

impl Postings {
    fn of(run: Range<u32>) -> Self {
        if run.len() == 1 {
            Self::One([run.start])
        } else {
            Self::Many(run.collect())
        }
    }
}

impl List {
    fn as_slice(&self) -> &[u32] {
        match &self.postings {
            Postings::One(one) => one,
            Postings::Many(many) => many,
        }
    }

    fn extend(&mut self, run: Range<u32>) {
        match &mut self.postings {
            Postings::One([one]) => {
                let mut many = Vec::with_capacity(1 + run.len().max(3));
                many.push(*one);
                many.extend(run);
                self.postings = Postings::Many(many);
            }
            Postings::Many(many) => many.extend(run),
        }
    }

    /// The postings not behind `through`.
    fn visible(&self, first: u64, through: u64) -> &[u32] {
        let all = self.as_slice();
        let count = match all.last() {
            Some(&last) if first + u64::from(last) <= through => all.len(),
            _ => all.partition_point(|&distance| first + u64::from(distance) <= through),
        };
        all.get(..count).unwrap_or_default()
    }
}

impl MemIndex {
    /// An empty tail for events from `first` on.
    pub(crate) fn new(first: Position) -> Self {
        let hasher = RandomState::default();
        let shard = |_| RwLock::new(HashMap::with_hasher(hasher.clone()));
        Self {
            first: first.get(),
            shards: (0..SHARDS).map(shard).collect(),
            hasher,
            bytes: AtomicUsize::new(0),
        }
    }

    /// The first position it covers.
    pub(crate) fn first(&self) -> Position {
        Position::new(self.first)
    }

    fn shard(&self, term: &[u8]) -> &RwLock<HashMap<Term, List, RandomState>> {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one(term);
        // Neither the highest nor the lowest bits: inside of its shard the map sorts by those.
        let index = usize::try_from((hash >> 32) & 0xffff).unwrap_or(0) % SHARDS;
        match self.shards.get(index) {
            Some(shard) => shard,
            // SHARDS is positive and the index is below it.
            None => unreachable!("a shard index is below the number of shards"),
        }
    }

    /// Adds a posting; `base` is the number of postings in older sources, used if the term is new here.
    pub(crate) fn add(&self, term: &[u8], position: Position, base: u64) {
        self.add_run(term, position, 1, base);
    }

    /// Adds postings of `count` positions, from `first` on.
    pub(crate) fn add_run(&self, term: &[u8], first: Position, count: u32, base: u64) {
        // A segment holds fewer events than fit in 32 bits (LogOptions).
        let distance = u32::try_from(first.get().saturating_sub(self.first)).unwrap_or(u32::MAX);
        let run = distance..distance.saturating_add(count);
        let mut bytes = run.len() * size_of::<u32>();
        let mut shard = self
            .shard(term)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = shard.get_mut(term) {
            list.extend(run);
        } else {
            bytes += term.len() + TERM_BYTES;
            shard.insert(
                Term::from_bytes(term),
                List {
                    base,
                    postings: Postings::of(run),
                },
            );
        }
        drop(shard);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of memory it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn with<R>(&self, term: &[u8], look: impl FnOnce(&List) -> R) -> Option<R> {
        let shard = self
            .shard(term)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        shard.get(term).map(look)
    }

    /// How many postings the term has in older sources and in this one, if it is here at all.
    pub(crate) fn count(&self, term: &[u8], through: Position) -> Option<(u64, u64)> {
        self.with(term, |list| {
            (
                list.base,
                list.visible(self.first, through.get()).len() as u64,
            )
        })
    }

    /// The newest posting of the term, decided ones included.
    pub(crate) fn newest(&self, term: &[u8]) -> Option<Position> {
        self.with(term, |list| {
            let distance = list.as_slice().last()?;
            Some(Position::new(self.first + u64::from(*distance)))
        })?
    }

    /// The chunk that begins with the first posting at or behind `position`.
    pub(crate) fn chunk_after(
        &self,
        term: &[u8],
        position: Position,
        through: Position,
    ) -> Option<Chunk> {
        self.with(term, |list| {
            let visible = list.visible(self.first, through.get());
            let from = visible.partition_point(|&d| self.first + u64::from(d) < position.get());
            self.chunk(visible, from, from.saturating_add(CHUNK_POSTINGS))
        })?
    }

    /// The chunk that ends with the last posting at or before `position`.
    pub(crate) fn chunk_before(
        &self,
        term: &[u8],
        position: Position,
        through: Position,
    ) -> Option<Chunk> {
        self.with(term, |list| {
            let visible = list.visible(self.first, through.get());
            let to = visible.partition_point(|&d| self.first + u64::from(d) <= position.get());
            self.chunk(visible, to.saturating_sub(CHUNK_POSTINGS), to)
        })?
    }

    /// The position of the posting with this ordinal in this source.
    pub(crate) fn position_at(
        &self,
        term: &[u8],
        ordinal: u64,
        through: Position,
    ) -> Option<Position> {
        self.with(term, |list| {
            let visible = list.visible(self.first, through.get());
            let distance = visible.get(usize::try_from(ordinal).ok()?)?;
            Some(Position::new(self.first + u64::from(*distance)))
        })?
    }

    fn chunk(&self, visible: &[u32], from: usize, to: usize) -> Option<Chunk> {
        let slice = visible
            .get(from..to.min(visible.len()))
            .filter(|slice| !slice.is_empty())?;
        let positions = slice
            .iter()
            .map(|&distance| self.first + u64::from(distance))
            .collect();
        Some(Chunk {
            ordinal: from as u64,
            positions,
        })
    }

    /// All terms that `keep` accepts, sorted.
    pub(crate) fn terms(&self, keep: impl Fn(&Term) -> bool) -> Vec<Term> {
        let mut terms = Vec::new();
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            terms.extend(shard.keys().filter(|term| keep(term)).cloned());
        }
        terms.sort_unstable();
        terms
    }

    /// All of the tail, to be looked at for long: who adds to it meanwhile waits.
    pub(crate) fn shards(&self) -> MemIndexShards<'_> {
        let shards = self.shards.iter();
        let held = shards.map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        MemIndexShards {
            first: self.first,
            shards: held.collect(),
        }
    }
}

type Shard<'a> = RwLockReadGuard<'a, HashMap<Term, List, RandomState>>;

/// A tail whose shards are held.
#[derive(Debug)]
pub(crate) struct MemIndexShards<'a> {
    first: u64,
    shards: Vec<Shard<'a>>,
}

/// A term of a tail.
#[derive(Debug)]
pub(crate) struct MemTerm<'a> {
    front: [u8; FRONT_BYTES],
    pub(crate) term: &'a Term,
    list: &'a List,
    first: u64,
}

impl MemIndexShards<'_> {
    /// The terms, sorted.
    pub(crate) fn sorted(&self) -> Vec<MemTerm<'_>> {
        let mut terms: Vec<MemTerm<'_>> = self
            .shards
            .iter()
            .flat_map(|shard| shard.iter())
            .map(|(term, list)| MemTerm {
                front: sort_prefix(term.as_bytes()),
                term,
                list,
                first: self.first,
            })
            .collect();
        // Comparing the front of the names first saves most looks at memory far away.
        terms.sort_unstable_by(|a, b| a.front.cmp(&b.front).then_with(|| a.term.cmp(b.term)));
        terms
    }
}

impl MemTerm<'_> {
    /// How many postings older sources have.
    pub(crate) fn base(&self) -> u64 {
        self.list.base
    }

    pub(crate) fn positions(&self) -> impl Iterator<Item = u64> {
        let position = |&distance: &u32| self.first + u64::from(distance);
        self.list.as_slice().iter().map(position)
    }
}
