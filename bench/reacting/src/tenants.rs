//! A tenant's store beside the store itself.
//!
//! **Owns:** commands and loads through both. **Does not know:** how a tenant's names are stored.
//! **Invariants:** both sides alternate, operation by operation, on one embedded store.

use std::{path::Path, time::Instant};

use leftfold::Store;

use crate::{
    account::{Account, AccountEvent},
    median,
};

/// Operations of each side in a run.
const COMMANDS: usize = 1_000;
const LOADS: usize = 300;
/// Events of the aggregate that is loaded.
const EVENTS: usize = 1_000;

/// Commands of one event each; medians in microseconds, of the tenant and of the store.
pub(crate) async fn commands(directory: &Path) -> anyhow::Result<(f64, f64)> {
    let store = Store::open(directory).await?;
    let tenant = store.tenant("acme")?;
    let (of_tenant, of_store) = (
        tenant.repository::<Account>(),
        store.repository::<Account>(),
    );
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for nth in 0..COMMANDS {
        let id = nth.to_string();
        let begun = Instant::now();
        of_tenant
            .execute(&id, |_| AccountEvent::Deposited { cents: 1 })
            .await?;
        a.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        of_store
            .execute(&id, |_| AccountEvent::Deposited { cents: 1 })
            .await?;
        b.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    store.close().await?;
    Ok((median(&a), median(&b)))
}

/// Loads of an aggregate of 1,000 events; medians in microseconds, of the tenant and of the store.
pub(crate) async fn loads(directory: &Path) -> anyhow::Result<(f64, f64)> {
    let store = Store::open(directory).await?;
    let tenant = store.tenant("acme")?;
    let (of_tenant, of_store) = (
        tenant.repository::<Account>(),
        store.repository::<Account>(),
    );
    for of in [&of_tenant, &of_store] {
        let deposits = || (0..EVENTS).map(|_| AccountEvent::Deposited { cents: 1 });
        of.execute("1", |_| deposits().collect::<Vec<_>>()).await?;
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let begun = Instant::now();
        let loaded = of_tenant.load("1").await?;
        a.push(begun.elapsed().as_secs_f64() * 1e6);
        let begun = Instant::now();
        let other = of_store.load("1").await?;
        b.push(begun.elapsed().as_secs_f64() * 1e6);
        anyhow::ensure!(loaded.event_count() == other.event_count());
    }
    store.close().await?;
    Ok((median(&a), median(&b)))
}
