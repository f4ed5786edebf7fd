//! `leftfold bench`: throughput and latency of this machine and the store on it.
//!
//! **Owns:** the load and the report. **Does not know:** how the store works; it calls the public API.
//! **Invariants:** the load is a closed loop: each writer waits for its response before it appends again; the run also
//! measures the raw write rate of the directory, as the upper limit of every figure.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::StreamExt;
use hdrhistogram::Histogram;
use leftfold_log::{Log, LogOptions};
use leftfold_model::{
    Append, AppendCondition, ConflictToken, EventType, ExpectedRevision, NewEvent, Query,
    QueryItem, Read, StreamName, Tag,
};
use leftfold_mongodb::{MongoOptions, MongoStore};
use leftfold_postgres::{PostgresOptions, PostgresStore};
use leftfold_store::{EmbeddedStore, EventStore};
use serde_json::json;

use super::output;
use crate::{
    cli::{self, Condition, Mode},
    open::{self, StoreLocation, StoreLocationError},
};

/// Bytes of a raw write: about one small event.
const RAW_BYTES: usize = 256;
/// How long the raw rate is measured.
const RAW_TIME: Duration = Duration::from_millis(1_500);

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

/// What a measurement gave.
struct Measured {
    operations: u64,
    events: u64,
    seconds: f64,
    micros: Histogram<u64>,
    syncs: Option<u64>,
}

pub(crate) async fn run(arguments: cli::Bench) -> anyhow::Result<()> {
    let parent = arguments.data.clone().unwrap_or_else(std::env::temp_dir);
    match StoreLocation::at(&parent)? {
        StoreLocation::Directory(parent) => in_directory(&parent, arguments).await,
        StoreLocation::Postgres(options, name) => in_database(*options, &name, arguments).await,
        StoreLocation::Mongo(options, name) => in_mongo(*options, &name, arguments).await,
        StoreLocation::Server(_) => Err(StoreLocationError::NeedsFiles.into()),
    }
}

/// Measures in a new directory, which is removed.
async fn in_directory(parent: &Path, arguments: cli::Bench) -> anyhow::Result<()> {
    const PREFIX: &str = "leftfold-bench-";
    open::must_be_of_no_store(&parent.join(PREFIX), parent)?;
    let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
    let directory =
        directory.with_context(|| format!("cannot make a directory in {}", parent.display()))?;
    let raw = raw_rate(directory.path())?;
    let log = Log::open(directory.path().join("store"), LogOptions::default())?;
    let store: Arc<dyn EventStore> = Arc::new(EmbeddedStore::over(log.clone()));
    let arguments = Arc::new(arguments);
    let measured = measure(Some(&log), &store, &arguments).await?;
    store.close().await?;
    report(&arguments, &measured, Some(raw))
}

/// Measures in a new schema, which is dropped.
async fn in_database(
    options: PostgresOptions,
    name: &str,
    arguments: cli::Bench,
) -> anyhow::Result<()> {
    let schema = format!("leftfold_bench_{}", std::process::id());
    let store = PostgresStore::open_with(options.with_schema(&schema)).await;
    let store = store.with_context(|| format!("cannot make a schema beside {name}"))?;
    let shared: Arc<dyn EventStore> = Arc::new(store.clone());
    let arguments = Arc::new(arguments);
    let measured = measure(None, &shared, &arguments).await;
    shared.close().await?;
    let drop = format!("drop schema {schema} cascade");
    store.connection().await?.batch_execute(&drop).await?;
    report(&arguments, &measured?, None)
}

/// Measures in new collections, which are dropped.
async fn in_mongo(options: MongoOptions, name: &str, arguments: cli::Bench) -> anyhow::Result<()> {
    let options = options.with_prefix(format!("leftfold_bench_{}_", std::process::id()));
    let store = MongoStore::open_with(options.clone()).await;
    let store = store.with_context(|| format!("cannot make collections in {name}"))?;
    let shared: Arc<dyn EventStore> = Arc::new(store);
    let arguments = Arc::new(arguments);
    let measured = measure(None, &shared, &arguments).await;
    shared.close().await?;
    MongoStore::remove(options).await?;
    report(&arguments, &measured?, None)
}

async fn measure(
    log: Option<&Log>,
    store: &Arc<dyn EventStore>,
    arguments: &Arc<cli::Bench>,
) -> anyhow::Result<Measured> {
    match arguments.mode {
        Mode::Append => append(log, store, arguments).await,
        Mode::Scan => {
            load(store, arguments).await?;
            scan(store, arguments).await
        }
        Mode::StreamRead => {
            load(store, arguments).await?;
            stream_read(store, arguments).await
        }
    }
}

/// Writes of 256 bytes, each synced, into a file of zeros: what any store that syncs once per commit is measured by.
#[expect(
    clippy::disallowed_methods,
    reason = "the raw rate is taken beside the store, not through it"
)]
fn raw_rate(directory: &Path) -> anyhow::Result<f64> {
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(directory.join("raw"))?;
    let size = 16 * 1024 * 1024_u64;
    file.write_all_at(&vec![0; 16 * 1024 * 1024], 0)?;
    file.sync_all()?;
    let (start, mut writes) = (now(), 0_u64);
    while start.elapsed() < RAW_TIME {
        file.write_all_at(
            &[7; RAW_BYTES],
            (writes * RAW_BYTES as u64) % (size - RAW_BYTES as u64),
        )?;
        file.sync_data()?;
        writes += 1;
    }
    Ok(rate(writes, start.elapsed().as_secs_f64()))
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// The events of a writer's n-th append.
fn events(
    arguments: &cli::Bench,
    writer: u64,
    n: u64,
    count: u16,
) -> anyhow::Result<Vec<NewEvent>> {
    let data = vec![b'x'; arguments.size as usize];
    let event = |nth: u64| {
        let tags = (0..u64::from(arguments.tags)).map(|tag| match (arguments.condition, tag) {
            (Condition::FreshTag, 0) => Tag::new(format!("fresh:{writer}:{n}:{nth}")),
            _ => Tag::new(format!("writer:{writer}:{tag}")),
        });
        let tags = tags.collect::<Result<Vec<_>, _>>()?;
        let binary = leftfold_model::ContentType::Binary;
        anyhow::Ok(
            NewEvent::new(EventType::new("Measured")?, binary, data.clone()).with_tags(tags)?,
        )
    };
    (0..u64::from(count)).map(event).collect()
}

fn request(
    arguments: &cli::Bench,
    (writer, n): (u64, u64),
    expected: ExpectedRevision,
    after: ConflictToken,
) -> anyhow::Result<Append> {
    let own = arguments.condition == Condition::Revision;
    let stream = if own {
        format!("w-{writer}")
    } else {
        format!("s-{}", (writer * 7_919 + n) % arguments.streams)
    };
    let append = Append::to(
        StreamName::new(stream)?,
        expected,
        events(arguments, writer, n, arguments.batch)?,
    )?;
    let tagged = |tag: String| anyhow::Ok(Query::items([QueryItem::tags([Tag::new(tag)?])?])?);
    let condition = match arguments.condition {
        Condition::OwnTag => AppendCondition::new(tagged(format!("writer:{writer}:0"))?, after),
        Condition::FreshTag => AppendCondition::new(
            tagged(format!("fresh:{writer}:{n}:0"))?,
            ConflictToken::START,
        ),
        Condition::Type => {
            let never = Query::items([QueryItem::types([EventType::new("NeverHappens")?])?])?;
            AppendCondition::new(never, ConflictToken::START)
        }
        Condition::None | Condition::Revision => return Ok(append),
    };
    Ok(append.with_condition(condition)?)
}

async fn append(
    log: Option<&Log>,
    store: &Arc<dyn EventStore>,
    arguments: &Arc<cli::Bench>,
) -> anyhow::Result<Measured> {
    let stop = Arc::new(AtomicBool::new(false));
    let syncs = log.map(|log| log.stats().syncs);
    let start = now();
    let mut tasks = Vec::new();
    for writer in 0..u64::from(arguments.writers) {
        let (store, arguments, stop) =
            (Arc::clone(store), Arc::clone(arguments), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let (mut micros, mut expected, mut after) =
                (histogram()?, ExpectedRevision::Any, ConflictToken::START);
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let append = request(&arguments, (writer, n), expected, after)?;
                let begun = now();
                let appended = store.append(append).await?;
                micros.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
                after = appended.last.into();
                if let (Condition::Revision, Some(&(_, revision))) =
                    (arguments.condition, appended.streams.first())
                {
                    expected = ExpectedRevision::Exact(revision);
                }
            }
            anyhow::Ok(micros)
        }));
    }
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut micros = histogram()?;
    for task in tasks {
        micros.add(task.await??)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    let operations = micros.len();
    let syncs = log
        .zip(syncs)
        .map(|(log, before)| log.stats().syncs - before);
    Ok(Measured {
        operations,
        events: operations * u64::from(arguments.batch),
        seconds,
        micros,
        syncs,
    })
}

/// Fills the store for measuring reads: 20 events a stream, as far as the number of streams allows.
async fn load(store: &Arc<dyn EventStore>, arguments: &cli::Bench) -> anyhow::Result<()> {
    let mut loaded = 0;
    while loaded < arguments.events {
        let count = (arguments.events - loaded).min(100);
        let mut writes = Vec::new();
        for nth in loaded..loaded + count {
            let stream = StreamName::new(format!("s-{}", nth % arguments.streams))?;
            let events = events(arguments, nth % arguments.streams, nth, 1)?;
            writes.push(leftfold_model::StreamWrite {
                stream,
                expected: ExpectedRevision::Any,
                events,
            });
        }
        store.append(Append::new(writes, Vec::new())?).await?;
        loaded += count;
    }
    Ok(())
}

async fn scan(store: &Arc<dyn EventStore>, arguments: &cli::Bench) -> anyhow::Result<Measured> {
    let (start, mut micros, mut events, mut operations) = (now(), histogram()?, 0, 0);
    while start.elapsed() < Duration::from_secs(arguments.seconds) {
        let begun = now();
        let mut batches = store.read(Read::all());
        while let Some(batch) = batches.next().await {
            events += batch?.events.len() as u64;
        }
        operations += 1;
        micros.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
    }
    Ok(Measured {
        operations,
        events,
        seconds: start.elapsed().as_secs_f64(),
        micros,
        syncs: None,
    })
}

async fn stream_read(
    store: &Arc<dyn EventStore>,
    arguments: &Arc<cli::Bench>,
) -> anyhow::Result<Measured> {
    let events = Arc::new(AtomicU64::new(0));
    let start = now();
    let mut tasks = Vec::new();
    for reader in 0..u64::from(arguments.readers) {
        let (store, arguments, events) = (
            Arc::clone(store),
            Arc::clone(arguments),
            Arc::clone(&events),
        );
        tasks.push(tokio::spawn(async move {
            let (mut micros, mut chance) =
                (histogram()?, reader.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            while start.elapsed() < Duration::from_secs(arguments.seconds) {
                // xorshift64 (Marsaglia, 2003): any spread over the streams will do.
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                let stream = StreamName::new(format!("s-{}", chance % arguments.streams))?;
                let begun = now();
                let mut batches = store.read(Read::stream(stream));
                while let Some(batch) = batches.next().await {
                    events.fetch_add(batch?.events.len() as u64, Ordering::Relaxed);
                }
                micros.saturating_record(u64::try_from(begun.elapsed().as_micros())?);
            }
            anyhow::Ok(micros)
        }));
    }
    let mut micros = histogram()?;
    for task in tasks {
        micros.add(task.await??)?;
    }
    let seconds = start.elapsed().as_secs_f64();
    Ok(Measured {
        operations: micros.len(),
        events: events.load(Ordering::Relaxed),
        seconds,
        micros,
        syncs: None,
    })
}

fn report(arguments: &cli::Bench, measured: &Measured, raw: Option<f64>) -> anyhow::Result<()> {
    let operations = rate(measured.operations, measured.seconds);
    let events = rate(measured.events, measured.seconds);
    let syncs = measured.syncs.map(|syncs| rate(syncs, measured.seconds));
    let quantile = |q| measured.micros.value_at_quantile(q);
    let (p50, p99, p999, max) = (
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        measured.micros.max(),
    );
    let mut out = output();
    if arguments.json {
        let line = json!({ "mode": format!("{:?}", arguments.mode), "operations_per_second": operations,
            "events_per_second": events, "p50_us": p50, "p99_us": p99, "p999_us": p999, "max_us": max,
            "syncs_per_second": syncs, "raw_syncs_per_second": raw });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{:<28} {operations:>14.0}", "operations per second")?;
        writeln!(out, "{:<28} {events:>14.0}", "events per second")?;
        for (name, micros) in [
            ("p50", p50),
            ("p99", p99),
            ("p99.9", p999),
            ("longest", max),
        ] {
            writeln!(out, "{:<28} {micros:>14}", format!("{name}, microseconds"))?;
        }
        if let Some(syncs) = syncs {
            writeln!(out, "{:<28} {syncs:>14.0}", "syncs per second")?;
        }
        if let Some(raw) = raw {
            writeln!(out, "{:<28} {raw:>14.0}", "raw syncs per second")?;
        }
    }
    Ok(out.flush()?)
}
