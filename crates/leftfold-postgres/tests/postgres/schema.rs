//! Versions of the schema.
//!
//! **Owns:** these stories. **Does not know:** events.

use leftfold_model::ExpectedRevision::Any;
use leftfold_postgres::{OpenError, PostgresStore, SCHEMA_VERSION};
use leftfold_store::EventStore;

use crate::{
    server::{fresh, server},
    story::to,
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

#[tokio::test]
async fn a_schema_without_erasing_is_brought_forward_with_the_rights_that_were_given() {
    let options = fresh();
    let schema = options.schema();
    let psql = |sql: &str| server().psql("postgres", sql);
    psql(&format!(
        "create schema {schema}; create table {schema}.migrations \
         (version int primary key, name text not null, applied_at timestamptz not null default clock_timestamp())"
    ));
    for step in PostgresStore::migrations(&options).iter().take(3) {
        psql(&step.sql);
        psql(&format!(
            "insert into {schema}.migrations values ({}, '{}')",
            step.version, step.name
        ));
    }
    let role = format!("Earlier {schema}");
    psql(&format!(
        "create role \"{role}\"; select {schema}.grant_read('{role}')"
    ));
    let run = PostgresStore::migrate(&options).await.unwrap();
    assert_eq!(run.iter().map(|step| step.version).collect::<Vec<_>>(), [4]);
    let may = format!(
        "select has_table_privilege('{role}', '{schema}.erased', 'select') and \
         has_table_privilege('{role}', '{schema}.events', 'select')"
    );
    assert_eq!(psql(&may).trim(), "t");
    let store = PostgresStore::open_with(options).await.unwrap();
    store.append(to("a", Any, "Written")).await.unwrap();
}
