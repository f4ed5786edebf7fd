//! Views that are lost for a while, and come back.
//!
//! **Owns:** a view that fails when it is told to, and a database that is killed and started again. **Does not know:** retries.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use leftfold::{
    HandlerError, MemoryTransaction, MemoryView, PostgresView, ProjectionError, ProjectionId,
    ProjectionState, Store, VersionStatus, View, ViewChanges, ViewCheckpoint, ViewError,
    model::Position, sqlx::postgres::PgPoolOptions, stores::consumers::ParkedEvent,
};
use leftfold_postgres::testing::Server;
use tokio::sync::Semaphore;

use super::{Program, Totals, deposit, reach, sums, until};

/// A view that is not reached while `gone`.
#[derive(Clone)]
struct Flaky {
    inner: MemoryView<BTreeMap<String, i64>>,
    gone: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("connection refused")]
struct Refused;

impl Flaky {
    fn reached(&self, of: ProjectionId) -> Result<(), ViewError> {
        match self.gone.load(Ordering::Relaxed) {
            true => Err(ViewError::new(of.name, Refused)),
            false => Ok(()),
        }
    }
}

impl View for Flaky {
    type Transaction = MemoryTransaction<BTreeMap<String, i64>>;

    async fn begin(
        &self,
        of: ProjectionId,
    ) -> Result<(Self::Transaction, ViewCheckpoint), ViewError> {
        self.reached(of)?;
        self.inner.begin(of).await
    }
    async fn commit(
        &self,
        of: ProjectionId,
        transaction: Self::Transaction,
        changes: ViewChanges,
    ) -> Result<(), ViewError> {
        self.reached(of)?;
        self.inner.commit(of, transaction, changes).await
    }
    async fn roll_back(&self, transaction: Self::Transaction) {
        self.inner.roll_back(transaction).await;
    }
    async fn is_parked(
        &self,
        of: ProjectionId,
        transaction: &mut Self::Transaction,
        position: Position,
    ) -> Result<bool, ViewError> {
        self.inner.is_parked(of, transaction, position).await
    }
    async fn parked(
        &self,
        of: ProjectionId,
        after: Position,
    ) -> Result<Vec<ParkedEvent>, ViewError> {
        self.inner.parked(of, after).await
    }
    async fn versions(&self, name: &'static str) -> Result<Vec<VersionStatus>, ViewError> {
        self.inner.versions(name).await
    }
    async fn remove(&self, of: ProjectionId) -> Result<(), ViewError> {
        self.inner.remove(of).await
    }
}

impl Totals for Flaky {
    async fn add(tx: &mut Self::Transaction, id: &str, amount: i64) -> Result<(), HandlerError> {
        *tx.entry(id.to_owned()).or_default() += amount;
        Ok(())
    }
    async fn totals(&self) -> BTreeMap<String, i64> {
        self.inner.read(Clone::clone)
    }
}

#[tokio::test]
async fn a_view_that_is_gone_for_a_while_is_waited_for_and_misses_nothing() {
    let view = Flaky {
        inner: MemoryView::new(),
        gone: Arc::default(),
    };
    let store = Store::memory();
    let projection = Program::of(&view).project::<1>(&store).spawn();
    let last = deposit(&store, "ann", 1).await;
    reach(&projection, last).await;
    view.gone.store(true, Ordering::Relaxed);
    let last = deposit(&store, "ann", 1).await;
    until("the projection says that it waits", async || {
        let state = projection.status().await.unwrap().state;
        matches!(state, ProjectionState::Waiting { reason } if reason.contains("connection refused"))
    })
    .await;
    let waited = projection.wait_for(last, Duration::from_millis(1)).await;
    assert!(
        matches!(waited, Err(ProjectionError::TimedOut { .. })),
        "{waited:?}"
    );
    view.gone.store(false, Ordering::Relaxed);
    reach(&projection, last).await;
    assert_eq!(view.totals().await, sums([("ann", 2)]));
    projection.stop().await.unwrap();
}

/// A database that is killed in the middle of a build, and comes back after a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_killed_and_started_again_has_each_event_once() {
    let mut server = Server::start();
    let pool = PgPoolOptions::new()
        .max_connections(3)
        .acquire_timeout(Duration::from_millis(500))
        .connect(&server.database())
        .await
        .unwrap();
    let view = PostgresView::open(pool).await.unwrap();
    let store = Store::memory();
    let mut last = Position::START;
    for nth in 0..40 {
        last = deposit(&store, ["ann", "bob"][nth % 2], 1).await;
    }
    let program = Program {
        permits: Arc::new(Semaphore::new(17)),
        ..Program::of(&view)
    };
    let projection = program.project::<1>(&store).batch(4).spawn();
    reach(&projection, Position::new(16)).await;
    server.kill();
    program.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    until("the projection says that it waits", async || {
        let state = projection.status().await.unwrap().state;
        matches!(state, ProjectionState::Waiting { .. })
    })
    .await;
    server.launch();
    reach(&projection, last).await;
    assert_eq!(view.totals().await, sums([("ann", 20), ("bob", 20)]));
    projection.stop().await.unwrap();
}
