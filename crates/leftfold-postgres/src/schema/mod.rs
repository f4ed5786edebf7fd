//! The schema of a store: its version, and the migrations that lead there.
//!
//! **Owns:** [`Migration`], one SQL file for each version, and running them. **Does not know:** what the tables mean.
//! **Invariants:** a released migration never changes. All missing migrations run in one transaction under a lock that no role
//! without rights can hold, so a schema is never between two versions. A schema of a newer version is refused.

use tokio_postgres::types::Type;

use crate::{
    OpenError, PostgresOptions,
    error::Failure,
    session::{MAINTENANCE_LIMIT, Session},
};

/// The version of the schema that this release expects.
pub const SCHEMA_VERSION: i32 = 6;

const STEPS: [(&str, &str); 6] = [
    ("log", include_str!("sql/0001_log.sql")),
    ("append", include_str!("sql/0002_append.sql")),
    ("auxiliary", include_str!("sql/0003_auxiliary.sql")),
    ("retention", include_str!("sql/0004_retention.sql")),
    ("privileges", include_str!("sql/0005_privileges.sql")),
    ("consumers", include_str!("sql/0006_consumers.sql")),
];

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
    (1..)
        .zip(STEPS)
        .map(|(version, (name, sql))| Migration {
            version,
            name,
            sql: sql.replace(":schema", &schema),
        })
        .collect()
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
    let found = version(session, options)
        .await
        .map_err(OpenError::connect)?;
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
async fn version(session: &Session, options: &PostgresOptions) -> Result<i32, Failure> {
    let table = format!("{}.migrations", quoted(&options.schema));
    let exists = "select to_regclass($1) is not null";
    let rows = session.query(exists, &[(&table, Type::TEXT)]).await?;
    let exists = rows.first().map(|row| row.try_get(0)).transpose()?;
    if exists != Some(true) {
        return Ok(0);
    }
    let newest = format!("select coalesce(max(version), 0) from {table}");
    let rows = session.query(&newest, &[]).await?;
    let version = rows.first().map(|row| row.try_get(0)).transpose()?;
    Ok(version.unwrap_or_default())
}

/// Runs the missing migrations and returns them.
pub(crate) async fn migrate(
    session: &Session,
    options: &PostgresOptions,
) -> Result<Vec<Migration>, OpenError> {
    let outcome = apply(session, options).await;
    if outcome.is_err() {
        // The transaction has failed already. The first error is the one to report.
        let _ = session
            .batch_execute("rollback", options.response_limit())
            .await;
    }
    outcome
}

async fn apply(session: &Session, options: &PostgresOptions) -> Result<Vec<Migration>, OpenError> {
    let schema = quoted(&options.schema);
    let failed = |version| {
        move |failure: Failure| OpenError::Migration {
            version,
            cause: failure.into(),
        }
    };
    let run = async |version, sql: &str| {
        let ran = session.batch_execute(sql, MAINTENANCE_LIMIT).await;
        ran.map_err(failed(version))
    };
    run(0, "begin").await?;
    if version(session, options)
        .await
        .map_err(OpenError::connect)?
        == 0
    {
        // There is no table to be locked. Whoever may connect can hold this lock, so it is waited for like any statement.
        let create = format!(
            "select pg_advisory_xact_lock(1279677014, hashtext('{}')); \
             create schema if not exists {schema}; \
             create table if not exists {schema}.migrations \
             (version int primary key, name text not null, applied_at timestamptz not null default clock_timestamp())",
            options.schema.replace('\'', "''")
        );
        run(0, &create).await?;
    }
    // The owner alone can hold this one.
    let lock = format!(
        "set local statement_timeout = 0; lock table {schema}.migrations in exclusive mode"
    );
    run(0, &lock).await?;
    let found = version(session, options)
        .await
        .map_err(OpenError::connect)?;
    refuse_newer(found, options)?;
    let missing = migrations(options)
        .into_iter()
        .filter(|step| step.version > found);
    let mut applied = Vec::new();
    for step in missing {
        let record = format!(
            "; insert into {schema}.migrations (version, name) values ({}, '{}')",
            step.version, step.name
        );
        run(step.version, &(step.sql.clone() + &record)).await?;
        applied.push(step);
    }
    run(SCHEMA_VERSION, "commit").await?;
    Ok(applied)
}
