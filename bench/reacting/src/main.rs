//! Reactions, sealed fields and tenants beside code by hand and other frameworks, in one run.
//!
//! **Owns:** the rows and their medians. **Does not know:** how a side of a row works.
//! **Invariants:** both sides of a row alternate, run by run, on the same events.

mod account;
mod listeners;
mod messages;
mod orders;
mod peers;
mod personal;
mod postgres;
mod tenants;
mod timers;
mod views;

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser;
use leftfold::Store;
use leftfold_postgres::testing::Server;

/// Measures listeners, projections, process managers, messages, sealed fields and tenants.
#[derive(Parser, Debug)]
struct Arguments {
    /// How often each row is measured on each side.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Events of the log that listeners and projections in memory read.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Events of the log that is projected into SQLite.
    #[arg(long, default_value_t = 200_000)]
    rows: u64,
    /// Processes that run at the same time.
    #[arg(long, default_value_t = 10_000)]
    processes: u64,
    /// Timers that are set and fired.
    #[arg(long, default_value_t = 100_000)]
    timers: u64,
    /// Timers that are due in each second.
    #[arg(long, default_value_t = 5_000)]
    timers_per_second: u64,
    /// Messages that are delivered by webhook.
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Seconds of each measurement over PostgreSQL.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Each row once, on little: to see that every side works.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// A Python that has `eventsourcing` 9.5; without it, its row is left out.
    #[arg(long)]
    python: Option<PathBuf>,
}

impl Arguments {
    fn parsed() -> Self {
        let arguments = Self::parse();
        if !arguments.quick {
            return arguments;
        }
        Self {
            runs: 1,
            events: 20_000,
            rows: 5_000,
            processes: 100,
            timers: 500,
            messages: 200,
            seconds: 0.5,
            ..arguments
        }
    }

    fn wants(&self, name: &str) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|only| name.contains(only.as_str()))
    }

    /// Measures a row, whose sides `measure` gives: ours, and the other one.
    async fn row<F: Future<Output = anyhow::Result<(f64, f64)>>>(
        &self,
        (name, unit, beside): (&str, &str, &str),
        mut measure: impl FnMut(usize) -> F,
    ) -> anyhow::Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let (mut leftfold, mut other) = (Vec::new(), Vec::new());
        for run in 0..self.runs {
            let (ours, theirs) = measure(run).await?;
            leftfold.push(ours);
            other.push(theirs);
        }
        let (leftfold, other) = (median(&leftfold), median(&other));
        let ratio = leftfold / other;
        eprintln!("| {name} | {leftfold:.3} | {unit} | {beside} | {other:.3} | {ratio:.3} |");
        Ok(())
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The value that this part of all values stays below.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or(0.0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parsed();
    // A peer writes a line for each command to the standard output, so the table goes to the other one.
    eprintln!("| row | leftfold | unit | beside | that | ratio |");
    eprintln!("|---|---|---|---|---|---|");
    let directory = tempfile::tempdir()?;
    in_memory(&arguments, directory.path()).await?;
    into_sqlite(&arguments, directory.path()).await?;
    processes(&arguments, directory.path()).await?;
    personal(&arguments, directory.path()).await?;
    tenants(&arguments, directory.path()).await?;
    over_postgres(&arguments).await
}

async fn in_memory(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let nothing = (
        "listener that does nothing",
        "events/s",
        "bare subscription",
    );
    let live = (
        "catch-up of a live projection",
        "events/s",
        "bare subscription",
    );
    if arguments.wants(nothing.0) || arguments.wants(live.0) {
        let store = account::filled(&directory.join("events"), arguments.events).await?;
        let measure = async |_| {
            let beside = listeners::subscription(&store).await?;
            Ok((listeners::does_nothing(&store).await?, beside))
        };
        arguments.row(nothing, measure).await?;
        let measure = async |_| {
            let beside = listeners::subscription(&store).await?;
            Ok((views::live(&store).await?, beside))
        };
        arguments.row(live, measure).await?;
        store.close().await?;
    }
    let name = (
        "8 keyed workers on handlers of 1 ms",
        "events/s",
        "one worker",
    );
    let measure = async |_| {
        let beside = listeners::waits(1).await?;
        Ok((listeners::waits(8).await?, beside))
    };
    arguments.row(name, measure).await?;
    let name = (
        "commands, states kept, each in a view in memory",
        "commands/s",
        "cqrs-es with a query",
    );
    let commands = arguments.rows / 10;
    let measure = async |_| {
        let beside = peers::commands_with_query(commands, VIEW_ACCOUNTS).await?;
        Ok((views::commands(commands, VIEW_ACCOUNTS).await?, beside))
    };
    arguments.row(name, measure).await
}

/// Accounts of the commands that are compared with `cqrs-es`.
const VIEW_ACCOUNTS: u64 = 100;

async fn into_sqlite(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let bare = (
        "projection into SQLite",
        "events/s",
        "batched inserts by hand",
    );
    let once = (
        "exactly once into SQLite",
        "events/s",
        "eventsourcing, process application",
    );
    let file = |side: &str, run: usize| directory.join(format!("{side}-{run}.sqlite"));
    let seen = ("append to seen in SQLite, p50", "ms", "the append alone");
    let measure = async |run| views::append_to_seen(&file("seen", run)).await;
    arguments.row(seen, measure).await?;
    if !arguments.wants(bare.0) && !arguments.wants(once.0) {
        return Ok(());
    }
    let store: Store = account::filled(&directory.join("rows"), arguments.rows).await?;
    let measure = async |run| {
        let beside = views::inserts(&store, &file("bare", run)).await?;
        Ok((views::projection(&store, &file("view", run)).await?, beside))
    };
    arguments.row(bare, measure).await?;
    if let Some(python) = &arguments.python
        && arguments.wants(once.0)
    {
        let events = (arguments.rows / 100).next_multiple_of(100);
        let mut peer = peers::ProcessApplication::start(python, directory, events)?;
        let mut beside = Vec::new();
        for _ in 0..arguments.runs {
            beside.push(peer.run()?);
        }
        let measure = async |run: usize| {
            let ours = views::projection(&store, &file("once", run)).await?;
            Ok((ours, beside.get(run).copied().unwrap_or(f64::NAN)))
        };
        arguments.row(once, measure).await?;
    }
    store.close().await?;
    Ok(())
}

async fn over_postgres(arguments: &Arguments) -> anyhow::Result<()> {
    let listeners = (
        "one writer beside 20 listeners, PostgreSQL",
        "events/s",
        "no listener",
    );
    let inline = (
        "commands, each in an inline view, PostgreSQL",
        "commands/s",
        "waiting for the projection's task",
    );
    if !arguments.wants(listeners.0) && !arguments.wants(inline.0) {
        return Ok(());
    }
    let server = Server::start();
    let time = Duration::from_secs_f64(arguments.seconds);
    let measure = async |_| postgres::listeners(&server, time).await;
    arguments.row(listeners, measure).await?;
    let measure = async |_| postgres::inline(&server, time).await;
    arguments.row(inline, measure).await
}

async fn processes(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let name = "process of three steps and a timer";
    let steps = async |run| {
        let place = directory.join(format!("orders-{run}"));
        orders::run(&place, arguments.processes).await
    };
    arguments
        .row((name, "steps/s", "commands alone"), steps)
        .await?;
    let name = "lateness of a timer, p99";
    let timers = async |run| {
        let place = directory.join(format!("timers-{run}"));
        timers::lateness(&place, arguments.timers, arguments.timers_per_second).await
    };
    arguments.row((name, "ms", "p50"), timers).await?;
    let name = "messages by webhook, in order per key";
    let messages = async |_| messages::run(arguments.messages).await;
    arguments
        .row((name, "messages/s", "bare requests"), messages)
        .await
}

async fn personal(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let name = "append of an event with a sealed field";
    let place = |name: &str, run: usize| directory.join(format!("{name}-{run}"));
    let append = async |run| personal::append(&place("sealed-append", run)).await;
    arguments.row((name, "us", "in clear"), append).await?;
    let name = "load of 1,000 events with a sealed field";
    let load = async |run| personal::load(&place("sealed-load", run)).await;
    arguments.row((name, "us", "in clear"), load).await
}

async fn tenants(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let place = |name: &str, run: usize| directory.join(format!("{name}-{run}"));
    let name = "command of a tenant";
    let commands = async |run| tenants::commands(&place("tenant-commands", run)).await;
    arguments.row((name, "us", "bare store"), commands).await?;
    let name = "load of 1,000 events of a tenant";
    let loads = async |run| tenants::loads(&place("tenant-loads", run)).await;
    arguments.row((name, "us", "bare store"), loads).await
}
