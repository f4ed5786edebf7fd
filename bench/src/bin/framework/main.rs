//! The framework beside bare reads and appends, and beside other frameworks, in one run.
//!
//! **Owns:** the rows and their medians. **Does not know:** how a peer is driven.
//! **Invariants:** both sides of a row alternate, run by run, and do the same work: the same accounts, histories and commands.

mod bank;
mod bare;
mod ours;
mod peers;

use std::{future::Future, ops::Range, time::Instant};

use clap::Parser;

/// Measures the framework beside bare reads and appends, and beside other frameworks.
#[derive(Parser, Debug)]
struct Arguments {
    /// How often each row is measured on each side.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// A Python that has `eventsourcing` 9.5; without it, its row is left out.
    #[arg(long)]
    python: Option<std::path::PathBuf>,
}

/// Rates of both sides, in operations per second.
#[derive(Debug, Default)]
struct Row {
    ours: Vec<f64>,
    beside: Vec<f64>,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

fn show(name: &str, beside: &str, row: &Row) {
    let (ours, theirs) = (median(&row.ours), median(&row.beside));
    eprintln!(
        "| {name} | {ours:.0} | {beside} | {theirs:.0} | {:.2} |",
        ours / theirs
    );
}

/// How often `operation` runs in a second, over about so many seconds.
async fn rate<F: Future<Output = anyhow::Result<()>>>(
    seconds: f64,
    mut operation: impl FnMut(u64) -> F,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let mut count = 0;
    loop {
        operation(count).await?;
        count += 1;
        let elapsed = begun.elapsed().as_secs_f64();
        if elapsed >= seconds {
            return Ok(count as f64 / elapsed);
        }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let wants = |name: &str| {
        arguments
            .only
            .as_ref()
            .is_none_or(|only| name.contains(only.as_str()))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // A peer writes a line for each command to the standard output, so the table goes to the other one.
    eprintln!("| row | leftfold per second | beside | per second | ratio |");
    eprintln!("|---|---|---|---|---|");
    runtime.block_on(async {
        if wants("load") {
            loads(arguments.runs).await?;
        }
        if wants("execute") {
            executes(arguments.runs).await?;
        }
        if wants("bank in memory") {
            bank_in_memory(arguments.runs).await?;
        }
        if let Some(python) = &arguments.python
            && wants("bank durable")
        {
            bank_durable(arguments.runs, python).await?;
        }
        anyhow::Ok(())
    })
}

async fn loads(runs: usize) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let store = leftfold::Store::open(directory.path()).await?;
    ours::fill(&store, &[("long", 1_000), ("short", 1)]).await?;
    let accounts = store.repository::<bank::Account>();
    let (mut replays, mut snapshots) = (Row::default(), Row::default());
    let kept = accounts.with_snapshots();
    kept.snapshot("long").await?;
    for _ in 0..runs {
        let bare = rate(0.7, |_| bare::load(&store, "long")).await?;
        replays.beside.push(bare);
        let load = async || anyhow::Ok(drop(accounts.load("long").await?));
        replays.ours.push(rate(0.7, |_| load()).await?);
        let short = async || anyhow::Ok(drop(accounts.load("short").await?));
        snapshots.beside.push(rate(0.7, |_| short()).await?);
        let load = async || anyhow::Ok(drop(kept.load("long").await?));
        snapshots.ours.push(rate(0.7, |_| load()).await?);
    }
    show(
        "load of 1,000 events",
        "stream read and JSON decoding",
        &replays,
    );
    show("load with a snapshot", "load of one event", &snapshots);
    store.close().await?;
    Ok(())
}

async fn executes(runs: usize) -> anyhow::Result<()> {
    let (mut plain, mut kept) = (Row::default(), Row::default());
    for _ in 0..runs {
        let directory = tempfile::tempdir()?;
        let store = leftfold::Store::open(directory.path()).await?;
        let bare = bare::appends(&store, 64, 2.0).await?;
        store.close().await?;
        for (keeps, row) in [(0, &mut plain), (100_000, &mut kept)] {
            let directory = tempfile::tempdir()?;
            let store = leftfold::Store::open(directory.path()).await?;
            let mut accounts = store.repository::<bank::Account>();
            if keeps > 0 {
                accounts = accounts.with_state_cache(keeps);
            }
            row.ours.push(ours::executes(&accounts, 64, 2.0).await?);
            row.beside.push(bare);
            store.close().await?;
        }
    }
    let beside = "conditional appends by 64 callers";
    show("execute by 64 callers", beside, &plain);
    show("execute by 64 callers, states kept", beside, &kept);
    Ok(())
}

/// Our side of the bank: as it is, with snapshots, with states kept; each on a store of its own, beside the same peer.
struct Bank {
    sides: Vec<(&'static str, leftfold::Repository<bank::Account>, Row)>,
}

impl Bank {
    async fn over(stores: [leftfold::Store; 3]) -> anyhow::Result<Self> {
        let work = bank::workload();
        let [plain, snapshots, kept] = stores;
        for store in [&plain, &snapshots, &kept] {
            ours::fill_bank(store, &work).await?;
        }
        let sides = vec![
            ("", plain.repository(), Row::default()),
            (
                ", snapshots",
                snapshots.repository().with_snapshots(),
                Row::default(),
            ),
            (
                ", states kept",
                kept.repository().with_state_cache(10_000),
                Row::default(),
            ),
        ];
        Ok(Self { sides })
    }

    /// Carries out these commands, which the peer carried out at this rate.
    async fn run(&mut self, commands: Range<u64>, theirs: f64) -> anyhow::Result<()> {
        for (_, accounts, row) in &mut self.sides {
            row.ours
                .push(timed(commands.clone(), |n| ours::deposit(accounts, n)).await?);
            row.beside.push(theirs);
        }
        Ok(())
    }

    fn show(&self, name: &str, beside: &str) {
        for (how, _, row) in &self.sides {
            show(&format!("{name}{how}"), beside, row);
        }
    }
}

/// How many of these operations are done in a second.
async fn timed<F: Future<Output = anyhow::Result<()>>>(
    operations: Range<u64>,
    mut operation: impl FnMut(u64) -> F,
) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let count = operations.end - operations.start;
    for nth in operations {
        operation(nth).await?;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// The commands of each run: so many, and others in each.
fn commands(run: usize, each: u64) -> Range<u64> {
    let first = run as u64 * each;
    first..first + each
}

async fn bank_in_memory(runs: usize) -> anyhow::Result<()> {
    let peer = peers::cqrs::filled(&bank::workload()).await?;
    let mut bank = Bank::over(std::array::from_fn(|_| leftfold::Store::memory())).await?;
    for run in 0..runs {
        let commands = commands(run, 10_000);
        let theirs = timed(commands.clone(), |n| peers::cqrs::deposit(&peer, n)).await?;
        bank.run(commands, theirs).await?;
    }
    bank.show("bank in memory", "cqrs-es 0.5");
    Ok(())
}

async fn bank_durable(runs: usize, python: &std::path::Path) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let open = |name: &str| leftfold::Store::open(directory.path().join(name));
    let stores = [
        open("plain").await?,
        open("snapshots").await?,
        open("kept").await?,
    ];
    let mut bank = Bank::over(stores).await?;
    let peer = peers::python::filled(python, &directory.path().join("bank.db"))?;
    for run in 0..runs {
        let commands = commands(run, 1_000);
        let theirs = peer.run(&commands)?;
        bank.run(commands, theirs).await?;
    }
    bank.show("bank durable", "eventsourcing 9.5 on SQLite");
    Ok(())
}
