//! Listeners, projections and process managers beside what one would write by hand, in one run.
//!
//! **Owns:** the rows and their medians. **Does not know:** how a side of a row works.
//! **Invariants:** both sides of a row alternate, run by run, on the same events of an embedded store.

mod account;
mod listeners;
mod orders;
mod views;

use clap::Parser;

/// Measures listeners, projections and process managers.
#[derive(Parser, Debug)]
struct Arguments {
    /// How often each row is measured on each side.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Events of the log that listeners and projections read.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Processes that run at the same time.
    #[arg(long, default_value_t = 2_000)]
    processes: u64,
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
        println!("| {name} | {leftfold:.1} | {unit} | {beside} | {other:.1} | {ratio:.2} |");
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wants = |name: &str| {
        let only = arguments.only.as_ref();
        only.is_none_or(|only| name.contains(only.as_str()))
    };
    println!("| row | leftfold | unit | beside | that | ratio |");
    println!("|---|---|---|---|---|---|");
    let directory = tempfile::tempdir()?;
    let store = account::filled(&directory.path().join("data"), arguments.events).await?;
    let runs = arguments.runs;
    if wants("listener that does nothing") {
        let mut row = Row::default();
        for _ in 0..runs {
            row.beside.push(listeners::subscription(&store).await?);
            row.leftfold.push(listeners::does_nothing(&store).await?);
        }
        row.show(
            "listener that does nothing",
            "events/s",
            "bare subscription",
        );
    }
    if wants("8 keyed workers on handlers of 1 ms") {
        let mut row = Row::default();
        for _ in 0..runs {
            row.beside.push(listeners::waits(1).await?);
            row.leftfold.push(listeners::waits(8).await?);
        }
        row.show(
            "8 keyed workers on handlers of 1 ms",
            "events/s",
            "one worker",
        );
    }
    if wants("catch-up of a live projection") {
        let mut row = Row::default();
        for _ in 0..runs {
            row.beside.push(listeners::subscription(&store).await?);
            row.leftfold.push(views::live(&store).await?);
        }
        row.show(
            "catch-up of a live projection",
            "events/s",
            "bare subscription",
        );
    }
    if wants("projection into SQLite") {
        let mut row = Row::default();
        for run in 0..runs {
            let file = |side: &str| directory.path().join(format!("{side}-{run}.sqlite"));
            row.beside
                .push(views::inserts(&store, &file("bare")).await?);
            row.leftfold
                .push(views::projection(&store, &file("view")).await?);
        }
        row.show(
            "projection into SQLite",
            "events/s",
            "batched inserts by hand",
        );
    }
    if wants("append to seen in SQLite, p50") {
        let mut row = Row::default();
        for run in 0..runs {
            let file = directory.path().join(format!("seen-{run}.sqlite"));
            let (seen, appended) = views::append_to_seen(&file).await?;
            row.leftfold.push(seen);
            row.beside.push(appended);
        }
        row.show("append to seen in SQLite, p50", "ms", "the append alone");
    }
    if wants("process of three steps and a timer") {
        let mut row = Row::default();
        for run in 0..runs {
            let place = directory.path().join(format!("orders-{run}"));
            let (steps, commands) = orders::run(&place, arguments.processes).await?;
            row.leftfold.push(steps);
            row.beside.push(commands);
        }
        row.show(
            "process of three steps and a timer",
            "steps/s",
            "commands alone",
        );
    }
    store.close().await?;
    Ok(())
}
