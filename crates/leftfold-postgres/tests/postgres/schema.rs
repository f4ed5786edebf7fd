//! Versions of the schema.
//!
//! **Owns:** these tests. **Does not know:** events.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use leftfold_model::{ExpectedRevision::Any, Position};
use leftfold_postgres::{OpenError, PostgresKeys, PostgresOptions, PostgresStore, SCHEMA_VERSION};
use leftfold_store::{Delete, EventStore, Scavenge, Subscription};
use tokio::time::timeout;
use tokio_postgres::NoTls;

use crate::{
    fixtures::{stream, to},
    server::{fresh, server},
};

#[tokio::test]
async fn a_schema_is_made_once_however_many_open_it_at_the_same_time() {
    let options = fresh();
    let opening: Vec<_> = (0..6)
        .map(|_| tokio::spawn(PostgresStore::open_with(options.clone())))
        .collect();
    for opened in opening {
        opened
            .await
            .unwrap()
            .unwrap()
            .append(to("a", Any, "Written"))
            .await
            .unwrap();
    }
    let versions = format!(
        "select version from {}.migrations order by 1",
        options.schema()
    );
    let versions = server().psql("postgres", &versions);
    assert_eq!(
        versions.lines().count(),
        usize::try_from(SCHEMA_VERSION).unwrap()
    );
    assert!(PostgresStore::migrate(&options).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_newer_schema_is_refused_by_its_number() {
    let options = fresh();
    PostgresStore::open_with(options.clone()).await.unwrap();
    let newer = format!(
        "insert into {}.migrations values (99, 'of tomorrow')",
        options.schema()
    );
    server().psql("postgres", &newer);
    let refused = PostgresStore::open_with(options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Newer { found: 99, .. }),
        "{refused}"
    );
    let refused = PostgresStore::migrate(&options).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Newer { found: 99, .. }),
        "{refused}"
    );
}

#[tokio::test]
async fn a_schema_left_to_a_person_is_not_touched() {
    let options = fresh().without_migrating();
    let refused = PostgresStore::open_with(options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::NotMigrated { found: 0, .. }),
        "{refused}"
    );
    let there = format!(
        "select count(*) from pg_namespace where nspname = '{}'",
        options.schema()
    );
    assert_eq!(server().psql("postgres", &there).trim(), "0");
    let run = PostgresStore::migrate(&options).await.unwrap();
    assert_eq!(run, PostgresStore::migrations(&options));
    PostgresStore::open_with(options).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing_behind() {
    let options = fresh();
    server().psql(
        "postgres",
        &format!(
            "create schema {0}; create table {0}.snapshots (in_the_way int)",
            options.schema()
        ),
    );
    let refused = PostgresStore::open_with(options.clone()).await.unwrap_err();
    assert!(
        matches!(refused, OpenError::Migration { version: 3, .. }),
        "{refused}"
    );
    let events = format!("select to_regclass('{}.events') is null", options.schema());
    assert_eq!(server().psql("postgres", &events).trim(), "t");
}

#[tokio::test]
async fn a_damaged_table_of_tags_is_found() {
    let options = fresh();
    let store = PostgresStore::open_with(options.clone()).await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
    assert!(store.verify().await.unwrap().findings.is_empty());
    server().psql(
        "postgres",
        &format!(
            "insert into {}.event_tags values ('stray', 1)",
            options.schema()
        ),
    );
    let report = store.verify().await.unwrap();
    assert_eq!(
        (
            report.events,
            report.findings.len(),
            report.findings[0].rows
        ),
        (1, 1, 1)
    );
}

/// Makes a schema of version 3.
fn make_older_schema(options: &PostgresOptions) {
    let schema = options.schema();
    let psql = |sql: &str| server().psql("postgres", sql);
    psql(&format!(
        "create schema {schema}; create table {schema}.migrations \
         (version int primary key, name text not null, applied_at timestamptz not null default clock_timestamp())"
    ));
    for step in PostgresStore::migrations(options).iter().take(3) {
        psql(&step.sql);
        psql(&format!(
            "insert into {schema}.migrations values ({}, '{}')",
            step.version, step.name
        ));
    }
}

#[tokio::test]
async fn a_schema_of_an_older_version_is_brought_to_the_newest() {
    let options = fresh();
    make_older_schema(&options);
    let applied = PostgresStore::migrate(&options).await.unwrap();
    let versions: Vec<_> = applied.iter().map(|step| step.version).collect();
    assert_eq!(versions, [4, 5, 6]);
    let store = PostgresStore::open_with(options).await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
}

/// Every role that may connect can take an advisory lock.
#[tokio::test]
async fn no_role_without_rights_holds_up_a_migration() {
    let options = fresh();
    make_older_schema(&options);
    let schema = options.schema();
    let name = format!("idler_{schema}");
    server().psql("postgres", &format!("create role {name} login"));
    let address = server()
        .address("postgres")
        .replace("leftfold@", &format!("{name}@"));
    let (idler, connection) = tokio_postgres::connect(&address, NoTls).await.unwrap();
    let driven = tokio::spawn(connection);
    let lock = format!("select pg_advisory_lock(1279677014, hashtext('{schema}'))");
    idler.batch_execute(&lock).await.unwrap();
    let migrating = PostgresStore::migrate(&options);
    let migrated = timeout(Duration::from_secs(60), migrating).await;
    assert_eq!(migrated.expect("nobody is waited for").unwrap().len(), 3);
    drop(idler);
    driven.await.unwrap().unwrap();
}

#[test]
fn each_version_of_the_schema_is_one_migration() {
    let options = fresh();
    let steps = PostgresStore::migrations(&options);
    let versions: Vec<_> = steps.iter().map(|step| step.version).collect();
    assert_eq!(versions, (1..=SCHEMA_VERSION).collect::<Vec<_>>());
    for step in &steps {
        assert!(step.sql.contains(options.schema()), "{}", step.name);
        assert!(!step.sql.contains(":schema"), "{}", step.name);
    }
}

#[tokio::test]
async fn a_schema_name_that_postgresql_would_truncate_is_refused_wherever_it_comes_from() {
    let long = "n".repeat(64);
    let open = PostgresStore::open_with(fresh().with_schema(&long)).await;
    assert!(matches!(open, Err(OpenError::Address { .. })), "{open:?}");
    let migrate = PostgresStore::migrate(&fresh().with_schema(&long)).await;
    assert!(matches!(migrate, Err(OpenError::Address { .. })));
    // The longest name, of two bytes a character, works everywhere.
    let name = format!("{}s", "\u{fc}".repeat(31));
    let store = PostgresStore::open_with(fresh().with_schema(name))
        .await
        .unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("a", Any, "Written"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
}

#[tokio::test]
async fn a_schema_name_that_needs_quotes_is_taken_everywhere_or_refused_when_the_store_is_opened() {
    for name in [
        "a b", "A-Schema", "select", "a.b", ":schema", "$1", "a;b", "{0}", "%s", "a--b", "\u{1}",
        "pg_mine", "a\"b", "a'b", " ",
    ] {
        let options = fresh().with_schema(format!("{name}{}", fresh().schema()));
        let options = match name {
            "pg_mine" | " " => options.with_schema(name),
            _ => options,
        };
        let store = match PostgresStore::open_with(options.clone()).await {
            Ok(store) => store,
            Err(refused) => {
                assert!(
                    ["pg_mine", "a\"b", "a'b"].contains(&name),
                    "{name}: {refused}"
                );
                continue;
            }
        };
        let mut deliveries = store.subscribe(Subscription::default());
        let mut client = store.connection().await.unwrap();
        let transaction = client.transaction().await.unwrap();
        let append = to("a-1", Any, "Written");
        store.append_in(&transaction, append).await.unwrap();
        transaction.commit().await.unwrap();
        store.append(to("a-1", Any, "Written")).await.unwrap();
        let mut delivered = 0;
        while delivered < 2 {
            delivered += deliveries.next().await.unwrap().unwrap().events.len();
        }
        store
            .delete(Delete::stream(stream("a-1"), Any))
            .await
            .unwrap();
        let steps: Vec<_> = store
            .scavenge(Scavenge::default())
            .try_collect()
            .await
            .unwrap();
        assert!(steps.last().unwrap().finished, "{name}");
        assert_eq!(store.snapshots().load(&stream("a-1")).await.unwrap(), None);
        assert!(store.verify().await.unwrap().findings.is_empty(), "{name}");
        // Another store beside it has none of this.
        let beside = PostgresStore::open_with(fresh()).await.unwrap();
        assert_eq!(beside.head().await.unwrap(), Position::START);
    }
}

/// Whoever chooses the name, such as a tenant at sign-up, shall not choose statements.
#[tokio::test]
async fn no_part_of_a_schema_name_is_executed() {
    let names = [
        "a\ncreate table public.from_a_comment ();--",
        "a\rcreate table public.from_a_comment ();--",
        "a$body$ language sql; create table public.from_a_body ();--",
        "a$body$",
        "\n",
    ];
    for name in names {
        let options = fresh().with_schema(name);
        let open = PostgresStore::open_with(options.clone()).await;
        assert!(
            matches!(open, Err(OpenError::Address { .. })),
            "{name:?}: {open:?}"
        );
        let migrate = PostgresStore::migrate(&options).await;
        assert!(
            matches!(migrate, Err(OpenError::Address { .. })),
            "{name:?}"
        );
        let keys = PostgresKeys::open_with(options).await;
        assert!(matches!(keys, Err(OpenError::Address { .. })), "{name:?}");
    }
    let made = "select count(*) from pg_class where relname like 'from_a_%'";
    assert_eq!(server().psql("postgres", made).trim(), "0");
    // What only looks like it is a name as any other.
    for name in ["$body", "body$", "$", "$$", "/*", "--"] {
        PostgresStore::open_with(fresh().with_schema(name))
            .await
            .unwrap();
    }
}
