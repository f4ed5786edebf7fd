//! The conformance suite over the wire.
//!
//! **Owns:** its fixtures. **Does not know:** the rules.

use std::sync::{Arc, Mutex};

use leftfold_client::{Client, ClientOptions};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions, MemoryStore, conformance::Fixture};
use tempfile::TempDir;

use crate::running::serve;

async fn client_of(store: Arc<dyn EventStore>, options: ClientOptions) -> Arc<dyn EventStore> {
    let address = serve(store, &[]).await;
    Arc::new(Client::connect_with(&address, options).await.unwrap())
}

/// Servers over stores in memory.
struct Memory;

impl Fixture for Memory {
    async fn open(&self) -> Arc<dyn EventStore> {
        client_of(Arc::new(MemoryStore::new()), ClientOptions::default()).await
    }
}

/// Servers over embedded stores, by clients with several connections.
#[derive(Default)]
struct Engine {
    directories: Mutex<Vec<TempDir>>,
}

impl Fixture for Engine {
    async fn open(&self) -> Arc<dyn EventStore> {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path(), LogOptions::default())
            .await
            .unwrap();
        self.directories.lock().unwrap().push(directory);
        client_of(
            Arc::new(store),
            ClientOptions::default().with_connections(3),
        )
        .await
    }
}

leftfold_store::conformance!(over_memory, Memory);
leftfold_store::conformance!(over_the_engine, Engine::default());
leftfold_store::consumers_conformance!(consumers_over_memory, Memory);
leftfold_store::tenants_conformance!(tenants_over_memory, Memory);
leftfold_store::tenants_conformance!(tenants_over_the_engine, Engine::default());
leftfold_store::consumers_conformance!(consumers_over_the_engine, Engine::default());
