//! Which events of a projection are parked.
//!
//! **Owns:** what a view keeps of parked events, by key. **Does not know:** why an event is parked.
//! **Invariants:** a key is here exactly while an event of it is parked.

use std::collections::{BTreeMap, BTreeSet};

use leftfold_model::Position;
use leftfold_store::consumers::{KEY_BYTES_MAX, LIST_MAX, ParkedEvent};

use super::view::{ProjectionId, View, ViewError};
use crate::{clock::system_time, reason::bounded};

/// The parked events of a version.
#[derive(Debug, Default)]
pub(super) struct ParkedKeys {
    by_key: BTreeMap<String, BTreeSet<Position>>,
}

impl ParkedKeys {
    /// Loads what is parked, a page at a time.
    pub(super) async fn load<V: View>(view: &V, of: ProjectionId) -> Result<Self, ViewError> {
        let mut loaded = Self::default();
        let mut after = Position::START;
        loop {
            let page = view.parked(of, after).await?;
            let more = page.len() >= LIST_MAX;
            for event in page {
                after = event.position;
                loaded.insert(&event);
            }
            if !more {
                return Ok(loaded);
            }
        }
    }

    pub(super) fn insert(&mut self, event: &ParkedEvent) {
        let positions = self.by_key.entry(event.key.clone()).or_default();
        positions.insert(event.position);
    }

    pub(super) fn remove(&mut self, key: &str, position: Position) {
        if let Some(positions) = self.by_key.get_mut(key) {
            positions.remove(&position);
            if positions.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    /// The first parked event of a key.
    pub(super) fn first_of(&self, key: &str) -> Option<Position> {
        self.by_key.get(key)?.first().copied()
    }

    /// The keys, in order.
    pub(super) fn all_keys(&self) -> Vec<String> {
        self.by_key.keys().cloned().collect()
    }

    pub(super) fn keys(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn events(&self) -> usize {
        self.by_key.values().map(BTreeSet::len).sum()
    }
}

/// Returns an event as it is parked.
pub(super) fn parked(position: Position, key: String, reason: &str, attempts: u32) -> ParkedEvent {
    ParkedEvent {
        position,
        key,
        reason: bounded(reason),
        attempts,
        time: system_time(),
        resolution: None,
    }
}

/// Returns a key no longer than views keep.
pub(super) fn bounded_key(mut key: String) -> String {
    key.truncate(key.floor_char_boundary(KEY_BYTES_MAX));
    key
}
