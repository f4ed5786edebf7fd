//! The conformance suite over the store of one tenant.
//!
//! **Owns:** the fixture. **Does not know:** the rules.

use std::sync::Arc;

use leftfold_store::{EventStore, MemoryStore, TenantName, TenantStore, conformance::Fixture};

/// Tenants, each in a store of its own, so that their positions have no gaps.
struct Tenant;

impl Fixture for Tenant {
    async fn open(&self) -> Arc<dyn EventStore> {
        let tenant = TenantName::new("acme").unwrap();
        Arc::new(TenantStore::new(Arc::new(MemoryStore::new()), tenant))
    }
}

leftfold_store::consumers_conformance!(tenant_consumers, Tenant);
leftfold_store::partial_conformance!(tenant, Tenant);
