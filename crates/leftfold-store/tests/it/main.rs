//! The conformance suite over the stores of this crate.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod damaged_index;
mod faults;
#[expect(dead_code, reason = "the tests of the engine use more of it")]
#[path = "../../../leftfold-log/tests/it/faulty_disk.rs"]
mod faulty_disk;
mod in_place;
mod key_files;
mod one_tenant;
mod own_bytes;
mod polled_once;
mod restored;
mod write_by_write;

use std::sync::{Arc, Mutex};

use leftfold_store::{
    EmbeddedStore, EventStore, LogOptions, MemoryStore,
    conformance::{Fixture, keys::KeysFixture},
    keys::{FileKeys, KeyStore, MemoryKeys},
};
use tempfile::TempDir;

/// Stores in memory.
struct Memory;

impl Fixture for Memory {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(MemoryStore::new())
    }
}

/// Embedded stores, each in a directory of its own.
struct Engine {
    options: LogOptions,
    directories: Mutex<Vec<TempDir>>,
}

impl Engine {
    fn with(options: LogOptions) -> Self {
        Self {
            options,
            directories: Mutex::default(),
        }
    }
}

impl Fixture for Engine {
    async fn open(&self) -> Arc<dyn EventStore> {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path(), self.options.clone())
            .await
            .unwrap();
        self.directories.lock().unwrap().push(directory);
        Arc::new(store)
    }
}

impl KeysFixture for Memory {
    type Place = Arc<MemoryKeys>;

    async fn place(&self) -> Arc<MemoryKeys> {
        Arc::new(MemoryKeys::new())
    }

    async fn open(&self, place: &Arc<MemoryKeys>) -> Arc<dyn KeyStore> {
        Arc::clone(place) as _
    }
}

/// Keys in files, each in a directory of its own.
struct Files;

impl KeysFixture for Files {
    type Place = TempDir;

    async fn place(&self) -> TempDir {
        tempfile::tempdir().unwrap()
    }

    async fn open(&self, place: &TempDir) -> Arc<dyn KeyStore> {
        Arc::new(FileKeys::open(place.path().join("keys")).await.unwrap())
    }
}

leftfold_store::keys_conformance!(memory_keys, Memory);
leftfold_store::keys_conformance!(file_keys, Files);
leftfold_store::conformance!(memory, Memory);
leftfold_store::conformance!(engine, Engine::with(LogOptions::default()));
leftfold_store::consumers_conformance!(memory_consumers, Memory);
leftfold_store::tenants_conformance!(memory_tenants, Memory);
leftfold_store::tenants_conformance!(engine_tenants, Engine::with(LogOptions::default()));
leftfold_store::consumers_conformance!(engine_consumers, Engine::with(LogOptions::default()));
// Segments that a few events fill, so that every rule meets sealed ones.
leftfold_store::conformance!(
    engine_of_tiny_segments,
    Engine::with(
        LogOptions::default()
            .with_segment_bytes(4_096)
            .with_segment_events(5)
    )
);
