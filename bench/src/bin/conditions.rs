//! What an append costs while another caller appends under the worst conditions there may be.
//!
//! **Owns:** the rows: a kind of costly append beside plain ones. **Does not know:** how the engine decides.
//! **Invariants:** both sides of a row append to the same log, run by run, alone and beside the costly caller; latencies are of
//! plain appends only; the last rows tell what a caller that takes a core costs by that alone.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use hdrhistogram::Histogram;
use leftfold_log::{Log, LogOptions};
use leftfold_model::{
    Append, AppendCondition, EventType, ExpectedRevision, NewEvent, Position, Query, QueryItem,
    StreamName, Tag,
};

/// Measures plain appends alone and beside appends under costly conditions.
#[derive(Parser, Debug)]
struct Arguments {
    /// Events of the log, in appends of a thousand.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How often each row is measured, alone and beside.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

/// A kind of costly append.
#[derive(Clone, Copy, Debug)]
enum Costly {
    /// Two tags of half of all events each, which never meet: every event is looked at.
    TagsThatNeverMeet,
    /// A condition of 256 items of 256 types: as many terms as an append may have.
    ManyTypes,
    /// An append of 1,000 events that finds its stream written already, beginning with a large event.
    StaleNoStream,
    /// No append at all: a thread that computes, which takes a core as the others do.
    Computing,
}

impl Costly {
    const ALL: [(&'static str, Self); 4] = [
        ("two tags that never meet", Self::TagsThatNeverMeet),
        ("a condition of 256 x 256 types", Self::ManyTypes),
        ("stale append of 1,000 events", Self::StaleNoStream),
        ("no append, a thread that computes", Self::Computing),
    ];

    /// The append; `None` after a while of computing.
    fn append(self, number: u64) -> anyhow::Result<Option<Append>> {
        let stream = StreamName::new("costly-1")?;
        let event = || anyhow::Ok(NewEvent::json(EventType::new("Costly")?, "{}"));
        let guarded = |queries: Vec<Query>| {
            let conditions = queries.into_iter();
            let conditions = conditions.map(|query| AppendCondition::new(query, Position::START));
            let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event()?])?;
            anyhow::Ok(
                conditions
                    .into_iter()
                    .try_fold(append, Append::with_condition)?,
            )
        };
        let append = match self {
            Self::TagsThatNeverMeet => {
                let tags = [Tag::new("half:0")?, Tag::new("half:1")?];
                guarded(vec![Query::items([QueryItem::new([], tags)?])?])?
            }
            Self::ManyTypes => {
                let item = |item: u64| {
                    let types =
                        (0..256).map(|n| EventType::new(format!("Never{number}-{item}-{n}")));
                    let types = types.collect::<Result<Vec<_>, _>>()?;
                    anyhow::Ok(QueryItem::types(types)?)
                };
                let items = (0..256).map(item).collect::<Result<Vec<_>, _>>()?;
                guarded(vec![Query::items(items)?])?
            }
            Self::StaleNoStream => {
                let events = (0..1_000).map(|_| event()).collect::<Result<Vec<_>, _>>()?;
                let stream = StreamName::new("large-1")?;
                Append::to(stream, ExpectedRevision::NoStream, events)?
            }
            Self::Computing => {
                let end = Instant::now() + Duration::from_millis(50);
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
                return Ok(None);
            }
        };
        Ok(Some(append))
    }
}

fn load(log: &Log, events: u64) -> anyhow::Result<()> {
    let large = NewEvent::json(EventType::new("Large")?, vec![b' '; 16 * 1024 * 1024]);
    log.append(Append::to(
        StreamName::new("large-1")?,
        ExpectedRevision::Any,
        vec![large],
    )?)?;
    let tags = [Tag::new("half:0")?, Tag::new("half:1")?];
    for batch in 0..events / 1_000 {
        let events = (0..1_000).map(|n| {
            let tag = tags.get(n % 2).cloned();
            anyhow::Ok(NewEvent::json(EventType::new("Noted")?, "{}").with_tags(tag)?)
        });
        let stream = StreamName::new(format!("loaded-{}", batch % 64))?;
        let events = events.collect::<Result<Vec<_>, _>>()?;
        log.append(Append::to(stream, ExpectedRevision::Any, events)?)?;
    }
    Ok(())
}

/// Latencies of plain appends, in microseconds, and how many costly appends there were meanwhile.
fn measure(
    log: &Log,
    queued: bool,
    seconds: u64,
    costly: Option<Costly>,
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let send = move |log: &Log, append: Append| match queued {
        true => log
            .submit(append)
            .and_then(leftfold_log::Ticket::wait)
            .map(drop),
        false => log.append(append).map(drop),
    };
    let other = costly.map(|costly| {
        let (log, stop, count) = (log.clone(), Arc::clone(&stop), Arc::clone(&count));
        thread::spawn(move || -> anyhow::Result<()> {
            for number in 0.. {
                let append = costly.append(number)?;
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if let Some(append) = append {
                    // A conflict is an outcome as good as any.
                    let _ = send(&log, append);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        })
    });
    let mut latencies = Histogram::new(3)?;
    let stream = StreamName::new("plain-1")?;
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let event = NewEvent::json(EventType::new("Plain")?, "{}");
        let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event])?;
        let begun = Instant::now();
        send(log, append)?;
        latencies.record(u64::try_from(begun.elapsed().as_micros())?)?;
    }
    stop.store(true, Ordering::Relaxed);
    if let Some(other) = other {
        let joined = other.join();
        joined.map_err(|_| anyhow::anyhow!("the costly caller panicked"))??;
    }
    Ok((latencies, count.load(Ordering::Relaxed)))
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let directory = tempfile::tempdir_in(Path::new("."))?;
    let log = Log::open(directory.path(), LogOptions::default())?;
    load(&log, arguments.events).context("loading failed")?;
    println!(
        "| beside | way | alone: p99, longest (ms) | beside: p99, longest (ms) | p99 ratio | costly appends |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, costly) in Costly::ALL {
        for (way, queued) in [("blocking", false), ("queued", true)] {
            let (mut alone, mut beside, mut longest, mut count) =
                (Vec::new(), Vec::new(), [Vec::new(), Vec::new()], 0);
            for _ in 0..arguments.runs {
                let (latencies, _) = measure(&log, queued, arguments.seconds, None)?;
                alone.push(latencies.value_at_quantile(0.99));
                longest[0].push(latencies.max());
                let (latencies, done) = measure(&log, queued, arguments.seconds, Some(costly))?;
                beside.push(latencies.value_at_quantile(0.99));
                longest[1].push(latencies.max());
                count += done;
            }
            let (alone, beside) = (median(&mut alone), median(&mut beside));
            let [alone_max, beside_max] = longest.map(|mut all| median(&mut all));
            let ms = |micros: u64| micros as f64 / 1_000.0;
            println!(
                "| {name} | {way} | {:.2}, {:.1} | {:.2}, {:.1} | {:.2} | {count} |",
                ms(alone),
                ms(alone_max),
                ms(beside),
                ms(beside_max),
                beside as f64 / alone as f64
            );
        }
    }
    Ok(log.close()?)
}
