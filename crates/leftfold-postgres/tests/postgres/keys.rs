//! Keys of subjects in a database.
//!
//! **Owns:** what the rules of the conformance suite do not reach: several programs, servers that are killed, what stands in the
//! table. **Does not know:** what a key seals.

use leftfold_postgres::{OpenError, PostgresKeys, PostgresStore, testing::Server};
use leftfold_store::keys::{KeyError, KeyStore, Subject};

use crate::server::{fresh, server};

fn guest(id: &str) -> Subject {
    Subject {
        tenant: String::new(),
        kind: "guest".to_owned(),
        id: id.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_open_one_place_at_once_create_one_key_for_a_subject() {
    let options = fresh();
    let opening: Vec<_> = (0..6)
        .map(|_| {
            let options = options.clone();
            tokio::spawn(async move {
                let keys = PostgresKeys::open_with(options).await.unwrap();
                keys.key(&guest("g1")).await.unwrap()
            })
        })
        .collect();
    let mut created = Vec::new();
    for opened in opening {
        created.push(opened.await.unwrap());
    }
    assert!(created.iter().all(|key| *key == created[0]), "{created:?}");
}

#[tokio::test]
async fn a_schema_that_holds_a_log_is_refused_and_left_as_it_is() {
    let options = fresh();
    PostgresStore::open_with(options.clone()).await.unwrap();
    let refused = PostgresKeys::open_with(options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Unsupported { .. }),
        "{refused:?}"
    );
    let expected = format!(
        "unsupported database: schema of keys is {} with a log, expected a schema of its own, best in another database",
        options.schema()
    );
    assert_eq!(refused.to_string(), expected);
    let table = format!(
        "select to_regclass('{}.subject_keys') is null",
        options.schema()
    );
    assert_eq!(server().psql("postgres", &table).trim(), "t");
}

#[tokio::test]
async fn no_subject_stands_in_the_table_in_clear() {
    let options = fresh();
    let keys = PostgresKeys::open_with(options.clone()).await.unwrap();
    keys.key(&guest("ann@example.org")).await.unwrap();
    let rows = format!(
        "select k::text, convert_from(subject, 'LATIN1') from {}.subject_keys k",
        options.schema()
    );
    let rows = server().psql("postgres", &rows);
    assert!(
        rows.contains("\\x") && !rows.contains("ann") && !rows.contains("guest"),
        "{rows}"
    );
    let shown = format!("{keys:?}");
    assert!(
        shown.contains("subject_keys") && !shown.contains("postgres://"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_waited_for_while_the_server_is_killed_and_started_again() {
    let mut server = Server::start();
    let keys = PostgresKeys::open(&server.database()).await.unwrap();
    let before = keys.key(&guest("g1")).await.unwrap();
    keys.key(&guest("g2")).await.unwrap();
    keys.destroy(&guest("g2")).await.unwrap();
    server.kill();
    let calls = {
        let keys = keys.clone();
        tokio::spawn(async move {
            let found = keys.existing(&guest("g1")).await;
            (found, keys.key(&guest("g3")).await)
        })
    };
    let server = tokio::task::spawn_blocking(move || {
        server.launch();
        server
    });
    let server = server.await.unwrap();
    let (found, created) = calls.await.unwrap();
    assert_eq!(found.unwrap(), Some(before));
    assert_eq!(
        keys.existing(&guest("g3")).await.unwrap(),
        Some(created.unwrap())
    );
    assert_eq!(keys.existing(&guest("g2")).await.unwrap(), None);
    drop(server);
}

#[tokio::test]
async fn a_table_that_cannot_be_read_is_an_error_that_shows_no_key() {
    let options = fresh();
    let keys = PostgresKeys::open_with(options.clone()).await.unwrap();
    keys.key(&guest("g1")).await.unwrap();
    server().psql(
        "postgres",
        &format!("drop table {}.subject_keys", options.schema()),
    );
    let error = keys.key(&guest("g1")).await.unwrap_err();
    let KeyError::Unavailable { reason } = &error else {
        panic!("{error:?}")
    };
    assert!(reason.contains("subject_keys"), "{reason}");
    assert!(
        keys.destroy(&guest("g1")).await.is_err(),
        "it cannot say that the key is gone"
    );
}
