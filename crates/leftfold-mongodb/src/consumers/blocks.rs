//! Blocks: what a consumer parked and which timers it set, in documents that never change.
//!
//! **Owns:** [`BlockReference`], and which blocks a set of changes replaces. **Does not know:** what an entry means.
//! **Invariants:** the blocks of a list are in the order of their keys and do not overlap; a block holds a bounded number of
//! entries and bytes; a block is inserted once under an id of its own and never changed, so a writer that comes late
//! cannot bring anything back.

use std::collections::BTreeMap;

use leftfold_model::EventId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::document::to_i64;

/// Entries of a block, at most.
const ENTRIES_MAX: usize = 256;
/// Bytes of a block's entries, about: the entry that exceeds this begins the next block.
const BYTES_MAX: usize = 256 * 1024;
/// Neighbours with as many entries or fewer together are made one block when either is rewritten.
const MERGED_MAX: i64 = 128;

/// What blocks hold.
pub(super) trait Entry:
    Clone + Send + Sync + Serialize + DeserializeOwned + 'static
{
    /// By which entries are ordered and found; each is there once.
    type Key: Ord + Clone + Send + Sync;

    fn key(&self) -> Self::Key;

    /// Bytes of its texts and data.
    fn bytes(&self) -> usize;

    /// What the reference to a block with these entries says of them.
    fn mark(entries: &[Self]) -> i64;
}

/// A block, as the document of a consumer refers to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockReference<K> {
    pub(super) id: String,
    pub(super) first: K,
    pub(super) last: K,
    pub(super) count: i64,
    /// See [`Entry::mark`].
    pub(super) mark: i64,
}

/// A block.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Block<E> {
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) consumer: String,
    /// The version of the consumer that the block was written for: it is referred to by a later one, or never.
    pub(super) version: i64,
    pub(super) entries: Vec<E>,
}

/// Changes of a list of entries: what stands under a key afterwards, if anything does.
pub(super) type Changes<E> = BTreeMap<<E as Entry>::Key, Option<E>>;

/// Blocks that are replaced, one run of neighbours after the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Indexes into the list: from, and up to but not including.
    pub(super) blocks: std::ops::Range<usize>,
}

/// Finds the blocks that changes of these keys concern, as runs in their order.
pub(super) fn touched<'a, K: Ord + 'a>(
    references: &[BlockReference<K>],
    keys: impl Iterator<Item = &'a K>,
) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for key in keys {
        let behind = references.partition_point(|block| block.first <= *key);
        let index = behind.saturating_sub(1);
        let count = |index: usize| references.get(index).map(|block| block.count);
        let fits = |other: Option<i64>| {
            count(index)
                .zip(other)
                .is_some_and(|(one, other)| one + other <= MERGED_MAX)
        };
        let start = index - usize::from(fits(index.checked_sub(1).and_then(count)));
        let end = (index + 1).min(references.len()) + usize::from(fits(count(index + 1)));
        match runs.last_mut() {
            Some(run) if start <= run.blocks.end => run.blocks.end = run.blocks.end.max(end),
            _ => runs.push(Run { blocks: start..end }),
        }
    }
    runs
}

/// The list of blocks after changes, and the blocks that are new.
#[derive(Debug)]
pub(super) struct Rewritten<E: Entry> {
    pub(super) references: Vec<BlockReference<E::Key>>,
    pub(super) added: Vec<(String, Vec<E>)>,
    /// Ids of the blocks that are no longer referred to.
    pub(super) removed: Vec<String>,
    /// Entries before, and afterwards.
    pub(super) counts: (i64, i64),
}

/// Makes changes to the blocks of `runs`, whose entries are `loaded`, run by run.
pub(super) fn rewrite<E: Entry>(
    references: &[BlockReference<E::Key>],
    runs: &[Run],
    loaded: Vec<Vec<E>>,
    changes: Changes<E>,
) -> Rewritten<E> {
    let mut rewritten = Rewritten {
        references: Vec::new(),
        added: Vec::new(),
        removed: Vec::new(),
        counts: (references.iter().map(|block| block.count).sum(), 0),
    };
    let mut changes = changes.into_iter().peekable();
    let mut kept = 0;
    for (nth, (run, entries)) in runs.iter().zip(loaded).enumerate() {
        rewritten.references.extend(
            references
                .get(kept..run.blocks.start)
                .into_iter()
                .flatten()
                .cloned(),
        );
        kept = run.blocks.end;
        let gone = references.get(run.blocks.clone()).into_iter().flatten();
        rewritten.removed.extend(gone.map(|block| block.id.clone()));
        let mut list: BTreeMap<E::Key, E> = entries
            .into_iter()
            .map(|entry| (entry.key(), entry))
            .collect();
        // The changes of this run end where the next run begins.
        let next = runs
            .get(nth + 1)
            .and_then(|next| references.get(next.blocks.start));
        while let Some((key, change)) =
            changes.next_if(|(key, _)| next.is_none_or(|next| *key < next.first))
        {
            match change {
                Some(entry) => list.insert(key, entry),
                None => list.remove(&key),
            };
        }
        rewritten.add(list.into_values());
    }
    rewritten
        .references
        .extend(references.get(kept..).into_iter().flatten().cloned());
    rewritten.counts.1 = rewritten.references.iter().map(|block| block.count).sum();
    rewritten
}

impl<E: Entry> Rewritten<E> {
    /// Adds blocks with these entries, which are in order.
    fn add(&mut self, entries: impl Iterator<Item = E>) {
        let (mut block, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            if block.len() == ENTRIES_MAX || (bytes + entry.bytes() > BYTES_MAX && bytes > 0) {
                self.add_block(std::mem::take(&mut block));
                bytes = 0;
            }
            bytes += entry.bytes();
            block.push(entry);
        }
        self.add_block(block);
    }

    fn add_block(&mut self, entries: Vec<E>) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return;
        };
        let id = EventId::fresh().to_string();
        self.references.push(BlockReference {
            id: id.clone(),
            first: first.key(),
            last: last.key(),
            count: to_i64(entries.len() as u64),
            mark: E::mark(&entries),
        });
        self.added.push((id, entries));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Number(i64, usize);

    impl Entry for Number {
        type Key = i64;
        fn key(&self) -> i64 {
            self.0
        }
        fn bytes(&self) -> usize {
            self.1
        }
        fn mark(entries: &[Self]) -> i64 {
            entries.iter().map(|entry| entry.0).max().unwrap_or(0)
        }
    }

    /// A list of blocks, beside the plain map it must equal.
    #[derive(Default)]
    struct List {
        references: Vec<BlockReference<i64>>,
        blocks: BTreeMap<String, Vec<Number>>,
        expected: BTreeMap<i64, Number>,
    }

    impl List {
        fn change(&mut self, changes: Changes<Number>) {
            for (key, change) in &changes {
                match change {
                    Some(entry) => self.expected.insert(*key, entry.clone()),
                    None => self.expected.remove(key),
                };
            }
            let before = self.references.iter().map(|block| block.count).sum::<i64>();
            let runs = touched(&self.references, changes.keys());
            let loaded = runs.iter().map(|run| {
                let blocks = self.references[run.blocks.clone()].iter();
                blocks
                    .flat_map(|block| self.blocks[&block.id].clone())
                    .collect()
            });
            let loaded = loaded.collect();
            let rewritten = rewrite(&self.references, &runs, loaded, changes);
            self.references = rewritten.references;
            for id in rewritten.removed {
                self.blocks.remove(&id).unwrap();
            }
            self.blocks.extend(rewritten.added);
            let after = i64::try_from(self.expected.len()).unwrap();
            assert_eq!(rewritten.counts, (before, after));
            self.check();
        }

        fn check(&self) {
            let ids: Vec<_> = self.references.iter().map(|block| &block.id).collect();
            let mut stored: Vec<_> = self.blocks.keys().collect();
            stored.sort();
            let mut referred = ids.clone();
            referred.sort();
            assert_eq!(stored, referred);
            let entries: Vec<_> = ids.iter().flat_map(|id| self.blocks[*id].clone()).collect();
            let expected: Vec<_> = self.expected.values().cloned().collect();
            assert_eq!(entries, expected);
            for block in &self.references {
                let entries = &self.blocks[&block.id];
                assert_eq!(
                    (block.first, block.last),
                    (entries[0].0, entries[entries.len() - 1].0)
                );
                assert_eq!(block.mark, block.last);
                assert!((1..=ENTRIES_MAX).contains(&entries.len()));
                let bytes: usize = entries.iter().map(|entry| entry.1).sum();
                assert!(bytes <= BYTES_MAX || entries.len() == 1);
            }
        }
    }

    #[test]
    fn blocks_hold_what_a_map_holds_whatever_is_changed() {
        let seed = std::env::var("LEFTFOLD_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        println!("LEFTFOLD_SEED={seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut list = List::default();
        for round in 0..400 {
            let range = if round < 200 { 4_000 } else { 200 + round };
            let changes = (0..rng.usize(0..60)).map(|_| {
                let key = rng.i64(0..range);
                let size = if rng.u8(..) < 3 {
                    BYTES_MAX
                } else {
                    rng.usize(0..9_000)
                };
                // The second half mostly removes.
                let stays = rng.u8(0..10) < if round < 200 { 8 } else { 2 };
                (key, stays.then_some(Number(key, size)))
            });
            list.change(changes.collect());
        }
    }

    #[test]
    fn blocks_that_were_emptied_are_merged_with_their_neighbours() {
        let mut list = List::default();
        let full = (0..10_000).map(|key| (key, Some(Number(key, 1))));
        list.change(full.collect());
        assert_eq!(list.references.len(), 40);
        for key in 0..10_000 {
            if key % 100 != 0 {
                list.change(BTreeMap::from([(key, None)]));
            }
        }
        assert!(list.references.len() < 4, "{}", list.references.len());
    }
}
