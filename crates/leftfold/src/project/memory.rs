//! A view in memory.
//!
//! **Owns:** [`MemoryView`], for tests, and for models that are small and cheap to build again.
//! **Does not know:** projections. **Invariants:** readers see the model of the active version, between transactions; what a
//! transaction wrote is seen all at once, or never.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use leftfold_model::{EventId, Position};
use leftfold_store::consumers::{LIST_MAX, ParkedEvent};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::view::{
    IsActive, ProjectionId, VersionStatus, View, ViewChanges, ViewCheckpoint, ViewError,
};

/// Keeps the model of one projection in memory. Clones are the same view.
///
/// # Cost
/// Each transaction clones the model once, so this is for small models. A [`LiveProjection`](crate::LiveProjection) does not.
pub struct MemoryView<T> {
    /// Who writes; one transaction at a time.
    writer: Arc<Mutex<()>>,
    versions: Arc<RwLock<BTreeMap<u32, Version<T>>>>,
}

struct Version<T> {
    model: T,
    position: Position,
    event: Option<EventId>,
    active: bool,
    caught_up: bool,
    parked: BTreeMap<Position, ParkedEvent>,
}

/// The model as a projection changes it: what it derefs to.
pub struct MemoryTransaction<T> {
    model: T,
    writer: OwnedMutexGuard<()>,
}

impl<T> Deref for MemoryTransaction<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.model
    }
}
impl<T> DerefMut for MemoryTransaction<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.model
    }
}

impl<T> fmt::Debug for MemoryTransaction<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryTransaction").finish_non_exhaustive()
    }
}
impl<T> fmt::Debug for MemoryView<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryView").finish_non_exhaustive()
    }
}
impl<T> Clone for MemoryView<T> {
    fn clone(&self) -> Self {
        Self {
            writer: Arc::clone(&self.writer),
            versions: Arc::clone(&self.versions),
        }
    }
}
impl<T> Default for MemoryView<T> {
    fn default() -> Self {
        Self {
            writer: Arc::default(),
            versions: Arc::default(),
        }
    }
}

impl<T: Default> MemoryView<T> {
    /// An empty view.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the model of the active version; the default one before there is any. It does not change meanwhile, so be quick.
    pub fn read<R>(&self, question: impl FnOnce(&T) -> R) -> R {
        let versions = self.lock();
        match versions.values().find(|version| version.active) {
            Some(active) => question(&active.model),
            None => question(&T::default()),
        }
    }
}

impl<T> MemoryView<T> {
    fn lock(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Version<T>>> {
        self.versions.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_to_write(&self) -> RwLockWriteGuard<'_, BTreeMap<u32, Version<T>>> {
        self.versions
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Default + Send + Sync + 'static> View for MemoryView<T> {
    type Transaction = MemoryTransaction<T>;

    async fn begin(
        &self,
        of: ProjectionId,
    ) -> Result<(MemoryTransaction<T>, ViewCheckpoint), ViewError> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        let versions = self.lock();
        let known = versions.get(&of.version);
        let mut active = versions.iter().filter(|(_, version)| version.active);
        let checkpoint = ViewCheckpoint {
            position: known.map(|known| known.position).unwrap_or_default(),
            event: known.and_then(|known| known.event),
            is_new: known.is_none(),
            caught_up: known.is_some_and(|known| known.caught_up),
            parked: known.map_or(0, |known| known.parked.len() as u64),
            superseded_by: active.find_map(|(&v, _)| (v > of.version).then_some(v)),
        };
        let model = known.map(|known| known.model.clone()).unwrap_or_default();
        Ok((MemoryTransaction { model, writer }, checkpoint))
    }

    async fn commit(
        &self,
        of: ProjectionId,
        transaction: MemoryTransaction<T>,
        changes: ViewChanges,
    ) -> Result<(), ViewError> {
        let MemoryTransaction { model, writer } = transaction;
        let mut versions = self.lock_to_write();
        let is_first = versions.is_empty();
        let known = versions.entry(of.version).or_insert_with(|| Version {
            model: T::default(),
            position: Position::START,
            event: None,
            active: is_first,
            caught_up: false,
            parked: BTreeMap::new(),
        });
        known.model = model;
        known.position = changes.position;
        known.event = changes.event;
        for position in changes.unpark {
            known.parked.remove(&position);
        }
        for event in changes.park {
            known.parked.insert(event.position, event);
        }
        if changes.activate {
            known.caught_up = true;
            for (&version, other) in versions.iter_mut() {
                other.active = version == of.version;
            }
        }
        drop(versions);
        drop(writer);
        Ok(())
    }

    async fn roll_back(&self, transaction: MemoryTransaction<T>) {
        drop(transaction);
    }

    async fn is_parked(
        &self,
        of: ProjectionId,
        _: &mut MemoryTransaction<T>,
        position: Position,
    ) -> Result<bool, ViewError> {
        let versions = self.lock();
        let known = versions.get(&of.version);
        Ok(known.is_some_and(|known| known.parked.contains_key(&position)))
    }

    async fn parked(
        &self,
        of: ProjectionId,
        after: Position,
    ) -> Result<Vec<ParkedEvent>, ViewError> {
        let versions = self.lock();
        let parked = versions.get(&of.version).map(|known| known.parked.values());
        let behind = parked.into_iter().flatten().filter(|e| e.position > after);
        Ok(behind.take(LIST_MAX).cloned().collect())
    }

    async fn versions(&self, _: &'static str) -> Result<Vec<VersionStatus>, ViewError> {
        let versions = self.lock();
        let status = |(&version, known): (&u32, &Version<T>)| VersionStatus {
            version,
            position: known.position,
            active: known.active,
            caught_up: known.caught_up,
            tables: BTreeSet::new(),
        };
        Ok(versions.iter().map(status).collect())
    }

    async fn remove(&self, of: ProjectionId) -> Result<(), ViewError> {
        let mut versions = self.lock_to_write();
        if versions.get(&of.version).is_some_and(|known| known.active) {
            let version = of.version;
            return Err(ViewError::new(of.name, IsActive { version }));
        }
        versions.remove(&of.version);
        Ok(())
    }
}
