//! The schema, its versions, and the way from one to the next.
//!
//! **Owns:** [`Migration`] and running migrations. **Does not know:** what is stored.
//! **Invariants:** a migration that has been released never changes; all of them run in one transaction, under a lock, so
//! that a schema is never between two versions; a newer schema is refused by its number.

use tokio_postgres::Client;

use crate::{OpenError, PostgresOptions, connect::Session};

/// The version that this program needs.
pub const SCHEMA_VERSION: i32 = 4;

const LOG: &str = include_str!("sql/0001_log.sql");
const WHOLE: &str = include_str!("sql/0001_whole.sql");
const PARTED: &str = include_str!("sql/0001_parted.sql");
const BESIDE: &str = include_str!("sql/0003_beside.sql");
const APPEND: &str = include_str!("sql/0004_append.sql");
const ERASE: &str = include_str!("sql/0004_erase.sql");

/// The part of the append function that makes partitions.
const EXTEND: &str =
    "if (select (next - 1) / p.positions > head / p.positions from :schema.partitioning p) then
            perform :schema.extend(next - 1);
        end if;";

/// One step of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migration {
    /// The version it leads to.
    pub version: i32,
    /// What it is about.
    pub name: &'static str,
    /// What it runs.
    pub sql: String,
}

/// All steps, for a schema of this name.
pub(crate) fn migrations(options: &PostgresOptions) -> Vec<Migration> {
    let schema = quoted(&options.schema);
    let of = |version, name, sql: String| Migration {
        version,
        name,
        sql: sql.replace(":schema", &schema),
    };
    // Looked at only where a group crosses into the last partition that is there.
    let extend = match options.partition {
        None => "-- The log is one table.",
        Some(_) => EXTEND,
    };
    let log = match options.partition {
        None => LOG.replace(" :partition", "") + WHOLE,
        Some(size) => {
            LOG.replace(":partition", "partition by range (position)")
                + &PARTED.replace(":size", &size.to_string())
        }
    };
    vec![
        of(1, "log", log),
        // The append function is that of the newest version that changed it.
        of(2, "append", "-- See version 4.\n".to_owned()),
        of(3, "beside", BESIDE.to_owned()),
        of(4, "lives", APPEND.replace(":extend", extend) + ERASE),
    ]
}

/// An identifier in quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Brings the schema to the needed version, or refuses.
pub(crate) async fn ensure_schema(
    link: &Session,
    options: &PostgresOptions,
) -> Result<(), OpenError> {
    let found = version(&link.client, options).await?;
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
    migrate(link, options).await.map(drop)
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

/// The version of the schema; 0 if there is none.
pub(crate) async fn version(client: &Client, options: &PostgresOptions) -> Result<i32, OpenError> {
    let schema = quoted(&options.schema);
    let table = format!("{schema}.migrations");
    let there = "select to_regclass($1) is not null";
    let params: [(&(dyn tokio_postgres::types::ToSql + Sync), _); 1] =
        [(&table, tokio_postgres::types::Type::TEXT)];
    let row = client
        .query_typed_one(there, &params)
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

/// Whether the log is divided into partitions, whatever the options say.
pub(crate) async fn is_partitioned(
    link: &Session,
    options: &PostgresOptions,
) -> Result<bool, OpenError> {
    let sql = format!(
        "select relkind = 'p' from pg_class where oid = '{}.events'::regclass",
        quoted(&options.schema)
    );
    let row = link
        .client
        .query_typed_one(&sql, &[])
        .await
        .map_err(OpenError::connect)?;
    row.try_get(0).map_err(OpenError::connect)
}

/// Runs what is missing; returns what was run.
pub(crate) async fn migrate(
    link: &Session,
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
    let client = &link.client;
    let run = async {
        client.batch_execute(&begin).await.map_err(failed(0))?;
        let found = version(client, options).await?;
        refuse_newer(found, options)?;
        let mut run = Vec::new();
        for step in migrations(options)
            .into_iter()
            .filter(|step| step.version > found)
        {
            let note = format!(
                "; insert into {schema}.migrations (version, name) values ({}, '{}')",
                step.version, step.name
            );
            client
                .batch_execute(&(step.sql.clone() + &note))
                .await
                .map_err(failed(step.version))?;
            run.push(step);
        }
        client
            .batch_execute("commit")
            .await
            .map_err(failed(SCHEMA_VERSION))?;
        Ok(run)
    };
    let outcome = run.await;
    if outcome.is_err() {
        // The transaction is void already; what matters is the first error.
        let _ = client.batch_execute("rollback").await;
    }
    outcome
}
