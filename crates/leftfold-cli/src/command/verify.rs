//! `leftfold verify`: checking everything that is stored.
//!
//! **Owns:** the report. **Does not know:** how the store verifies.
//! **Invariants:** changes nothing; damage is an error that names the file and the byte offset.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use leftfold_log::{
    OpenError,
    disk::{Disk, read_only::ReadOnlyDisk},
};
use leftfold_mongodb::{MongoOptions, MongoStore};
use leftfold_postgres::{Finding, PostgresOptions, PostgresStore};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions, ReadError};

use super::{consumers, output};
use crate::{
    cli,
    open::{self, StoreLocation, StoreLocationError},
};

/// The error of a database whose tables do not agree.
#[derive(Debug, thiserror::Error)]
#[error("{rows} rows break the rule \"{rule}\"")]
struct Broken {
    rule: &'static str,
    rows: u64,
}

pub(crate) async fn run(arguments: &cli::Verify) -> anyhow::Result<()> {
    match StoreLocation::of(&arguments.data)? {
        StoreLocation::Directory(directory) => of_directory(&directory, arguments.json).await,
        StoreLocation::Postgres(options, _) => {
            of_database(options.without_migrating(), arguments.json).await
        }
        StoreLocation::Mongo(options, _) => of_mongo(*options, arguments.json).await,
        StoreLocation::Server(_) => Err(StoreLocationError::NeedsFiles.into()),
    }
}

async fn of_database(options: PostgresOptions, json: bool) -> anyhow::Result<()> {
    let store = PostgresStore::open_with(options).await?;
    let report = store.verify().await?;
    if let Some(finding) = report.findings.first() {
        let Finding { rule, rows, .. } = *finding;
        let cause = Arc::new(Broken { rule, rows });
        return Err(ReadError::Corrupt { cause }.into());
    }
    show(
        &[
            ("events", report.events),
            ("erased", report.erased),
            ("head", report.head.get()),
        ],
        json,
    )
}

async fn of_mongo(options: MongoOptions, json: bool) -> anyhow::Result<()> {
    let report = MongoStore::open_with(options).await?.verify().await?;
    show(
        &[
            ("commits", report.commits),
            ("events", report.events),
            ("erased", report.erased),
            ("head", report.head.get()),
        ],
        json,
    )
}

/// Counts the consumers in a directory. The file that holds them is compared with its checksums, as at every opening.
async fn consumers_of(directory: &Path) -> anyhow::Result<u64> {
    let store = EmbeddedStore::open_read_only(directory, LogOptions::default()).await?;
    let mut count = 0;
    let mut add = |_: &_| {
        count += 1;
        Ok(())
    };
    consumers::each(&*store.consumers(), &mut add).await?;
    store.close().await?;
    Ok(count)
}

async fn of_directory(directory: &Path, json: bool) -> anyhow::Result<()> {
    open::must_exist(directory)?;
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::at(directory)?);
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} {pos} events, {per_sec}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let verified = leftfold_log::verify(&disk, &mut |events| bar.set_position(events));
    bar.finish_and_clear();
    let report = verified.with_context(|| format!("verifying {} failed", directory.display()))?;
    if report.segments == 0 {
        return Err(OpenError::NoLog)
            .with_context(|| format!("verifying {} failed", directory.display()));
    }
    let consumers = consumers_of(directory)
        .await
        .with_context(|| format!("verifying {} failed", directory.display()))?;
    let rows = [
        ("segments", report.segments),
        ("events", report.events),
        ("erased", report.erased),
        ("log_bytes", report.log_bytes),
        ("locations_files", report.locations),
        ("index_files", report.indexes),
        ("terms", report.terms),
        ("postings", report.postings),
        ("segments_without_index", report.without_index),
        ("torn_bytes", report.torn_bytes),
        ("consumers", consumers),
    ];
    show(&rows, json)
}

fn show(rows: &[(&str, u64)], json: bool) -> anyhow::Result<()> {
    let mut out = output();
    if json {
        let object: serde_json::Map<_, _> = rows
            .iter()
            .map(|&(name, value)| (name.to_owned(), serde_json::json!(value)))
            .collect();
        writeln!(out, "{}", serde_json::Value::Object(object))?;
    } else {
        for (name, value) in rows {
            writeln!(out, "{name:<24} {value:>16}")?;
        }
        writeln!(out, "everything that was read is as it was written")?;
    }
    Ok(out.flush()?)
}
