//! The parked events of a consumer, by key.
//!
//! **Owns:** [`ParkedKeys`]: the store's parked events, in memory. **Does not know:** how they are stored, why one is parked.
//! **Invariants:** a key is here exactly while an event of it is parked; the events of a key are in the order of the log.

use std::collections::{BTreeSet, HashMap};

use leftfold_model::Position;
use leftfold_store::consumers::{ConsumerError, ConsumerName, Consumers, LIST_MAX, ListParked};

/// The parked events of a consumer.
#[derive(Debug, Default)]
pub(super) struct ParkedKeys {
    by_position: HashMap<Position, String>,
    by_key: HashMap<String, BTreeSet<Position>>,
}

impl ParkedKeys {
    /// Loads what is parked, a page at a time.
    pub(super) async fn load(
        consumers: &dyn Consumers,
        name: &ConsumerName,
    ) -> Result<Self, ConsumerError> {
        let mut loaded = Self::default();
        let mut list = ListParked::default();
        loop {
            let page = consumers.parked(name, &list).await?;
            let Some(last) = page.last() else {
                return Ok(loaded);
            };
            list.after = last.position;
            let more = page.len() >= LIST_MAX;
            for event in page {
                loaded.insert(event.position, event.key);
            }
            if !more {
                return Ok(loaded);
            }
        }
    }

    pub(super) fn insert(&mut self, position: Position, key: String) {
        self.by_key.entry(key.clone()).or_default().insert(position);
        self.by_position.insert(position, key);
    }

    pub(super) fn remove(&mut self, position: Position) {
        let Some(key) = self.by_position.remove(&position) else {
            return;
        };
        if let Some(positions) = self.by_key.get_mut(&key) {
            positions.remove(&position);
            if positions.is_empty() {
                self.by_key.remove(&key);
            }
        }
    }

    pub(super) fn contains(&self, position: Position) -> bool {
        self.by_position.contains_key(&position)
    }

    pub(super) fn key_of(&self, position: Position) -> Option<&String> {
        self.by_position.get(&position)
    }

    /// The first parked event of a key.
    pub(super) fn first_of(&self, key: &str) -> Option<Position> {
        self.by_key.get(key)?.first().copied()
    }

    pub(super) fn keys(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn events(&self) -> usize {
        self.by_position.len()
    }
}
