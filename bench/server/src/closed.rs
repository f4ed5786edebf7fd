//! Closed loops: a worker has one request under way, and begins the next when the answer is there.
//!
//! **Owns:** warming up, the measured window, and what counts. **Does not know:** what a worker asks.
//! **Invariants:** an operation counts if it was begun within the window; a worker's rate is over the time from its first to
//! its last operation that counts, so slow ones are not cut off; at least one counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, try_join_all};
use tokio::{runtime::Handle, sync::oneshot, time::sleep_until};

use crate::{
    machine::{self, Used},
    outcome::{Outcome, percentiles},
    server::Server,
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What one worker does, again and again.
pub(crate) trait Work: Send + 'static {
    /// Whether it holds up its thread while it waits, and so needs one of its own.
    fn blocks(&self) -> bool {
        false
    }
    /// One operation; answers how many events it was about, or that there is nothing left to do.
    fn once(&mut self) -> BoxFuture<'_, anyhow::Result<Option<u64>>>;
}

/// What a worker got done.
#[derive(Debug, Default)]
struct Tally {
    events: u64,
    nanos: Vec<u64>,
    busy: Duration,
}

/// When operations count. Without an end they do until there is nothing left to do.
#[derive(Debug)]
struct Window {
    begin: Instant,
    end: Option<Instant>,
}

impl Window {
    fn is_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }
}

/// Runs these workers for as long as `timing` says; without, until they have nothing left to do.
pub(crate) async fn run(
    works: Vec<Box<dyn Work>>,
    timing: Option<Timing>,
    server: &Server,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now() + timing.map_or(Duration::ZERO, |timing| timing.warm_up);
    let end = timing.map(|timing| begin + timing.measured);
    let window = Arc::new(Window { begin, end });
    let workers: Vec<_> = works
        .into_iter()
        .map(|work| spawn(work, Arc::clone(&window)))
        .collect();
    sleep_until(begin.into()).await;
    let before = Used::by(server.process())?;
    let (tallies, after) = if let Some(end) = end {
        sleep_until(end.into()).await;
        let after = Used::by(server.process())?;
        (try_join_all(workers).await, after)
    } else {
        let tallies = try_join_all(workers).await;
        (tallies, Used::by(server.process())?)
    };
    let tallies = tallies?.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let (server_cores, client_cores) = before.cores_until(after);
    let (resident_mib, peak_mib) = machine::memory(server.process())?;
    Ok(summed(
        Outcome {
            server_cores,
            client_cores,
            resident_mib,
            peak_mib,
            ..Outcome::default()
        },
        tallies,
    ))
}

fn summed(mut outcome: Outcome, tallies: Vec<Tally>) -> Outcome {
    let mut nanos = Vec::new();
    for tally in tallies {
        let seconds = tally.busy.as_secs_f64().max(1e-9);
        outcome.operations_per_second += tally.nanos.len() as f64 / seconds;
        outcome.events_per_second += tally.events as f64 / seconds;
        nanos.extend(tally.nanos);
    }
    (outcome.p50_ms, outcome.p99_ms) = percentiles(nanos);
    outcome
}

fn spawn(work: Box<dyn Work>, window: Arc<Window>) -> oneshot::Receiver<anyhow::Result<Tally>> {
    let (answer, answered) = oneshot::channel();
    let blocks = work.blocks();
    let task = async move {
        // The receiver is gone if another worker failed.
        let _ = answer.send(worker(work, &window).await);
    };
    if blocks {
        let runtime = Handle::current();
        std::thread::spawn(move || runtime.block_on(task));
    } else {
        tokio::spawn(task);
    }
    answered
}

async fn worker(mut work: Box<dyn Work>, window: &Window) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut first = None;
    while tally.nanos.is_empty() || !window.is_over() {
        let begun = Instant::now();
        let Some(events) = work.once().await? else {
            break;
        };
        if begun >= window.begin {
            let done = Instant::now();
            let nanos = done.duration_since(begun).as_nanos();
            tally.nanos.push(u64::try_from(nanos).unwrap_or(u64::MAX));
            tally.events += events;
            tally.busy = done.duration_since(*first.get_or_insert(begun));
        }
    }
    Ok(tally)
}
