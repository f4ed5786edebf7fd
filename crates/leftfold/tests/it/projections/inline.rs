//! Projections that appends write in their own transaction.
//!
//! **Owns:** what holds between log and view at every commit, and what is refused. **Does not know:** kills of processes, which
//! are in `--test kills`.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use leftfold::{
    ExecuteError, HandlerError, InlineError, PostgresView, Projection, ProjectionHandle, Recorded,
    SqlTransaction, Store,
    model::{
        Append, Appended, EventType, ExpectedRevision, NewEvent, Position, Read, StreamName,
        StreamWrite,
    },
    sqlx::{self, Postgres, Row, postgres::PgPoolOptions},
    stores::AppendError,
};
use leftfold_postgres::testing::Server;
use tokio::sync::Semaphore;

use super::{Program, SOON, Totals, deposit, until};
use crate::account::{AccountEvent, BankAccount};

struct Bank {
    server: Server,
    address: String,
    /// A store that writes no view.
    plain: Store,
    view: PostgresView,
}

async fn bank() -> Bank {
    let server = Server::start();
    let address = server.database();
    let plain = Store::postgres(&address).await.unwrap();
    let view = view(&address).await;
    Bank {
        server,
        address,
        plain,
        view,
    }
}

async fn view(address: &str) -> PostgresView {
    let pool = sqlx::PgPool::connect(address).await.unwrap();
    PostgresView::open(pool).await.unwrap()
}

impl Bank {
    async fn inline(&self) -> (Store, ProjectionHandle<PostgresView>) {
        let project = Program::of(&self.view).project::<1>(&self.plain);
        project.inline().await.unwrap()
    }

    async fn head(&self) -> Position {
        self.plain.event_store().head().await.unwrap()
    }

    async fn totals<const N: usize>(&self, expected: [(&str, i64); N]) {
        let expected = expected.map(|(id, total)| (id.to_owned(), total));
        assert_eq!(self.view.totals().await, BTreeMap::from(expected));
    }
}

fn deposits(id: &str, count: u64, expected: ExpectedRevision) -> Append {
    let event = |_| {
        let kind = EventType::new("DepositMade").unwrap();
        NewEvent::json(kind, r#"{"amount":1}"#)
    };
    let stream = StreamName::new(format!("account-{id}")).unwrap();
    Append::to(stream, expected, (0..count).map(event).collect()).unwrap()
}

async fn append_to(store: Store, append: Append) -> Result<Appended, AppendError> {
    store.event_store().append(append).await
}

#[tokio::test]
async fn an_acknowledged_event_is_in_the_view_at_once() {
    let bank = bank().await;
    let program = Program::of(&bank.view);
    let (store, totals) = program.project::<1>(&bank.plain).inline().await.unwrap();
    for (amount, total) in [(100, 100), (20, 120)] {
        let position = deposit(&store, "ann", amount).await;
        bank.totals([("ann", total)]).await;
        assert!(totals.position() >= position, "readers need not wait");
    }
    assert_eq!(program.reports.load(Ordering::Relaxed), 2);
    assert_eq!(totals.status().await.unwrap().projected, 2);
    totals.stop().await.unwrap();
}

/// Keeps where each event is.
struct Places;

impl Projection for Places {
    type Event = AccountEvent;
    type View = PostgresView;
    const NAME: &'static str = "places";
    const VERSION: u32 = 1;

    async fn set_up(&self, tx: &mut SqlTransaction<Postgres>) -> Result<(), HandlerError> {
        let table = "create table {places} (position bigint, stream text, revision bigint, id text, micros bigint)";
        let table = tx.sql(table);
        sqlx::query(table).execute(&mut **tx).await?;
        Ok(())
    }

    async fn project(
        &self,
        tx: &mut SqlTransaction<Postgres>,
        event: &Recorded<AccountEvent>,
    ) -> Result<(), HandlerError> {
        let insert = tx.sql("insert into {places} values ($1, $2, $3, $4, $5)");
        let insert = sqlx::query(insert)
            .bind(i64::try_from(event.position.get())?)
            .bind(event.stream.as_str())
            .bind(i64::try_from(event.revision.get())?)
            .bind(event.id.to_string())
            .bind(i64::try_from(event.time.as_micros())?);
        insert.execute(&mut **tx).await?;
        Ok(())
    }
}

#[tokio::test]
async fn an_inline_projection_sees_each_event_where_it_is_stored() {
    let bank = bank().await;
    deposit(&bank.plain, "ann", 1).await;
    let project = bank.plain.project(Places, bank.view.clone());
    let (store, places) = project.inline().await.unwrap();
    // Of one stream twice, with another and one of no projection between.
    let write = |id: &str, kind: &str, count: u64| {
        let kind = EventType::new(kind).unwrap();
        StreamWrite {
            stream: StreamName::new(format!("account-{id}")).unwrap(),
            expected: ExpectedRevision::Any,
            events: (0..count)
                .map(|_| NewEvent::json(kind.clone(), r#"{"amount":1}"#))
                .collect(),
        }
    };
    let writes = vec![
        write("ann", "DepositMade", 2),
        write("bob", "DepositMade", 1),
        write("eve", "AddressChanged", 1),
        write("ann", "DepositMade", 1),
    ];
    let append = Append::new(writes, Vec::new()).unwrap();
    store.event_store().append(append).await.unwrap();
    deposit(&store, "bob", 1).await;

    let rows = sqlx::query("select position, stream, revision, id, micros from places order by 1");
    let rows = rows.fetch_all(bank.view.pool()).await.unwrap();
    let number =
        |row: &sqlx::postgres::PgRow, at: usize| u64::try_from(row.get::<i64, _>(at)).unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| {
            let (stream, id): (String, String) = (row.get(1), row.get(3));
            (number(row, 0), stream, number(row, 2), id, number(row, 4))
        })
        .collect();
    let stored = bank.plain.events::<AccountEvent>().collect().await.unwrap();
    let stored = stored.iter().map(|event| {
        let (stream, id) = (event.stream.to_string(), event.id.to_string());
        let (position, revision) = (event.position.get(), event.revision.get());
        (position, stream, revision, id, event.time.as_micros())
    });
    assert_eq!(seen, stored.collect::<Vec<_>>());
    assert_eq!(seen.len(), 6);
    places.stop().await.unwrap();
}

#[tokio::test]
async fn a_view_that_fails_refuses_the_append_by_the_names_of_projection_and_event() {
    let bank = bank().await;
    let program = Program::poisoned(&bank.view, "bob");
    let (store, totals) = program.project::<1>(&bank.plain).inline().await.unwrap();
    deposit(&store, "ann", 1).await;
    let head = bank.head().await;
    let accounts = store.repository::<BankAccount>();
    let refused = accounts.execute("bob", |account| account.deposit(7)).await;
    let Err(ExecuteError::Refused { cause }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        cause.to_string(),
        "append is not valid: projection totals version 1 failed on event DepositMade, revision 0 of stream \
         account-bob, at position 2: this account has no owner"
    );
    assert_eq!(bank.head().await, head, "nothing was appended");
    bank.totals([("ann", 1)]).await;
    deposit(&store, "ann", 2).await;
    program.poison.lock().unwrap().clear();
    deposit(&store, "bob", 7).await;
    bank.totals([("ann", 3), ("bob", 7)]).await;
    totals.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_with_an_idempotency_key_is_in_the_view_once_however_often_it_is_executed() {
    let bank = bank().await;
    let program = Program::of(&bank.view);
    let (store, totals) = program.project::<1>(&bank.plain).inline().await.unwrap();
    let keyed = |store: &Store, id: &'static str, key: &str| {
        let accounts = store.repository::<BankAccount>().with_attempts(100);
        let keyed = accounts.with_idempotency_key("deposit", key);
        async move { keyed.execute(id, |account| account.deposit(5)).await }
    };
    // Half of them by a store that writes no view.
    let stores = [&store, &bank.plain];
    let calls = (0..16).map(|nth| keyed(stores[nth % 2], "ann", "at once"));
    let done = futures_util::future::join_all(calls).await;
    let done = done.into_iter().map(|done| done.unwrap().repeated);
    assert_eq!(done.filter(|repeated| !repeated).count(), 1);

    assert!(
        !keyed(&bank.plain, "ann", "elsewhere")
            .await
            .unwrap()
            .repeated
    );
    assert!(keyed(&store, "ann", "elsewhere").await.unwrap().repeated);
    // What the view refuses does not use the key up.
    program.poison.lock().unwrap().push("bob".to_owned());
    keyed(&store, "bob", "refused").await.unwrap_err();
    program.poison.lock().unwrap().clear();
    assert!(!keyed(&store, "bob", "refused").await.unwrap().repeated);
    assert!(keyed(&store, "bob", "refused").await.unwrap().repeated);
    bank.totals([("ann", 10), ("bob", 5)]).await;
    totals.stop().await.unwrap();
}

#[tokio::test]
async fn events_of_other_appenders_are_written_before_those_of_the_next_append() {
    let bank = bank().await;
    let (store, totals) = bank.inline().await;
    deposit(&store, "ann", 1).await;
    // Nobody else is there to write what is missing.
    totals.stop().await.unwrap();
    for _ in 0..3 {
        deposit(&bank.plain, "bob", 10).await;
    }
    bank.totals([("ann", 1)]).await;
    deposit(&store, "ann", 1).await;
    bank.totals([("ann", 2), ("bob", 30)]).await;

    // More than one append takes: without the projection's task it is refused, and with it it waits.
    let many = deposits("eve", 600, ExpectedRevision::NoStream);
    bank.plain.event_store().append(many).await.unwrap();
    let one = || deposits("ann", 1, ExpectedRevision::Any);
    let refused = store.event_store().append(one()).await;
    let Err(AppendError::Unavailable { cause }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        cause.to_string(),
        "projection totals version 1 lacks events up to position 605; expected at most 512"
    );
    let project = Program::of(&bank.view).project::<1>(&bank.plain);
    let (store, totals) = project.inline_budget(SOON).inline().await.unwrap();
    store.event_store().append(one()).await.unwrap();
    until("the view has all", async || {
        bank.view.totals().await.get("eve") == Some(&600)
    })
    .await;
    bank.totals([("ann", 3), ("bob", 30), ("eve", 600)]).await;
    totals.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_append_is_a_conflict_and_a_repeated_one_is_recognised_whatever_the_view_says() {
    let bank = bank().await;
    let program = Program::of(&bank.view);
    let (store, totals) = program.project::<1>(&bank.plain).inline().await.unwrap();
    let first = deposits("ann", 1, ExpectedRevision::NoStream);
    let appended = store.event_store().append(first.clone()).await.unwrap();
    let again = store.event_store().append(first.clone()).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.first, appended.first);
    bank.totals([("ann", 1)]).await;

    program.poison.lock().unwrap().push("ann".to_owned());
    let again = store.event_store().append(first).await.unwrap();
    assert!(again.repeated);
    let stale = deposits("ann", 1, ExpectedRevision::NoStream);
    let refused = store.event_store().append(stale).await;
    assert!(
        matches!(refused, Err(AppendError::Conflict(_))),
        "{refused:?}"
    );
    let valid = deposits("ann", 1, ExpectedRevision::StreamExists);
    let refused = store.event_store().append(valid).await;
    assert!(
        matches!(refused, Err(AppendError::Invalid { .. })),
        "{refused:?}"
    );
    bank.totals([("ann", 1)]).await;
    totals.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_two_programs_and_one_that_writes_no_view_lose_and_double_nothing() {
    const EACH: i64 = 25;
    let bank = bank().await;
    let (one, totals) = bank.inline().await;
    let other = Program::of(&view(&bank.address).await);
    let theirs = Store::postgres(&bank.address).await.unwrap();
    let (two, others) = other.project::<1>(&theirs).inline().await.unwrap();
    let writers = [
        (&one, "ann"),
        (&one, "bob"),
        (&two, "bob"),
        (&two, "eve"),
        (&bank.plain, "ann"),
    ];
    let writing = writers.map(|(store, id)| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..EACH {
                deposit(&store, id, 1).await;
            }
        })
    });
    for writer in writing {
        writer.await.unwrap();
    }
    let last = deposit(&one, "eve", 1).await;
    assert_eq!(last.get(), u64::try_from(5 * EACH + 1).unwrap());
    bank.totals([("ann", 2 * EACH), ("bob", 2 * EACH), ("eve", EACH + 1)])
        .await;
    totals.stop().await.unwrap();
    others.stop().await.unwrap();
}

#[tokio::test]
async fn others_append_while_a_view_is_slow_and_the_slow_append_goes_behind_them() {
    let bank = bank().await;
    let program = Program {
        permits: Arc::new(Semaphore::new(0)),
        ..Program::of(&bank.view)
    };
    let project = program.project::<1>(&bank.plain).inline_budget(SOON);
    let (store, totals) = project.inline().await.unwrap();
    totals.stop().await.unwrap();
    let append = deposits("ann", 1, ExpectedRevision::NoStream);
    let slow = tokio::spawn(append_to(store, append));
    // Its view is being written; the log is free.
    program.begun.acquire().await.unwrap().forget();
    assert_eq!(deposit(&bank.plain, "bob", 10).await.get(), 1);
    program.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(slow.await.unwrap().unwrap().first.get(), 2);
    bank.totals([("ann", 1), ("bob", 10)]).await;
}

#[tokio::test]
async fn a_view_that_takes_longer_than_its_budget_refuses_the_append_for_now() {
    let bank = bank().await;
    let program = Program {
        permits: Arc::new(Semaphore::new(0)),
        ..Program::of(&bank.view)
    };
    let project = program.project::<1>(&bank.plain);
    let project = project.inline_budget(Duration::from_millis(500));
    let (store, totals) = project.inline().await.unwrap();
    let append = deposits("ann", 1, ExpectedRevision::NoStream);
    let refused = store.event_store().append(append.clone()).await;
    let Err(AppendError::Unavailable { cause }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        cause.to_string(),
        "views of totals version 1 were not written within 500ms"
    );
    assert_eq!(bank.head().await, Position::START);
    totals.stop().await.unwrap();
    program.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let project = program.project::<1>(&bank.plain).inline_budget(SOON);
    let (store, _totals) = project.inline().await.unwrap();
    assert!(!store.event_store().append(append).await.unwrap().repeated);
    bank.totals([("ann", 1)]).await;
}

#[tokio::test]
async fn a_raised_version_is_built_from_the_log_and_the_older_program_is_refused() {
    let bank = bank().await;
    let (old, older) = bank.inline().await;
    deposit(&old, "ann", 1).await;
    let project = Program::of(&bank.view).project::<2>(&bank.plain);
    let (new, newer) = project.inline().await.unwrap();
    bank.totals([("ann", 2)]).await;
    let append = deposits("ann", 1, ExpectedRevision::Any);
    let refused = old.event_store().append(append).await;
    let Err(AppendError::Invalid { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        reason,
        "projection totals version 1 is superseded by version 2; expected a program with that version"
    );
    deposit(&new, "ann", 3).await;
    bank.totals([("ann", 8)]).await;
    drop(older);
    newer.remove_superseded().await.unwrap();
    newer.stop().await.unwrap();
}

#[tokio::test]
async fn two_projections_and_the_log_change_in_one_transaction() {
    let bank = bank().await;
    let (store, totals) = bank.inline().await;
    let project = store.project(Places, bank.view.clone());
    let (store, places) = project.inline().await.unwrap();
    deposit(&store, "ann", 5).await;
    bank.totals([("ann", 5)]).await;
    let count = async || {
        let count = sqlx::query_scalar::<_, i64>("select count(*) from places");
        count.fetch_one(bank.view.pool()).await.unwrap()
    };
    assert_eq!(count().await, 1);
    // The table of one is gone: neither log nor the other view changes.
    let take = "alter table places_v1 rename to taken";
    sqlx::query(take).execute(bank.view.pool()).await.unwrap();
    let head = bank.head().await;
    let append = deposits("ann", 1, ExpectedRevision::Any);
    let refused = store.event_store().append(append).await;
    let Err(AppendError::Invalid { reason }) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        reason.starts_with("projection places version 1 failed"),
        "{reason}"
    );
    assert_eq!(bank.head().await, head);
    bank.totals([("ann", 5)]).await;
    drop((totals, places));
}

#[tokio::test]
async fn a_checkpoint_that_an_operator_moved_back_is_followed_from_there() {
    let bank = bank().await;
    let (store, totals) = bank.inline().await;
    deposit(&store, "ann", 1).await;
    deposit(&store, "ann", 2).await;
    for statement in [
        "update leftfold_projections set position = 0, event = ''",
        "delete from totals_v1",
    ] {
        sqlx::query(statement)
            .execute(bank.view.pool())
            .await
            .unwrap();
    }
    deposit(&store, "bob", 4).await;
    bank.totals([("ann", 3), ("bob", 4)]).await;
    totals.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_ends_between_view_and_commit_leaves_neither() {
    let bank = bank().await;
    let program = Program {
        permits: Arc::new(Semaphore::new(0)),
        ..Program::of(&bank.view)
    };
    let project = program.project::<1>(&bank.plain).inline_budget(SOON);
    let (store, totals) = project.inline().await.unwrap();
    totals.stop().await.unwrap();
    let append = deposits("ann", 1, ExpectedRevision::NoStream);
    let cut = tokio::spawn(append_to(store.clone(), append.clone()));
    program.begun.acquire().await.unwrap().forget();
    let writing = "select pid from pg_stat_activity where state = 'idle in transaction'";
    let process = sqlx::query_scalar::<_, i32>(writing).fetch_one(bank.view.pool());
    let process = process.await.unwrap();
    let end = sqlx::query("select pg_terminate_backend($1)").bind(process);
    end.execute(bank.view.pool()).await.unwrap();
    program.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let refused = cut.await.unwrap();
    assert!(
        matches!(refused, Err(AppendError::Unavailable { .. })),
        "{refused:?}"
    );
    assert_eq!(bank.head().await, Position::START);
    bank.totals([]).await;
    assert!(!store.event_store().append(append).await.unwrap().repeated);
    bank.totals([("ann", 1)]).await;
    let read = bank.plain.event_store().read(Read::all());
    assert_eq!(futures_util::StreamExt::count(read).await, 1);
}

#[tokio::test]
async fn what_cannot_be_inline_is_refused_with_what_to_do_instead() {
    let bank = bank().await;
    let program = Program::of(&bank.view);
    let refused = program.project::<1>(&Store::memory()).inline().await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("start it with `spawn`"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    let embedded = Store::open(directory.path()).await.unwrap();
    let refused = program.project::<1>(&embedded).inline().await;
    assert!(matches!(refused, Err(InlineError::UnsupportedStore { .. })));
    let tenant = bank.plain.tenant("acme").unwrap();
    let refused = program.project::<1>(&tenant).inline().await;
    assert!(matches!(refused, Err(InlineError::Tenant { .. })));
    let parks = program.project::<1>(&bank.plain).park_on_failure();
    assert!(matches!(
        parks.inline().await,
        Err(InlineError::Parks { .. })
    ));
    let other = Program::of(&view(&bank.server.database()).await);
    let refused = other.project::<1>(&bank.plain).inline().await;
    assert!(
        matches!(refused, Err(InlineError::OtherDatabase { .. })),
        "{refused:?}"
    );

    // The tables of one view in another schema than those of the other.
    let (store, _totals) = bank.inline().await;
    let schema = "create schema elsewhere";
    sqlx::query(schema).execute(bank.view.pool()).await.unwrap();
    let options = (*bank.view.pool().connect_options()).clone();
    let options = options.options([("search_path", "elsewhere")]);
    let pool = PgPoolOptions::new().connect_with(options).await.unwrap();
    let elsewhere = PostgresView::open(pool).await.unwrap();
    let refused = store.project(Places, elsewhere).inline().await;
    assert!(
        matches!(refused, Err(InlineError::OtherDatabase { .. })),
        "{refused:?}"
    );
}
