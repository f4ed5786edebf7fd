//! The conformance suite over PostgreSQL.
//!
//! **Owns:** the fixtures. **Does not know:** the rules.

use std::sync::Arc;

use leftfold_postgres::{PostgresKeys, PostgresOptions, PostgresStore};
use leftfold_store::{
    EventStore,
    conformance::{Fixture, keys::KeysFixture},
    keys::KeyStore,
};

use crate::{pooler, server::fresh};

/// Stores as they come.
struct Plain;

impl Fixture for Plain {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(PostgresStore::open_with(fresh()).await.unwrap())
    }
}

/// Stores behind a pooler in transaction mode.
struct Pooled;

impl Fixture for Pooled {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(PostgresStore::open_with(pooler::fresh()).await.unwrap())
    }
}

/// Stores that search for every condition outside of the group of its append.
struct SearchingOutside;

impl Fixture for SearchingOutside {
    async fn open(&self) -> Arc<dyn EventStore> {
        let options = fresh().searching_outside_of_groups();
        Arc::new(PostgresStore::open_with(options).await.unwrap())
    }
}

/// Keys in a schema of their own, behind a pooler in transaction mode or not.
struct Keys {
    options: fn() -> PostgresOptions,
}

impl KeysFixture for Keys {
    type Place = PostgresOptions;

    async fn place(&self) -> PostgresOptions {
        (self.options)()
    }

    async fn open(&self, place: &PostgresOptions) -> Arc<dyn KeyStore> {
        Arc::new(PostgresKeys::open_with(place.clone()).await.unwrap())
    }
}

leftfold_store::keys_conformance!(postgres_keys, Keys { options: fresh });
leftfold_store::keys_conformance!(
    postgres_keys_behind_a_pooler,
    Keys {
        options: pooler::fresh
    }
);
leftfold_store::conformance!(postgres, Plain);
leftfold_store::conformance!(postgres_behind_a_pooler, Pooled);
leftfold_store::conformance!(postgres_searching_outside_of_groups, SearchingOutside);
leftfold_store::consumers_conformance!(postgres_consumers, Plain);
leftfold_store::tenants_conformance!(postgres_tenants, Plain);
leftfold_store::consumers_conformance!(postgres_consumers_behind_a_pooler, Pooled);
