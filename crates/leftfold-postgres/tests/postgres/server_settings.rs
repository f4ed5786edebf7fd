//! What a server must promise before a store runs on it, and what it may take back.
//!
//! **Owns:** these tests. **Does not know:** crashes.

use leftfold_model::{ExpectedRevision::Any, Position};
use leftfold_postgres::{OpenError, PostgresOptions, PostgresStore, testing::Server};
use leftfold_store::{AppendError, EventStore};

use crate::{
    fixtures::{surely, to, types, until},
    server::{fresh, server},
};

#[tokio::test]
async fn a_database_that_does_not_wait_for_its_commits_is_refused_unless_told_otherwise() {
    let address = server().database();
    let name = address.rsplit('/').next().unwrap();
    server().psql(
        "postgres",
        &format!("alter database {name} set synchronous_commit = off"),
    );
    let refused = PostgresStore::open(&address).await.unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Unsafe {
                setting: "synchronous_commit",
                ..
            }
        ),
        "{refused}"
    );
    let store = PostgresStore::open(&format!("{address}?unsafe_allow_lost_commits=true"))
        .await
        .unwrap();
    assert!(!store.capabilities().durable);
    store.append(to("a", Any, "Written")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_does_not_sync_its_files_is_refused() {
    let server = Server::start_with("fsync = off");
    let refused = PostgresStore::open(&server.database()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Unsafe {
                setting: "fsync",
                ..
            }
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn a_schema_with_an_unlogged_table_is_refused_unless_told_otherwise() {
    let address = server().database();
    let database = address.rsplit('/').next().unwrap();
    let store = PostgresStore::open(&address).await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
    store.close().await.unwrap();
    server().psql(database, "alter table leftfold.snapshots set unlogged");
    let refused = PostgresStore::open(&address).await.unwrap_err();
    assert!(
        matches!(&refused, OpenError::Unlogged { table, .. } if table == "snapshots"),
        "{refused}"
    );
    PostgresStore::open(&format!("{address}?unsafe_allow_lost_commits=true"))
        .await
        .unwrap();
    server().psql(database, "alter table leftfold.snapshots set logged");
    PostgresStore::open(&address).await.unwrap();
}

#[tokio::test]
async fn a_session_that_stops_waiting_for_commits_later_is_refused_by_the_append() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let mut client = store.connection().await.unwrap();
    client
        .batch_execute("set synchronous_commit = off")
        .await
        .unwrap();
    let transaction = client.transaction().await.unwrap();
    let refused = store
        .append_in(&transaction, to("a", Any, "Never"))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, AppendError::Unavailable { .. }),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_may_not_be_on_the_standby_is_an_unknown_outcome() {
    let server = Server::start();
    let store = PostgresStore::open(&server.database()).await.unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    let reload = |value: &str| {
        server.psql(
            "postgres",
            &format!("alter system set synchronous_standby_names = '{value}'"),
        );
        server.psql("postgres", "select pg_reload_conf()");
    };
    // A standby that does not exist: commits wait for it.
    reload("nobody");
    until(|| async {
        server
            .psql("postgres", "show synchronous_standby_names")
            .trim()
            == "nobody"
    })
    .await;
    let append = to("a", Any, "Second");
    let waiting = tokio::spawn({
        let (store, append) = (store.clone(), append.clone());
        async move { store.append(append).await }
    });
    let cancel =
        "select count(pg_cancel_backend(pid)) from pg_stat_activity where wait_event = 'SyncRep'";
    until(|| async { server.psql("postgres", cancel).trim() != "0" }).await;
    let unknown = waiting.await.unwrap().unwrap_err();
    assert!(
        matches!(unknown, AppendError::OutcomeUnknown { .. }),
        "{unknown}"
    );
    reload("");
    assert!(surely(&store, &append).await.repeated);
    assert_eq!(types(&store).await, ["First", "Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_takes_too_long_is_ended_and_wrote_nothing() {
    let options = fresh().with_statement_timeout(std::time::Duration::from_secs(1));
    let store = PostgresStore::open_with(options).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("a", Any, "Held"))
        .await
        .unwrap();
    let refused = store.append(to("b", Any, "Never")).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Unavailable { .. }),
        "{refused}"
    );
    transaction.rollback().await.unwrap();
    assert_eq!(store.head().await.unwrap(), Position::START);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_holds_the_lock_and_does_nothing_is_ended_by_the_server() {
    let options = fresh().with_idle_timeout(std::time::Duration::from_secs(1));
    let store = PostgresStore::open_with(options).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("a", Any, "Never"))
        .await
        .unwrap();
    store.append(to("b", Any, "Written")).await.unwrap();
    assert!(transaction.commit().await.is_err());
    assert_eq!(types(&store).await, ["Written"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_such_without_its_password() {
    let options: PostgresOptions = "postgres://a:hunter2@127.0.0.1:1/b".parse().unwrap();
    let refused = PostgresStore::open_with(options).await.unwrap_err();
    assert!(matches!(refused, OpenError::Connect { .. }));
    assert!(!format!("{refused:?}").contains("hunter2"));
}
