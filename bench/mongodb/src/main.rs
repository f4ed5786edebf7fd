//! The store over MongoDB beside the bare driver and Emmett's store, on one server, in one run.
//!
//! **Owns:** the rows and their medians. **Does not know:** how the store works.
//! **Invariants:** both sides of a row alternate, run by run, on one server, in databases of their own, with one write
//! concern: a majority, journaled.

mod bank;

use std::{future::Future, path::PathBuf, sync::Arc, time::Instant};

use clap::Parser;
use futures_util::TryStreamExt;
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision, StreamName};
use leftfold_mongodb::{MongoStore, testing::Server};
use leftfold_store::EventStore;
use mongodb::{
    Client, Collection,
    bson::{Binary, Document, RawDocumentBuf, doc, spec::BinarySubtype},
    options::{Acknowledgment, ClientOptions, WriteConcern},
};

/// Measures the store over MongoDB beside the bare driver.
#[derive(Parser, Debug)]
struct Arguments {
    /// How often each row is measured on each side.
    #[arg(long, default_value_t = 5)]
    runs: u64,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Events of the catch-up read.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// The directory with Emmett's bank and what it depends on; without it its rows are left out.
    #[arg(long)]
    emmett: Option<PathBuf>,
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
}

/// 110 bytes, as in the benches of other stores.
const DATA: &str = concat!(
    r#"{"account":"7f3a9c","amount":1250,"currency":"EUR","#,
    r#""note":"a deposit of the usual kind, made at the counter"}"#
);

/// States that the repository of the bank caches, in the rows that say so.
const CACHED_STATES: usize = 1_000;

/// Streams of the catch-up read.
const STREAMS: u64 = 1_000;

/// Rates of both sides, per second.
#[derive(Debug, Default)]
struct Row {
    leftfold: Vec<f64>,
    peer: Vec<f64>,
}

impl Row {
    fn show(&self, name: &str, peer_name: &str) {
        let (leftfold, peer) = (median(&self.leftfold), median(&self.peer));
        println!(
            "| {name} | {leftfold:.0} | {peer_name} | {peer:.0} | {:.2} |",
            leftfold / peer
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// How many operations per second so many callers get done at the same time, over about so many seconds.
///
/// `operation` gets the caller and how many it has done before. The first one of each caller comes before the time begins: it
/// may look up what the log has, and a server without an index for that reads all of it.
async fn rate<F>(
    callers: u64,
    seconds: f64,
    operation: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<f64>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let ready: Vec<_> = (0..callers).map(|caller| operation(caller, 0)).collect();
    futures_util::future::try_join_all(ready).await?;
    let begun = Instant::now();
    let caller = |caller: u64| {
        let operation = operation.clone();
        tokio::spawn(async move {
            let mut count = 1_u64;
            while begun.elapsed().as_secs_f64() < seconds {
                operation(caller, count).await?;
                count += 1;
            }
            anyhow::Ok(count - 1)
        })
    };
    let callers: Vec<_> = (0..callers).map(caller).collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let only = arguments.only.clone().unwrap_or_default();
    let wants = |name: &str| name.contains(&only);
    let server = Server::start();
    println!("| row | leftfold per second | beside | per second | ratio |");
    println!("|---|---|---|---|---|");
    for callers in [1, 8, 64] {
        let name = format!("append, {callers} callers");
        if wants(&name) {
            let row = appends(&server, &arguments, callers).await?;
            row.show(&name, "insertOne");
        }
    }
    let name = format!("catch-up read of {} events", arguments.events);
    if wants(&name) {
        let row = catch_up(&server, &arguments).await?;
        row.show(&name, "bare cursor over the commits");
    }
    if let Some(emmett) = &arguments.emmett {
        for (callers, states) in [(1, 0), (8, 0), (1, CACHED_STATES), (8, CACHED_STATES)] {
            let cache = if states == 0 { "" } else { ", states cached" };
            let name = format!("bank, {callers} callers{cache}");
            if wants(&name) {
                let row = banks(&server, &arguments, emmett, (callers, states)).await?;
                row.show(&name, "Emmett's MongoDB store");
            }
        }
    }
    Ok(())
}

/// A collection of the bare driver, with the write concern of the store.
async fn collection<T: Send + Sync>(address: &str, name: &str) -> anyhow::Result<Collection<T>> {
    let mut options = ClientOptions::parse(address).await?;
    let concern = WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .build();
    options.write_concern = Some(concern);
    let database = options.default_database.clone().unwrap_or_default();
    Ok(Client::with_options(options)?
        .database(&database)
        .collection(name))
}

async fn appends(server: &Server, arguments: &Arguments, callers: u64) -> anyhow::Result<Row> {
    let store = Arc::new(MongoStore::open(&server.database()).await?);
    let plain = collection::<Document>(&server.database(), "events").await?;
    let mut row = Row::default();
    for run in 0..arguments.runs {
        row.leftfold
            .push(append_rate(&store, run, callers, arguments.seconds).await?);
        row.peer
            .push(insert_rate(&plain, run, callers, arguments.seconds).await?);
    }
    Ok(row)
}

async fn banks(
    server: &Server,
    arguments: &Arguments,
    emmett: &std::path::Path,
    (callers, states): (u64, usize),
) -> anyhow::Result<Row> {
    let store = leftfold::Store::mongodb(&server.database()).await?;
    let mut peer = bank::Emmett::start(emmett, &server.database())?;
    let mut row = Row::default();
    for run in 0..arguments.runs {
        row.leftfold
            .push(bank::commands(&store, run, callers, arguments.seconds, states).await?);
        row.peer.push(peer.commands(callers, arguments.seconds)?);
    }
    Ok(row)
}

/// Appends of one event, each caller to a stream of its own, at the revision it knows.
async fn append_rate(
    store: &Arc<MongoStore>,
    run: u64,
    callers: u64,
    seconds: f64,
) -> anyhow::Result<f64> {
    let store = Arc::clone(store);
    rate(callers, seconds, move |caller, count| {
        let store = Arc::clone(&store);
        async move {
            let stream = StreamName::new(format!("r{run}-{caller}"))?;
            let expected = match count.checked_sub(1) {
                None => ExpectedRevision::NoStream,
                Some(last) => ExpectedRevision::Exact(Revision::new(last)),
            };
            let event = NewEvent::json(EventType::new("MoneyDeposited")?, DATA);
            store
                .append(Append::to(stream, expected, vec![event])?)
                .await?;
            Ok(())
        }
    })
    .await
}

/// Inserts of one document that holds one event, with a key that is unique by stream and revision.
async fn insert_rate(
    plain: &Collection<Document>,
    run: u64,
    callers: u64,
    seconds: f64,
) -> anyhow::Result<f64> {
    let plain = plain.clone();
    rate(callers, seconds, move |caller, count| {
        let plain = plain.clone();
        async move {
            let data = Binary {
                subtype: BinarySubtype::Generic,
                bytes: DATA.as_bytes().to_vec(),
            };
            let event = doc! {
                "_id": format!("r{run}-{caller}@{count:016x}"),
                "type": "MoneyDeposited",
                "data": data,
            };
            plain.insert_one(event).await?;
            Ok(())
        }
    })
    .await
}

async fn catch_up(server: &Server, arguments: &Arguments) -> anyhow::Result<Row> {
    let address = server.database();
    let store = MongoStore::open(&address).await?;
    let each = 100.min(arguments.events.max(1));
    for round in 0..arguments.events / each {
        let stream = StreamName::new(format!("account-{}", round % STREAMS))?;
        // At a fixed revision, so that no older event is looked for, which a server without an index reads the log for.
        let expected = match (round / STREAMS * each).checked_sub(1) {
            None => ExpectedRevision::NoStream,
            Some(last) => ExpectedRevision::Exact(Revision::new(last)),
        };
        let kind = EventType::new("MoneyDeposited")?;
        let events = (0..each)
            .map(|_| NewEvent::json(kind.clone(), DATA))
            .collect();
        store.append(Append::to(stream, expected, events)?).await?;
    }
    let events = arguments.events / each * each;
    let commits = collection::<RawDocumentBuf>(&address, "commits").await?;
    let mut row = Row::default();
    for _ in 0..arguments.runs {
        row.leftfold.push(read_rate(&store, events).await?);
        row.peer.push(cursor_rate(&commits, events).await?);
    }
    Ok(row)
}

/// Events per second of a read of everything.
async fn read_rate(store: &MongoStore, events: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut batches = store.read(Read::all());
    let mut count = 0;
    while let Some(batch) = batches.try_next().await? {
        count += batch.events.len() as u64;
    }
    anyhow::ensure!(count == events, "{count} of {events} events");
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Events per second of a cursor that gives their documents in order, as bytes.
async fn cursor_rate(commits: &Collection<RawDocumentBuf>, events: u64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut cursor = commits.find(doc! {}).sort(doc! { "_id": 1 }).await?;
    let mut documents = 0_u64;
    while cursor.try_next().await?.is_some() {
        documents += 1;
    }
    anyhow::ensure!(documents > 0, "no commits");
    Ok(events as f64 / begun.elapsed().as_secs_f64())
}
