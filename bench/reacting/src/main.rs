//! What reacts to events, sealed fields and tenants beside what one would write by hand.
//!
//! **Owns:** the rows and their medians. **Does not know:** how a side of a row works.
//! **Invariants:** both sides of a row alternate, run by run, on the same events of an embedded store.

mod account;
mod listeners;
mod messages;
mod orders;
mod personal;
mod tenants;
mod timers;
mod views;

use std::path::Path;

use clap::Parser;
use leftfold::Store;

/// Measures listeners, projections, process managers, messages, sealed fields and tenants.
#[derive(Parser, Debug)]
struct Arguments {
    /// How often each row is measured on each side.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Events of the log that listeners and projections read.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
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
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
}

/// What both sides of a row measured.
#[derive(Debug, Default)]
struct Row {
    leftfold: Vec<f64>,
    beside: Vec<f64>,
}

impl Row {
    fn show(&self, name: &str, unit: &str, beside: &str) {
        let (leftfold, other) = (median(&self.leftfold), median(&self.beside));
        let ratio = leftfold / other;
        println!("| {name} | {leftfold:.3} | {unit} | {beside} | {other:.3} | {ratio:.3} |");
    }
}

fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this part of all values stays below.
fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len() as f64 * part) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(index.min(last)).copied().unwrap_or(0.0)
}

impl Arguments {
    /// Measures a row as often as wanted: what is ours, and what stands beside it.
    async fn row(
        &self,
        name: &str,
        unit: &str,
        beside: &str,
        mut measure: impl AsyncFnMut(usize) -> anyhow::Result<(f64, f64)>,
    ) -> anyhow::Result<()> {
        if self
            .only
            .as_ref()
            .is_some_and(|only| !name.contains(only.as_str()))
        {
            return Ok(());
        }
        let mut row = Row::default();
        for run in 0..self.runs {
            let (leftfold, other) = measure(run).await?;
            row.leftfold.push(leftfold);
            row.beside.push(other);
        }
        row.show(name, unit, beside);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!("| row | leftfold | unit | beside | that | ratio |");
    println!("|---|---|---|---|---|---|");
    let directory = tempfile::tempdir()?;
    let store = account::filled(&directory.path().join("data"), arguments.events).await?;
    reading(&arguments, &store, directory.path()).await?;
    processes(&arguments, directory.path()).await?;
    personal(&arguments, directory.path()).await?;
    tenants(&arguments, directory.path()).await?;
    store.close().await?;
    Ok(())
}

async fn reading(arguments: &Arguments, store: &Store, directory: &Path) -> anyhow::Result<()> {
    let name = "listener that does nothing";
    let listener = async |_| {
        let beside = listeners::subscription(store).await?;
        Ok((listeners::does_nothing(store).await?, beside))
    };
    arguments
        .row(name, "events/s", "bare subscription", listener)
        .await?;
    let name = "8 keyed workers on handlers of 1 ms";
    let workers = async |_| Ok((listeners::waits(8).await?, listeners::waits(1).await?));
    arguments
        .row(name, "events/s", "one worker", workers)
        .await?;
    let name = "catch-up of a live projection";
    let live = async |_| {
        let beside = listeners::subscription(store).await?;
        Ok((views::live(store).await?, beside))
    };
    arguments
        .row(name, "events/s", "bare subscription", live)
        .await?;
    let projection = async |run| {
        let file = |side: &str| directory.join(format!("{side}-{run}.sqlite"));
        let beside = views::inserts(store, &file("bare")).await?;
        Ok((views::projection(store, &file("view")).await?, beside))
    };
    let name = "projection into SQLite";
    arguments
        .row(name, "events/s", "batched inserts by hand", projection)
        .await?;
    let name = "append to seen in SQLite, p50";
    let seen =
        async |run| views::append_to_seen(&directory.join(format!("seen-{run}.sqlite"))).await;
    arguments.row(name, "ms", "the append alone", seen).await
}

async fn processes(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let name = "process of three steps and a timer";
    let steps = async |run| {
        let place = directory.join(format!("orders-{run}"));
        orders::run(&place, arguments.processes).await
    };
    arguments
        .row(name, "steps/s", "commands alone", steps)
        .await?;
    let name = "lateness of a timer, p99";
    let timers = async |run| {
        let place = directory.join(format!("timers-{run}"));
        timers::lateness(&place, arguments.timers, arguments.timers_per_second).await
    };
    arguments.row(name, "ms", "p50", timers).await?;
    let name = "messages by webhook, in order per key";
    let messages = async |_| messages::run(arguments.messages).await;
    arguments
        .row(name, "messages/s", "bare requests", messages)
        .await
}

async fn personal(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let name = "append of an event with a sealed field";
    let place = |name: &str, run: usize| directory.join(format!("{name}-{run}"));
    let append = async |run| personal::append(&place("sealed-append", run)).await;
    arguments.row(name, "us", "in clear", append).await?;
    let name = "load of 1,000 events with a sealed field";
    let load = async |run| personal::load(&place("sealed-load", run)).await;
    arguments.row(name, "us", "in clear", load).await
}

async fn tenants(arguments: &Arguments, directory: &Path) -> anyhow::Result<()> {
    let place = |name: &str, run: usize| directory.join(format!("{name}-{run}"));
    let name = "command of a tenant";
    let commands = async |run| tenants::commands(&place("tenant-commands", run)).await;
    arguments.row(name, "us", "bare store", commands).await?;
    let name = "load of 1,000 events of a tenant";
    let loads = async |run| tenants::loads(&place("tenant-loads", run)).await;
    arguments.row(name, "us", "bare store", loads).await
}
