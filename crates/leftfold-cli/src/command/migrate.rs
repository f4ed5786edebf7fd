//! `leftfold migrate`: bringing the schema of a PostgreSQL store to the version this program needs.
//!
//! **Owns:** the output. **Does not know:** what a migration does.
//! **Invariants:** a second run changes nothing.

use std::io::Write;

use anyhow::Context;
use leftfold_postgres::{PostgresStore, SCHEMA_VERSION};

use super::output;
use crate::{cli, exit_code::UsageError, open::StoreLocation};

pub(crate) async fn run(arguments: &cli::Migrate) -> anyhow::Result<()> {
    let StoreLocation::Postgres(options, name) = StoreLocation::of(&arguments.data)? else {
        let text = "store has no schema; expected --data postgres://...";
        return Err(UsageError(text.to_owned()).into());
    };
    let mut out = output();
    if arguments.show {
        for step in PostgresStore::migrations(&options) {
            writeln!(out, "-- {}: {}\n{}", step.version, step.name, step.sql)?;
        }
        return Ok(out.flush()?);
    }
    let run = PostgresStore::migrate(&options).await;
    for step in run.with_context(|| format!("cannot migrate {name}"))? {
        writeln!(out, "{}: {}", step.version, step.name)?;
    }
    writeln!(out, "{name} has version {SCHEMA_VERSION}")?;
    Ok(out.flush()?)
}
