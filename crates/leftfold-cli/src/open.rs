//! Opening the store that a command works on.
//!
//! **Owns:** the way from `--data` to a store. **Does not know:** commands.
//! **Invariants:** commands see a store, never which one; commands that only read refuse to make a directory.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use leftfold_store::{EngineStore, EventStore, LogOptions};

use crate::cli::Data;

/// Opens the store for a command that writes; makes it if it is not there.
pub(crate) async fn for_writing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    open(&data.data).await
}

/// Opens the store for a command that needs something to be there.
pub(crate) async fn existing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    must_exist(&data.data)?;
    open(&data.data).await
}

/// Refuses a directory that is not there: a typing mistake must not look like an empty store.
pub(crate) fn must_exist(directory: &Path) -> anyhow::Result<()> {
    if !directory.is_dir() {
        bail!("there is no directory {}", directory.display());
    }
    Ok(())
}

async fn open(directory: &Path) -> anyhow::Result<Arc<dyn EventStore>> {
    let store = EngineStore::open(directory, LogOptions::default()).await;
    Ok(Arc::new(store.with_context(|| {
        format!("cannot open {}", directory.display())
    })?))
}
