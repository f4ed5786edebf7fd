//! The conformance suite over PostgreSQL.
//!
//! **Owns:** the fixtures. **Does not know:** the rules.

use std::sync::Arc;

use leftfold_postgres::PostgresStore;
use leftfold_store::{EventStore, conformance::Fixture};

use crate::{pooler, server::fresh};

/// Stores as they come.
struct Plain;

impl Fixture for Plain {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(PostgresStore::open_with(fresh()).await.unwrap())
    }
}

/// Stores whose log is divided into small partitions.
struct Divided;

impl Fixture for Divided {
    async fn open(&self) -> Arc<dyn EventStore> {
        let options = fresh().partitioned_by(1_000);
        Arc::new(PostgresStore::open_with(options).await.unwrap())
    }
}

/// Stores behind a pooler in transaction mode.
struct Pooled;

impl Fixture for Pooled {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(PostgresStore::open_with(pooler::fresh()).await.unwrap())
    }
}

leftfold_store::conformance!(postgres, Plain);
leftfold_store::conformance!(postgres_in_partitions, Divided);
leftfold_store::conformance!(postgres_behind_a_pooler, Pooled);
