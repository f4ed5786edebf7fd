//! Projections into views: each event once, whatever fails, and versions beside each other.
//!
//! **Owns:** one suite for all views. **Does not know:** how events are taken from the log.
//! **Invariants:** a test waits for what it expects, never for time to pass.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use leftfold::{
    Backoff, CatchUp, HandlerError, KeyValueTransaction, KeyValueView, MemoryTransaction,
    MemoryView, Project, Projection, ProjectionError, ProjectionHandle, Recorded, Store,
    VersionStatus, View,
    model::{Append, EventType, ExpectedRevision, NewEvent, Position, StreamName},
    redb::ReadableTable,
};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::account::{AccountEvent, BankAccount};

mod inline;
mod lost_views;
mod memory_views;
mod sql_views;

const SOON: Duration = Duration::from_secs(60);

/// What the tests ask of a view: a table of totals.
pub(crate) trait Totals: View + Clone {
    fn add(
        tx: &mut Self::Transaction,
        id: &str,
        amount: i64,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
    fn create(_: &mut Self::Transaction) -> impl Future<Output = Result<(), HandlerError>> + Send {
        std::future::ready(Ok(()))
    }
    /// The totals that readers see.
    fn totals(&self) -> impl Future<Output = BTreeMap<String, i64>> + Send;
    /// The same view as another process has it: a connection lives no longer than the runtime that made it.
    fn reopened(&self) -> impl Future<Output = Self> + Send {
        std::future::ready(self.clone())
    }
}

impl Totals for MemoryView<BTreeMap<String, i64>> {
    async fn add(
        tx: &mut MemoryTransaction<BTreeMap<String, i64>>,
        id: &str,
        amount: i64,
    ) -> Result<(), HandlerError> {
        *tx.entry(id.to_owned()).or_default() += amount;
        Ok(())
    }
    async fn totals(&self) -> BTreeMap<String, i64> {
        self.read(Clone::clone)
    }
}

impl Totals for KeyValueView {
    async fn add(tx: &mut KeyValueTransaction, id: &str, amount: i64) -> Result<(), HandlerError> {
        let mut totals = tx.open_table::<&str, i64>("totals")?;
        let before = totals.get(id)?.map_or(0, |total| total.value());
        totals.insert(id, before + amount)?;
        Ok(())
    }
    async fn totals(&self) -> BTreeMap<String, i64> {
        let reader = self.read("totals").unwrap();
        let Some(table) = reader.open_table::<&str, i64>("totals").unwrap() else {
            return BTreeMap::new();
        };
        let rows = table.iter().unwrap().map(Result::unwrap);
        rows.map(|(id, total)| (id.value().to_owned(), total.value()))
            .collect()
    }
}

/// Another program's version counts each amount `VERSION` times.
struct Sums<V, const VERSION: u32> {
    poison: Arc<Mutex<Vec<String>>>,
    reports: Arc<AtomicU64>,
    begun: Arc<Semaphore>,
    permits: Arc<Semaphore>,
    of: PhantomData<fn() -> V>,
}

impl<V: Totals, const VERSION: u32> Projection for Sums<V, VERSION> {
    type Event = AccountEvent;
    type View = V;
    const NAME: &'static str = "totals";
    const VERSION: u32 = VERSION;

    async fn set_up(&self, tx: &mut V::Transaction) -> Result<(), HandlerError> {
        V::create(tx).await
    }

    async fn project(
        &self,
        tx: &mut V::Transaction,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        self.begun.add_permits(1);
        self.permits.acquire().await?.forget();
        let amount = match event.event {
            AccountEvent::DepositMade { amount } => i64::try_from(amount)?,
            AccountEvent::WithdrawalMade { amount } => -i64::try_from(amount)?,
        };
        V::add(tx, event.aggregate_id(), amount * i64::from(VERSION)).await?;
        let poison = self.poison.lock().map_err(|_| "broken")?;
        match poison.iter().any(|id| id == event.aggregate_id()) {
            true => Err("this account has no owner".into()),
            false => Ok(()),
        }
    }

    fn committed(&self, _: &Recorded<AccountEvent>) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }
}

/// A program that runs the projection.
struct Program<V> {
    poison: Arc<Mutex<Vec<String>>>,
    reports: Arc<AtomicU64>,
    /// A permit for each event that it began to project.
    begun: Arc<Semaphore>,
    /// How many events it projects before it waits.
    permits: Arc<Semaphore>,
    view: V,
}

impl<V: Totals> Program<V> {
    fn of(view: &V) -> Self {
        Self {
            poison: Arc::default(),
            reports: Arc::default(),
            begun: Arc::new(Semaphore::new(0)),
            permits: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            view: view.clone(),
        }
    }

    fn poisoned(view: &V, id: &str) -> Self {
        let program = Self::of(view);
        program.poison.lock().unwrap().push(id.to_owned());
        program
    }

    fn project<const VERSION: u32>(&self, store: &Store) -> Project<Sums<V, VERSION>> {
        let sums = Sums {
            poison: Arc::clone(&self.poison),
            reports: Arc::clone(&self.reports),
            begun: Arc::clone(&self.begun),
            permits: Arc::clone(&self.permits),
            of: PhantomData,
        };
        let quick = Backoff::default()
            .initial(Duration::from_millis(1))
            .attempts(2);
        store.project(sums, self.view.clone()).retry(quick)
    }
}

async fn deposit(store: &Store, id: &str, amount: u64) -> Position {
    let accounts = store.repository::<BankAccount>();
    let done = accounts.execute(id, |account| account.deposit(amount));
    done.await.unwrap().position.unwrap()
}

async fn reach<V: View>(projection: &ProjectionHandle<V>, position: Position) {
    projection.wait_for(position, SOON).await.unwrap();
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = timeout(SOON, waiting).await;
    waited.unwrap_or_else(|_| panic!("never: {what}"));
}

fn sums<const N: usize>(expected: [(&str, i64); N]) -> BTreeMap<String, i64> {
    let owned = expected.map(|(id, total)| (id.to_owned(), total));
    owned.into_iter().collect()
}

pub(crate) async fn each_event_is_in_the_view_once_and_it_goes_on_after_a_restart<V: Totals>(
    view: V,
) {
    let store = Store::memory();
    deposit(&store, "ann", 10).await;
    deposit(&store, "bob", 1).await;
    for round in 1..=3 {
        let projection = Program::of(&view).project::<1>(&store).spawn();
        let last = deposit(&store, "ann", 100).await;
        reach(&projection, last).await;
        let expected = sums([("ann", 10 + 100 * round), ("bob", 1)]);
        assert_eq!(view.totals().await, expected);
        let status = projection.status().await.unwrap();
        assert_eq!((status.lag, status.parked), (0, 0));
        projection.stop().await.unwrap();
    }
}

pub(crate) async fn a_failure_leaves_nothing_and_names_its_event_and_a_deploy_goes_on<V: Totals>(
    view: V,
) {
    let store = Store::memory();
    for id in ["ann", "bad", "ann", "bob"] {
        deposit(&store, id, 5).await;
    }
    let projection = Program::poisoned(&view, "bad").project::<1>(&store).spawn();
    let ended = timeout(SOON, projection.ended()).await.unwrap().unwrap();
    let ProjectionError::Failed {
        stream,
        position,
        attempts,
        reason,
        ..
    } = &ended
    else {
        panic!("{ended:?}");
    };
    assert_eq!(
        (stream.as_str(), position.get(), *attempts),
        ("account-bad", 2, 2)
    );
    assert_eq!(reason, "this account has no owner");
    assert_eq!(view.totals().await, sums([("ann", 5)]));
    let waited = projection.wait_for(Position::new(4), SOON).await;
    assert!(
        matches!(waited, Err(ProjectionError::Failed { .. })),
        "{waited:?}"
    );
    drop(projection);

    let repaired = Program::of(&view).project::<1>(&store).spawn();
    reach(&repaired, Position::new(4)).await;
    assert_eq!(
        view.totals().await,
        sums([("ann", 10), ("bad", 5), ("bob", 5)])
    );
    repaired.stop().await.unwrap();
}

pub(crate) async fn a_poison_event_parks_its_key_alone_until_it_is_repaired<V: Totals>(view: V) {
    let store = Store::memory();
    for (id, amount) in [("ann", 1), ("bad", 10), ("bad", 20), ("bob", 1)] {
        deposit(&store, id, amount).await;
    }
    let program = Program::poisoned(&view, "bad");
    let projection = program.project::<1>(&store).park_on_failure().spawn();
    reach(&projection, Position::new(4)).await;
    let last = deposit(&store, "bad", 40).await;
    reach(&projection, last).await;
    assert_eq!(view.totals().await, sums([("ann", 1), ("bob", 1)]));
    let parked = projection.parked(Position::START).await.unwrap();
    let places: Vec<_> = parked
        .iter()
        .map(|e| (e.position.get(), e.attempts))
        .collect();
    assert_eq!(places, [(2, 2), (3, 0), (5, 0)]);
    assert_eq!(parked[0].reason, "this account has no owner");
    assert_eq!(projection.status().await.unwrap().parked, 3);
    projection.stop().await.unwrap();

    // A deploy that mends nothing changes nothing.
    let projection = program.project::<1>(&store).park_on_failure().spawn();
    reach(&projection, last).await;
    assert_eq!(projection.parked(Position::START).await.unwrap().len(), 3);
    assert_eq!(view.totals().await, sums([("ann", 1), ("bob", 1)]));
    // What is mended without one is tried again when that is said.
    program.poison.lock().unwrap().clear();
    projection.retry_parked();
    until("parked events are tried again", async || {
        projection.status().await.unwrap().parked == 0
    })
    .await;
    assert_eq!(projection.parked(Position::START).await.unwrap(), []);
    assert_eq!(
        view.totals().await,
        sums([("ann", 1), ("bad", 70), ("bob", 1)])
    );
    projection.stop().await.unwrap();
}

pub(crate) async fn a_raised_version_is_built_beside_and_takes_over_when_it_caught_up<V: Totals>(
    view: V,
) {
    let store = Store::memory();
    for id in ["ann", "bob", "ann"] {
        deposit(&store, id, 1).await;
    }
    let old = Program::of(&view);
    let before = old.project::<1>(&store).spawn();
    before.ready().await.unwrap();
    assert_eq!(
        old.reports.load(Ordering::Relaxed),
        0,
        "reports while catching up"
    );
    let last = deposit(&store, "bob", 1).await;
    reach(&before, last).await;
    assert_eq!(old.reports.load(Ordering::Relaxed), 1);

    // A version that stops in front of an event does not take over.
    let broken = Program::poisoned(&view, "bob").project::<2>(&store).spawn();
    timeout(SOON, broken.ended()).await.unwrap().unwrap();
    assert_eq!(view.totals().await, sums([("ann", 2), ("bob", 2)]));
    drop(broken);

    let new = Program::of(&view);
    let reports: Arc<Mutex<Vec<CatchUp>>> = Arc::default();
    let telling = Arc::clone(&reports);
    let after = new
        .project::<2>(&store)
        .batch(1)
        .on_catch_up(move |progress| telling.lock().unwrap().push(progress))
        .spawn();
    after.ready().await.unwrap();
    assert_eq!(view.totals().await, sums([("ann", 4), ("bob", 4)]));
    assert_eq!(
        new.reports.load(Ordering::Relaxed),
        0,
        "reports while catching up"
    );
    let said = reports.lock().unwrap().clone();
    assert!(
        said.last()
            .is_some_and(|last| last.done && last.position == last.head),
        "{said:?}"
    );

    // The old program finds itself superseded, and writes no more.
    let last = deposit(&store, "ann", 1).await;
    reach(&after, last).await;
    let ended = timeout(SOON, before.ended()).await.unwrap();
    let superseded = matches!(ended, Some(ProjectionError::Superseded { by: 2, .. }));
    assert!(superseded, "{ended:?}");
    let again = old.project::<1>(&store).spawn();
    let ended = timeout(SOON, again.ended()).await.unwrap();
    assert!(
        matches!(ended, Some(ProjectionError::Superseded { by: 2, .. })),
        "{ended:?}"
    );
    assert_eq!(view.totals().await, sums([("ann", 6), ("bob", 4)]));

    let known = |versions: Vec<VersionStatus>| -> Vec<(u32, bool)> {
        versions.iter().map(|v| (v.version, v.active)).collect()
    };
    assert_eq!(
        known(after.versions().await.unwrap()),
        [(1, false), (2, true)]
    );
    after.remove_superseded().await.unwrap();
    assert_eq!(known(after.versions().await.unwrap()), [(2, true)]);
    assert_eq!(view.totals().await, sums([("ann", 6), ("bob", 4)]));
    after.stop().await.unwrap();
}

pub(crate) async fn two_programs_with_one_projection_write_each_event_once<V: Totals>(view: V) {
    let store = Store::memory();
    let first = Program::of(&view).project::<1>(&store).batch(3).spawn();
    let second = Program::of(&view).project::<1>(&store).batch(2).spawn();
    let mut last = Position::START;
    for nth in 0..60 {
        last = deposit(&store, ["ann", "bob", "cid"][nth % 3], 1).await;
    }
    reach(&first, last).await;
    reach(&second, last).await;
    assert_eq!(
        view.totals().await,
        sums([("ann", 20), ("bob", 20), ("cid", 20)])
    );
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

pub(crate) async fn a_build_that_is_killed_again_and_again_ends_with_each_event_once<V: Totals>(
    view: V,
) {
    let store = Store::memory();
    let mut last = Position::START;
    for nth in 0..40 {
        last = deposit(&store, ["ann", "bob"][nth % 2], 1).await;
    }
    for tenth in 1..=9 {
        // The runtime of a process that ends: its tasks are dropped where they wait.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let own = view.clone();
        let own = runtime.spawn(async move { own.reopened().await });
        let mut program = Program::of(&own.await.unwrap());
        program.permits = Arc::new(Semaphore::new(5));
        let project = program.project::<1>(&store).batch(1);
        let projection = {
            let _inside = runtime.enter();
            project.spawn()
        };
        reach(&projection, Position::new(4 * tenth)).await;
        runtime.shutdown_background();
    }
    let projection = Program::of(&view).project::<1>(&store).spawn();
    reach(&projection, last).await;
    assert_eq!(view.totals().await, sums([("ann", 20), ("bob", 20)]));
    projection.stop().await.unwrap();
}

pub(crate) async fn a_log_that_ends_before_the_checkpoint_is_an_error_that_says_so<V: Totals>(
    view: V,
) {
    let store = Store::memory();
    let last = deposit(&store, "ann", 1).await;
    let projection = Program::of(&view).project::<1>(&store).spawn();
    reach(&projection, last).await;
    projection.stop().await.unwrap();

    let restored = Store::memory();
    let projection = Program::of(&view).project::<1>(&restored).spawn();
    let ended = timeout(SOON, projection.ended()).await.unwrap();
    let named = matches!(&ended, Some(ProjectionError::CannotResume { checkpoint, .. }) if *checkpoint == last);
    assert!(named, "{ended:?}");
    assert_eq!(view.totals().await, sums([("ann", 1)]));
}

pub(crate) async fn a_log_that_was_restored_and_grew_past_the_checkpoint_is_an_error_that_says_so<
    V: Totals,
>(
    view: V,
) {
    let store = Store::memory();
    deposit(&store, "ann", 1).await;
    let last = deposit(&store, "ann", 1).await;
    let projection = Program::of(&view).project::<1>(&store).spawn();
    reach(&projection, last).await;
    projection.stop().await.unwrap();
    // The log that was projected is found again.
    let projection = Program::of(&view).project::<1>(&store).spawn();
    let last = deposit(&store, "ann", 1).await;
    reach(&projection, last).await;
    projection.stop().await.unwrap();

    let restored = Store::memory();
    for _ in 0..5 {
        deposit(&restored, "bob", 1).await;
    }
    let projection = Program::of(&view).project::<1>(&restored).spawn();
    let ended = timeout(SOON, projection.ended()).await.unwrap();
    let named =
        matches!(&ended, Some(ProjectionError::OtherLog { checkpoint, .. }) if *checkpoint == last);
    assert!(named, "{ended:?}");
    assert_eq!(view.totals().await, sums([("ann", 3)]));
    // Another version is built from the log that is there.
    let projection = Program::of(&view).project::<2>(&restored).spawn();
    timeout(SOON, projection.ready()).await.unwrap().unwrap();
    assert_eq!(view.totals().await, sums([("bob", 10)]));
    projection.stop().await.unwrap();
}

pub(crate) async fn a_checkpoint_past_events_of_others_knows_its_log_too<V: Totals>(view: V) {
    let store = Store::memory();
    deposit(&store, "ann", 1).await;
    let other = append_of_another_type(&store).await;
    let projection = Program::of(&view).project::<1>(&store).spawn();
    timeout(SOON, projection.ready()).await.unwrap().unwrap();
    projection.stop().await.unwrap();

    let restored = Store::memory();
    for _ in 0..3 {
        deposit(&restored, "bob", 1).await;
    }
    let projection = Program::of(&view).project::<1>(&restored).spawn();
    let ended = timeout(SOON, projection.ended()).await.unwrap();
    let named = matches!(&ended, Some(ProjectionError::OtherLog { checkpoint, .. }) if *checkpoint == other);
    assert!(named, "{ended:?}");
}

/// Appends an event that the projection does not know.
async fn append_of_another_type(store: &Store) -> Position {
    let event = NewEvent::json(EventType::new("Unrelated").unwrap(), "{}");
    let stream = StreamName::new("other-1").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
    store.event_store().append(append).await.unwrap().last
}

macro_rules! suite {
    ($view:expr) => {
        $crate::projections::suite!($view; [
            each_event_is_in_the_view_once_and_it_goes_on_after_a_restart,
            a_failure_leaves_nothing_and_names_its_event_and_a_deploy_goes_on,
            a_poison_event_parks_its_key_alone_until_it_is_repaired,
            a_raised_version_is_built_beside_and_takes_over_when_it_caught_up,
            two_programs_with_one_projection_write_each_event_once,
            a_build_that_is_killed_again_and_again_ends_with_each_event_once,
            a_log_that_ends_before_the_checkpoint_is_an_error_that_says_so,
            a_log_that_was_restored_and_grew_past_the_checkpoint_is_an_error_that_says_so,
            a_checkpoint_past_events_of_others_knows_its_log_too,
        ]);
    };
    ($view:expr; [$($test:ident),* $(,)?]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (view, _keep) = $view.await;
                $crate::projections::$test(view).await;
            }
        )*
    };
}
pub(crate) use suite;
