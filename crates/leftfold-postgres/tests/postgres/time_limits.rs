//! Time limits on the client's side, and connections that are discarded.
//!
//! **Owns:** these tests. **Does not know:** the protocol.

use std::time::Duration;

use futures_util::StreamExt;
use leftfold_model::{Append, ExpectedRevision::Any, Position, Read};
use leftfold_postgres::{OpenError, PostgresOptions, PostgresStore};
use leftfold_store::{AppendError, EventStore, ReadError};
use tokio::time::timeout;

use crate::{
    fixtures::{event, stream, surely, to, until},
    relay::{Fault, Relay},
    server::{fresh, schema, server},
};

/// Longer than any limit that the tests set.
const TOO_LONG: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(1);

async fn behind(relay: &Relay) -> PostgresStore {
    let address = format!("{}?connect_timeout=1", relay.address());
    let options: PostgresOptions = address.parse().unwrap();
    let options = options
        .with_schema(schema())
        .with_statement_timeout(LIMIT)
        .with_reconnect_timeout(LIMIT);
    PostgresStore::open_with(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_to_a_silent_server_has_an_unknown_outcome_and_a_repetition_finds_it() {
    let relay = Relay::start().await;
    let store = behind(&relay).await;
    store.append(to("a", Any, "First")).await.unwrap();
    relay.set(Fault::Silence);
    let append = to("a", Any, "Second");
    let outcome = timeout(TOO_LONG, store.append(append.clone())).await;
    let unknown = outcome.expect("the append ends").unwrap_err();
    assert!(
        matches!(unknown, AppendError::OutcomeUnknown { .. }),
        "{unknown}"
    );
    relay.set(Fault::None);
    surely(&store, &append).await;
    assert_eq!(crate::fixtures::types(&store).await, ["First", "Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_a_check_and_an_open_of_a_silent_server_end() {
    let relay = Relay::start().await;
    let store = behind(&relay).await;
    store.append(to("a", Any, "First")).await.unwrap();
    relay.set(Fault::Silence);
    let read = timeout(TOO_LONG, store.read(Read::all()).next()).await;
    let read = read.expect("the read ends").unwrap().unwrap_err();
    assert!(matches!(read, ReadError::Unavailable { .. }), "{read}");
    let check = timeout(TOO_LONG, store.check()).await;
    assert!(check.expect("the check ends").is_err());
    let address = format!("{}?connect_timeout=1", relay.address());
    let open = timeout(TOO_LONG, PostgresStore::open(&address)).await;
    let refused = open.expect("the open ends").unwrap_err();
    assert!(matches!(refused, OpenError::Connect { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_caller_went_away_holds_up_nobody() {
    let options = fresh().with_connections(2);
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    let mut blocking = store.connection().await.unwrap();
    let blocking = blocking.transaction().await.unwrap();
    let lock = format!("lock table {schema}.snapshots in access exclusive mode");
    blocking.batch_execute(&lock).await.unwrap();
    // Both connections are used by calls that wait for the lock, and then dropped.
    let waiting = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%{schema}%snapshots%'"
    );
    let waits = |count: &'static str| {
        let waiting = waiting.clone();
        until(move || {
            let waiting = waiting.clone();
            async move { server().psql("postgres", &waiting).trim() == count }
        })
    };
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let snapshots = store.snapshots();
            tokio::spawn(async move { snapshots.load(&stream("a")).await })
        })
        .collect();
    waits("2").await;
    for call in calls {
        call.abort();
    }
    timeout(LIMIT, store.head())
        .await
        .expect("in time")
        .unwrap();
    timeout(LIMIT, store.append(to("a", Any, "Second")))
        .await
        .expect("in time")
        .unwrap();
    // The statements are cancelled on the server too.
    waits("0").await;
    blocking.rollback().await.unwrap();
}

/// A request that ends early drops the future that appends in a transaction, and with it the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_caller_went_away_during_a_statement_holds_up_no_append() {
    let options = fresh();
    let name = format!("leaver of {}", options.schema());
    let store = PostgresStore::open_with(options.with_application_name(&name))
        .await
        .unwrap();
    let (held, is_held) = tokio::sync::oneshot::channel();
    let caller = tokio::spawn({
        let store = store.clone();
        async move {
            let mut client = store.connection().await.unwrap();
            let transaction = client.transaction().await.unwrap();
            let append = to("a", Any, "Held");
            store.append_in(&transaction, append).await.unwrap();
            held.send(()).unwrap();
            // Ends long after the append would have given up.
            let _ = transaction.batch_execute("select pg_sleep(3600)").await;
        }
    });
    is_held.await.unwrap();
    let sleeping = format!(
        "select count(*) from pg_stat_activity where application_name = '{name}' and wait_event = 'PgSleep'"
    );
    until(|| async { server().psql("postgres", &sleeping).trim() == "1" }).await;
    caller.abort();
    let append = timeout(TOO_LONG, store.append(to("a", Any, "Second"))).await;
    append.expect("in time").unwrap();
    assert_eq!(crate::fixtures::types(&store).await, ["Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_have_a_connection_of_their_own() {
    let options = fresh().with_connections(2);
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    let mut blocking = store.connection().await.unwrap();
    let blocking = blocking.transaction().await.unwrap();
    let lock = format!("lock table {schema}.snapshots in access exclusive mode");
    blocking.batch_execute(&lock).await.unwrap();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let snapshots = store.snapshots();
            tokio::spawn(async move { snapshots.load(&stream("a")).await })
        })
        .collect();
    let busy = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%{schema}%snapshots%'"
    );
    until(|| async { server().psql("postgres", &busy).trim() == "2" }).await;
    let append = timeout(
        Duration::from_secs(5),
        store.append(to("a", Any, "Written")),
    )
    .await;
    append.expect("in time").unwrap();
    blocking.rollback().await.unwrap();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_waits_too_long_for_the_lock_is_given_up_at_once() {
    let options = fresh().with_statement_timeout(LIMIT);
    let store = PostgresStore::open_with(options).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("a", Any, "Held"))
        .await
        .unwrap();
    let appends = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.append(to(&format!("s-{n}"), Any, "Never")).await })
    });
    let outcomes = timeout(LIMIT * 6, futures_util::future::join_all(appends)).await;
    for outcome in outcomes.expect("not one by one") {
        let refused = outcome.unwrap().unwrap_err();
        assert!(
            matches!(refused, AppendError::Unavailable { .. }),
            "{refused}"
        );
    }
}

/// Opens a store whose server runs these statements before it inserts an event.
async fn store_with_trigger(statements: &str) -> PostgresStore {
    let options = fresh();
    let schema = options.schema().to_owned();
    let store = PostgresStore::open_with(options).await.unwrap();
    let sql = format!(
        "create function {schema}.before_event() returns trigger language plpgsql as $$
         begin {statements} end $$;
         create trigger before_event before insert on {schema}.events for each row
         execute function {schema}.before_event()"
    );
    server().psql("postgres", &sql);
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_for_its_data_is_invalid_and_not_retried_by_callers() {
    let store = store_with_trigger("raise exception 'odd events are refused';").await;
    let refused = store.append(to("a", Any, "Odd")).await.unwrap_err();
    let AppendError::Invalid { reason } = &refused else {
        panic!("{refused:?}");
    };
    assert!(reason.contains("odd events are refused"), "{reason}");
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let refused = store.append_in(&transaction, to("a", Any, "Odd")).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, AppendError::Invalid { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_of_a_trigger_leaves_no_outcome_in_doubt() {
    let store = store_with_trigger("raise warning 'a new event'; return new;").await;
    let append = Append::to(stream("a"), Any, vec![event("Written")]).unwrap();
    store.append(append).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_trigger_drops_is_refused_and_not_acknowledged() {
    let store =
        store_with_trigger("if new.stream = 'a' then return null; end if; return new;").await;
    let to = |name| Append::to(stream(name), Any, vec![event("Written")]).unwrap();
    let (dropped, kept) = tokio::join!(store.append(to("a")), store.append(to("b")));
    assert!(
        matches!(dropped, Err(AppendError::Invalid { .. })),
        "{dropped:?}"
    );
    assert_eq!(kept.unwrap().first, Position::FIRST);
}
