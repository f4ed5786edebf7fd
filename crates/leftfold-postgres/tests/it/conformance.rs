//! The conformance suite over PostgreSQL.
//!
//! **Owns:** the fixtures. **Does not know:** the rules.

use std::sync::Arc;

use leftfold_postgres::PostgresStore;
use leftfold_store::{EventStore, conformance::Fixture};

use crate::server::fresh;

/// Stores as they come.
struct Plain;

impl Fixture for Plain {
    async fn open(&self) -> Arc<dyn EventStore> {
        Arc::new(PostgresStore::open_with(fresh()).await.unwrap())
    }
}

leftfold_store::conformance!(postgres, Plain);
