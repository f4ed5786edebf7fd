//! The schema of a store: its version, and the migrations that lead there.
//!
//! **Owns:** [`Migration`], one SQL file for each version, and running them. **Does not know:** what the tables mean.
//! **Invariants:** a released migration never changes. All missing migrations run in one transaction under a lock, so a
//! schema is never between two versions. A schema of a newer version is refused.

use tokio_postgres::Client;

use crate::{OpenError, PostgresOptions, session::Session};

/// The version of the schema that this release expects.
pub const SCHEMA_VERSION: i32 = 6;

const LOG: &str = include_str!("sql/0001_log.sql");
const PARTITIONED: &str = include_str!("sql/0002_partitioned.sql");
const UNPARTITIONED: &str = include_str!("sql/0002_unpartitioned.sql");
const APPEND: &str = include_str!("sql/0003_append.sql");
const AUXILIARY: &str = include_str!("sql/0004_auxiliary.sql");
const RETENTION: &str = include_str!("sql/0005_retention.sql");
const PRIVILEGES: &str = include_str!("sql/0006_privileges.sql");

/// The part of the append function that creates partitions.
const CREATE_PARTITIONS: &str =
    "if (select (next - 1) / p.positions > head / p.positions from :schema.partitioning p) then
            perform :schema.create_partitions(next - 1);
        end if;";

/// One step from a version of the schema to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// The version of the schema after this step.
    pub version: i32,
    /// A word for what the step adds.
    pub name: &'static str,
    /// The statements of the step.
    pub sql: String,
}

/// Returns all migrations for a schema of the name that the options give.
pub(crate) fn migrations(options: &PostgresOptions) -> Vec<Migration> {
    let schema = quoted(&options.schema);
    let step = |version, name, sql: String| Migration {
        version,
        name,
        sql: sql.replace(":schema", &schema),
    };
    let (clause, indexes, create_partitions) = match options.partition {
        None => (
            "",
            UNPARTITIONED.to_owned(),
            "-- The log is not partitioned.",
        ),
        Some(size) => (
            " partition by range (position)",
            PARTITIONED.replace(":size", &size.to_string()),
            // Runs only if a group reaches the last partition that exists.
            CREATE_PARTITIONS,
        ),
    };
    vec![
        step(
            1,
            "log",
            LOG.replace(") :partition;", &format!("){clause};")),
        ),
        step(2, "indexes", indexes),
        step(
            3,
            "append",
            APPEND.replace(":create_partitions", create_partitions),
        ),
        step(4, "auxiliary", AUXILIARY.to_owned()),
        step(5, "retention", RETENTION.to_owned()),
        step(6, "privileges", PRIVILEGES.to_owned()),
    ]
}

/// Returns an identifier in quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Brings the schema to [`SCHEMA_VERSION`].
pub(crate) async fn ensure_schema(
    session: &Session,
    options: &PostgresOptions,
) -> Result<(), OpenError> {
    let found = version(&session.client, options).await?;
    refuse_newer(found, options)?;
    if found == SCHEMA_VERSION {
        return Ok(());
    }
    if !options.migrate {
        return Err(OpenError::NotMigrated {
            schema: options.schema.clone(),
            found,
            needed: SCHEMA_VERSION,
        });
    }
    migrate(session, options).await.map(drop)
}

fn refuse_newer(found: i32, options: &PostgresOptions) -> Result<(), OpenError> {
    if found > SCHEMA_VERSION {
        return Err(OpenError::Newer {
            schema: options.schema.clone(),
            found,
            known: SCHEMA_VERSION,
        });
    }
    Ok(())
}

/// Returns the version of the schema; 0 if it does not exist.
pub(crate) async fn version(client: &Client, options: &PostgresOptions) -> Result<i32, OpenError> {
    let schema = quoted(&options.schema);
    let table = format!("{schema}.migrations");
    let exists = "select to_regclass($1) is not null";
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), _); 1] =
        [(&table, tokio_postgres::types::Type::TEXT)];
    let row = client
        .query_typed_one(exists, &params)
        .await
        .map_err(OpenError::connect)?;
    if !row.try_get::<_, bool>(0).map_err(OpenError::connect)? {
        return Ok(0);
    }
    let newest = format!("select coalesce(max(version), 0) from {table}");
    let row = client
        .query_typed_one(&newest, &[])
        .await
        .map_err(OpenError::connect)?;
    row.try_get(0).map_err(OpenError::connect)
}

/// Returns whether the log of an existing schema is partitioned.
pub(crate) async fn is_partitioned(
    session: &Session,
    options: &PostgresOptions,
) -> Result<bool, OpenError> {
    let sql = format!(
        "select relkind = 'p' from pg_class where oid = '{}.events'::regclass",
        quoted(&options.schema)
    );
    let row = session
        .client
        .query_typed_one(&sql, &[])
        .await
        .map_err(OpenError::connect)?;
    row.try_get(0).map_err(OpenError::connect)
}

/// Runs the missing migrations and returns them.
pub(crate) async fn migrate(
    session: &Session,
    options: &PostgresOptions,
) -> Result<Vec<Migration>, OpenError> {
    let schema = quoted(&options.schema);
    let failed = |version| {
        move |error: tokio_postgres::Error| OpenError::Migration {
            version,
            cause: error.into(),
        }
    };
    let begin = format!(
        "begin; set local statement_timeout = 0; \
         select pg_advisory_xact_lock(1279677014, hashtext('{}')); \
         create schema if not exists {schema}; \
         create table if not exists {schema}.migrations \
         (version int primary key, name text not null, applied_at timestamptz not null default clock_timestamp())",
        options.schema.replace('\'', "''")
    );
    let client = &session.client;
    let apply = async {
        client.batch_execute(&begin).await.map_err(failed(0))?;
        let found = version(client, options).await?;
        refuse_newer(found, options)?;
        let mut applied = Vec::new();
        for step in migrations(options)
            .into_iter()
            .filter(|step| step.version > found)
        {
            let record = format!(
                "; insert into {schema}.migrations (version, name) values ({}, '{}')",
                step.version, step.name
            );
            client
                .batch_execute(&(step.sql.clone() + &record))
                .await
                .map_err(failed(step.version))?;
            applied.push(step);
        }
        client
            .batch_execute("commit")
            .await
            .map_err(failed(SCHEMA_VERSION))?;
        Ok(applied)
    };
    let outcome = apply.await;
    if outcome.is_err() {
        // The transaction has failed already. The first error is the one to report.
        let _ = client.batch_execute("rollback").await;
    }
    outcome
}
