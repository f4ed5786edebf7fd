//! Queries and conditions of tags of any frequency, over a log in which one tag is everywhere.
//!
//! **Owns:** that log, and rows in milliseconds. **Does not know:** peers: each row stands beside the store itself.
//! **Invariants:** each run opens a store of its own, so the first execution of a statement is the first of its connection.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use leftfold::model::{
    Append, AppendCondition, ConflictToken, EventType, ExpectedRevision, NewEvent, Query,
    QueryItem, Read, StreamName, Tag,
};
use leftfold_postgres::{PostgresStore, testing::Server};
use leftfold_store::EventStore;

use crate::{Arguments, leftfold_rows, leftfold_rows::DATA, median, plain};

/// How often a statement ran before its later executions are measured.
const EXECUTIONS: usize = 1_000;
/// One event of so many has the tag `rare`.
const RARE: u64 = 10_000;
/// Readers that take their time.
const READERS: usize = 16;

const QUERY: &str = "query, common and rare tag";
const CONDITION: &str = "condition, common and rare tag";
const COSTLY: &str = "p99 of an append beside a costly condition";
const READING: &str = "append beside 16 slow readers";
const READING_FAST: &str = "append beside 16 readers that keep the processor busy";
/// Pauses of a reader between two pages: a slow one takes less than the processor can give, the other more.
const PAUSES: [(&str, Duration); 2] = [
    (READING, Duration::from_millis(500)),
    (READING_FAST, Duration::from_millis(50)),
];

/// The rows, each in milliseconds.
pub(crate) async fn rows(
    server: &Server,
    arguments: &Arguments,
    wants: &impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    if ![QUERY, CONDITION, COSTLY, READING, READING_FAST]
        .into_iter()
        .any(wants)
    {
        return Ok(());
    }
    let address = server.database();
    let store = leftfold_rows::open(&address).await?;
    fill(&store, arguments.events).await?;
    drop(store);
    plain::settle(server, &address);
    println!();
    println!(
        "| row, {} events | ms | beside | ms | ratio |",
        arguments.events
    );
    println!("|---|---|---|---|---|");
    for (name, conditional) in [(QUERY, false), (CONDITION, true)] {
        if !wants(name) {
            continue;
        }
        let (mut first, mut later) = (Vec::new(), Vec::new());
        for run in 0..arguments.runs {
            let store = leftfold_rows::open(&address).await?;
            let once = async || {
                let begun = Instant::now();
                if conditional {
                    append(&store, &format!("c{run}"), Some(["odd", "rare"])).await?;
                } else {
                    read(&store).await?;
                }
                anyhow::Ok(millis(begun.elapsed()))
            };
            first.push(once().await?);
            for _ in 1..EXECUTIONS {
                once().await?;
            }
            let mut more = Vec::new();
            for _ in 0..20 {
                more.push(once().await?);
            }
            later.push(median(&more));
        }
        show(
            &format!("{name}, execution {EXECUTIONS}"),
            &later,
            "execution 1",
            &first,
        );
    }
    if wants(COSTLY) {
        beside_costly(&address, arguments).await?;
    }
    for (name, pause) in PAUSES {
        if wants(name) {
            beside_readers(&address, arguments, name, pause).await?;
        }
    }
    Ok(())
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn show(name: &str, ours: &[f64], peer_name: &str, peer: &[f64]) {
    let (ours, peer) = (median(ours), median(peer));
    println!(
        "| {name} | {ours:.2} | {peer_name} | {peer:.2} | {:.2} |",
        ours / peer
    );
}

/// Every event has the tag `common`, and `even` or `odd`; some with `even` have `rare` too.
async fn fill(store: &PostgresStore, events: u64) -> anyhow::Result<()> {
    let kind = EventType::new("MoneyDeposited")?;
    for round in 0..events / 1_000 {
        let event = |nth: u64| {
            let position = round * 1_000 + nth;
            let mut tags = vec!["common", if position % 2 == 0 { "even" } else { "odd" }];
            tags.extend((position % RARE == 0).then_some("rare"));
            let tags = tags
                .into_iter()
                .map(Tag::new)
                .collect::<Result<Vec<_>, _>>()?;
            anyhow::Ok(NewEvent::json(kind.clone(), DATA).with_tags(tags)?)
        };
        let events = (0..1_000).map(event).collect::<anyhow::Result<_>>()?;
        let stream = StreamName::new(format!("account-{round}"))?;
        store
            .append(Append::to(stream, ExpectedRevision::Any, events)?)
            .await?;
    }
    Ok(())
}

fn both(tags: [&str; 2]) -> anyhow::Result<Query> {
    let [first, second] = tags;
    let item = QueryItem::tags([Tag::new(first)?, Tag::new(second)?])?;
    Ok(Query::items([item])?)
}

async fn read(store: &PostgresStore) -> anyhow::Result<()> {
    let batches: Vec<_> = store
        .read(Read::query(both(["common", "rare"])?))
        .try_collect()
        .await?;
    anyhow::ensure!(
        batches.iter().any(|batch| !batch.events.is_empty()),
        "no event"
    );
    Ok(())
}

/// Appends one event, under the condition that no event has both tags. The condition holds.
async fn append(
    store: &PostgresStore,
    stream: &str,
    tags: Option<[&str; 2]>,
) -> anyhow::Result<()> {
    let event = NewEvent::json(EventType::new("MoneyDeposited")?, DATA);
    let mut append = Append::to(StreamName::new(stream)?, ExpectedRevision::Any, vec![event])?;
    if let Some(tags) = tags {
        append = append.with_condition(AppendCondition {
            fail_if_match: both(tags)?,
            after: ConflictToken::START,
        })?;
    }
    store.append(append).await?;
    Ok(())
}

/// How long each append of one caller takes, over the time of a measurement.
async fn latencies(store: &PostgresStore, seconds: f64) -> anyhow::Result<Vec<f64>> {
    let begun = Instant::now();
    let mut latencies = Vec::new();
    while begun.elapsed().as_secs_f64() < seconds {
        let one = Instant::now();
        append(store, "plain", None).await?;
        latencies.push(millis(one.elapsed()));
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

fn p99(sorted: &[f64]) -> f64 {
    sorted
        .get(sorted.len() * 99 / 100)
        .copied()
        .unwrap_or_default()
}

/// Appends beside another caller's, whose conditions are of two tags that are everywhere and never meet.
async fn beside_costly(address: &str, arguments: &Arguments) -> anyhow::Result<()> {
    let store = leftfold_rows::open(address).await?;
    let (mut beside, mut alone, mut costly) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        alone.push(p99(&latencies(&store, arguments.seconds).await?));
        let other = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                let mut took = Vec::new();
                loop {
                    let begun = Instant::now();
                    append(&store, "costly", Some(["even", "odd"])).await?;
                    took.push(millis(begun.elapsed()));
                    if took.len() > 1_000 {
                        return anyhow::Ok(took);
                    }
                }
            }
        });
        beside.push(p99(&latencies(&store, arguments.seconds).await?));
        other.abort();
        let begun = Instant::now();
        append(&store, "costly", Some(["even", "odd"])).await?;
        costly.push(millis(begun.elapsed()));
    }
    show(COSTLY, &beside, "alone", &alone);
    println!(
        "| (the costly append itself) | {:.0} | | | |",
        median(&costly)
    );
    Ok(())
}

/// Appends beside readers of everything that pause after each batch.
async fn beside_readers(
    address: &str,
    arguments: &Arguments,
    name: &str,
    pause: Duration,
) -> anyhow::Result<()> {
    let store = leftfold_rows::open(address).await?;
    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    for _ in 0..arguments.runs {
        alone.push(median(&latencies(&store, arguments.seconds).await?));
        let mut readers = tokio::task::JoinSet::new();
        for _ in 0..READERS {
            let store = Arc::clone(&store);
            readers.spawn(async move {
                loop {
                    let mut batches = store.read(Read::all());
                    while let Ok(Some(_)) = batches.try_next().await {
                        tokio::time::sleep(pause).await;
                    }
                }
            });
        }
        beside.push(median(&latencies(&store, arguments.seconds).await?));
        readers.shutdown().await;
    }
    show(name, &beside, "alone", &alone);
    Ok(())
}
