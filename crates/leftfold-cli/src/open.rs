//! Opening the store that a command works on.
//!
//! **Owns:** the way from `--data` and `--url` to a store. **Does not know:** commands.
//! **Invariants:** commands see a store, never which one; commands that only read refuse to make a directory; a flag counts
//! more than the environment.

use std::{env, fmt, path::Path, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use leftfold_client::Client;
use leftfold_store::{EngineStore, EventStore, LogOptions};

use crate::cli::Data;

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Directory(PathBuf),
    /// At an address.
    Server(String),
}

/// Why there is no place to work on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(
        "no store is named: give --data DIR or --url leftfold://host:port, or set LEFTFOLD_DATA or LEFTFOLD_URL"
    )]
    Missing,
    #[error(
        "LEFTFOLD_DATA and LEFTFOLD_URL are both set: choose with --data DIR or --url leftfold://host:port"
    )]
    Two,
    #[error(
        "this command reads the files of a store, which a server does not show: give --data DIR"
    )]
    NeedsFiles,
}

impl Place {
    /// The place that the flags name, or else the environment.
    pub(crate) fn of(data: &Data) -> Result<Self, PlaceError> {
        let named = (data.data.clone(), data.url.clone());
        let (directory, url) = match named {
            (None, None) => (
                env::var_os("LEFTFOLD_DATA").map(PathBuf::from),
                env::var("LEFTFOLD_URL").ok(),
            ),
            named => named,
        };
        match (directory, url) {
            (Some(_), Some(_)) => Err(PlaceError::Two),
            (Some(directory), None) => Ok(Self::Directory(directory)),
            (None, Some(url)) => Ok(Self::Server(url)),
            (None, None) => Err(PlaceError::Missing),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.display().fmt(f),
            Self::Server(address) => address.fmt(f),
        }
    }
}

/// Opens the store for a command that writes; makes it if it is not there.
pub(crate) async fn for_writing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    at(&Place::of(data)?).await
}

/// Opens the store for a command that needs something to be there.
pub(crate) async fn existing(data: &Data) -> anyhow::Result<Arc<dyn EventStore>> {
    let place = Place::of(data)?;
    if let Place::Directory(directory) = &place {
        must_exist(directory)?;
    }
    at(&place).await
}

/// Refuses a directory that is not there: a typing mistake must not look like an empty store.
pub(crate) fn must_exist(directory: &Path) -> anyhow::Result<()> {
    if !directory.is_dir() {
        bail!("there is no directory {}", directory.display());
    }
    Ok(())
}

/// Opens the store at a place; makes it if it is not there.
pub(crate) async fn at(place: &Place) -> anyhow::Result<Arc<dyn EventStore>> {
    match place {
        Place::Directory(directory) => {
            let store = EngineStore::open(directory, LogOptions::default()).await;
            Ok(Arc::new(
                store.with_context(|| format!("cannot open {place}"))?,
            ))
        }
        Place::Server(address) => Ok(Arc::new(Client::connect(address).await?)),
    }
}
