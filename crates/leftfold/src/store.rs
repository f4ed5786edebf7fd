//! The door to a store.
//!
//! **Owns:** [`Store`]: opening one of the stores, and making repositories over it. **Does not know:** what they do.
//! **Invariants:** no type parameter: code written for one store runs on all of them.

use std::{path::PathBuf, sync::Arc};

use leftfold_store::{AppendError, EngineStore, EventStore, LogOptions, MemoryStore, OpenError};

use crate::{Aggregate, Repository};

/// A store of events, whichever it is. Cheap to clone; clones are the same store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<dyn EventStore>,
}

impl Store {
    /// A store in memory, for tests and for trying things out. What it holds is gone when it is dropped.
    #[must_use]
    pub fn memory() -> Self {
        Self::over(MemoryStore::new())
    }

    /// The durable store in this directory, made if it is not there and recovered if need be.
    ///
    /// Needs a tokio runtime with time enabled. One process at a time can have a directory open.
    ///
    /// # Errors
    /// [`OpenError`]: in use, damaged, of a newer format, foreign files, or refused by the system.
    pub async fn open(directory: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Ok(Self::over(
            EngineStore::open(directory, LogOptions::default()).await?,
        ))
    }

    /// Any other store.
    pub fn over(store: impl EventStore) -> Self {
        Self::from(Arc::new(store) as Arc<dyn EventStore>)
    }

    /// The repository of an aggregate.
    #[must_use]
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        Repository::over(Arc::clone(&self.inner))
    }

    /// The store itself, for reads and appends without types.
    #[must_use]
    pub fn events(&self) -> &Arc<dyn EventStore> {
        &self.inner
    }

    /// Stops taking appends and finishes those accepted. A store that is dropped closes too, without a word.
    ///
    /// # Errors
    /// [`AppendError::Unavailable`] if it could not stop cleanly; everything acknowledged is safe anyway.
    pub async fn close(&self) -> Result<(), AppendError> {
        self.inner.close().await
    }
}

impl From<Arc<dyn EventStore>> for Store {
    fn from(inner: Arc<dyn EventStore>) -> Self {
        Self { inner }
    }
}
