//! Opening the store that a command works on.
//!
//! **Owns:** the way from `--data` to a store. **Does not know:** commands.
//! **Invariants:** commands see a store, never which one; commands that only read refuse to make one.

use std::{path::Path, sync::Arc};

use anyhow::{Context, bail};
use leftfold_postgres::{PostgresOptions, PostgresStore};
use leftfold_store::{EngineStore, EventStore, LogOptions};

use crate::cli::Data;

/// What `--data` names.
#[derive(Debug, Clone)]
pub(crate) enum Place<'a> {
    Directory(&'a Path),
    /// With the name under which messages speak of it: never its password.
    Postgres(Box<PostgresOptions>, String),
}

impl<'a> Place<'a> {
    /// Reads an address, or takes anything else for a directory.
    pub(crate) fn of(data: &'a Path) -> anyhow::Result<Self> {
        let address = data.to_str().filter(|text| is_postgres(text));
        let Some(address) = address else {
            return Ok(Self::Directory(data));
        };
        let options: PostgresOptions = address.parse()?;
        let name = format!("the schema {} of the database", options.schema());
        Ok(Self::Postgres(Box::new(options), name))
    }
}

fn is_postgres(text: &str) -> bool {
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}

/// Opens the store for a command that writes; makes it if it is not there.
pub(crate) async fn for_writing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    at(&data.data).await
}

/// Opens the store for a command that needs something to be there.
pub(crate) async fn existing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    match Place::of(&data.data)? {
        Place::Directory(directory) => {
            must_exist(directory)?;
            open(Place::Directory(directory)).await
        }
        Place::Postgres(options, name) => {
            open(Place::Postgres(Box::new(options.without_migrating()), name)).await
        }
    }
}

/// Refuses a directory that is not there: a typing mistake must not look like an empty store.
pub(crate) fn must_exist(directory: &Path) -> anyhow::Result<()> {
    if !directory.is_dir() {
        bail!("there is no directory {}", directory.display());
    }
    Ok(())
}

/// The place as people may see it.
pub(crate) fn shown(data: &Path) -> anyhow::Result<String> {
    Ok(match Place::of(data)? {
        Place::Directory(directory) => directory.display().to_string(),
        Place::Postgres(_, name) => name,
    })
}

/// Opens the store at a place; makes it if it is not there.
pub(crate) async fn at(data: &Path) -> anyhow::Result<Arc<dyn EventStore>> {
    open(Place::of(data)?).await
}

async fn open(place: Place<'_>) -> anyhow::Result<Arc<dyn EventStore>> {
    match place {
        Place::Directory(directory) => {
            let store = EngineStore::open(directory, LogOptions::default()).await;
            Ok(Arc::new(store.with_context(|| {
                format!("cannot open {}", directory.display())
            })?))
        }
        Place::Postgres(options, name) => {
            let store = PostgresStore::open_with(*options).await;
            Ok(Arc::new(
                store.with_context(|| format!("cannot open {name}"))?,
            ))
        }
    }
}
