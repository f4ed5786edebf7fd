//! The conformance suite over MongoDB.
//!
//! **Owns:** the fixture. **Does not know:** the rules.

use std::sync::Arc;

use leftfold_mongodb::MongoStore;
use leftfold_store::{EventStore, conformance::Fixture};

use crate::server::fresh;

/// Stores in databases of their own.
struct Plain;

impl Fixture for Plain {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(MongoStore::open_with(fresh()).await.unwrap())
    }
}

/// Stores whose writers know next to nothing of their log, and look everything up.
struct WithoutKnowledge;

impl Fixture for WithoutKnowledge {
    async fn open(&self) -> Arc<dyn EventStore> {
        let options = fresh().with_cached_streams(2);
        Arc::new(MongoStore::open_with(options).await.unwrap())
    }
}

leftfold_store::conformance!(mongodb, Plain);
leftfold_store::partial_conformance!(mongodb_without_knowledge, WithoutKnowledge);
leftfold_store::consumers_conformance!(mongodb_consumers, Plain);
leftfold_store::tenants_conformance!(mongodb_tenants, Plain);
