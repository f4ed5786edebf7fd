//! A directory in whose place an earlier copy was put.
//!
//! **Owns:** the fixture. **Does not know:** the rules.

use std::{path::Path, sync::Arc};

use leftfold_store::{
    EmbeddedStore, EventStore, LogOptions,
    conformance::restored::{Restorable, RestorableFixture},
};
use tempfile::TempDir;

async fn open(directory: &Path) -> Arc<EmbeddedStore> {
    let store = EmbeddedStore::open(directory, LogOptions::default()).await;
    Arc::new(store.unwrap())
}

fn copy_of(directory: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A store in a directory. The directory is locked as long as the store is open, so it is closed for each copy.
struct Directory {
    directory: TempDir,
    copy: Option<TempDir>,
    store: Arc<EmbeddedStore>,
}

impl Restorable for Directory {
    fn store(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.store) as Arc<dyn EventStore>
    }

    async fn back_up(&mut self) {
        self.store.close().await.unwrap();
        self.copy = Some(copy_of(&self.directory));
        self.store = open(self.directory.path()).await;
    }

    async fn restore(&mut self) {
        self.store.close().await.unwrap();
        self.directory = self.copy.take().unwrap();
        self.store = open(self.directory.path()).await;
    }
}

struct Directories;

impl RestorableFixture for Directories {
    async fn open(&self) -> impl Restorable {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path()).await;
        Directory {
            directory,
            copy: None,
            store,
        }
    }
}

leftfold_store::restored_conformance!(directory, Directories);
