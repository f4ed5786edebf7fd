//! Leftfold's server beside the servers of its peers: one command, one table.
//!
//! **Owns:** the command line, and the order of the sections. **Does not know:** how anything is measured.
//! **Invariants:** every figure of a table comes from one run of this program, on one machine.

mod closed;
mod delivery;
mod event;
mod machine;
mod outcome;
mod plan;
mod report;
mod rows;
mod server;
mod wire;

use std::path::PathBuf;

use clap::Parser;
use tokio::signal::{
    ctrl_c,
    unix::{SignalKind, signal},
};

use crate::{
    plan::{Peer, Plan},
    report::Report,
};

/// Measures Leftfold's server beside the servers of its peers, in one run.
#[derive(Parser, Debug)]
struct Arguments {
    /// Few rows, once each and short: that everything builds and answers, not how fast.
    #[arg(long)]
    quick: bool,
    /// How often each row is measured on each side; 5 unless quick.
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds of each measurement, after a second of warming up; 5 unless quick.
    #[arg(long)]
    seconds: Option<f64>,
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// Which peers stand beside Leftfold; without one, its rows have Leftfold alone.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "umadb,tephra"
    )]
    peers: Vec<Peer>,
    /// Events of the big log; 2,000,000 unless quick.
    #[arg(long)]
    events: Option<u64>,
    /// Where the servers keep their files; a temporary directory unless given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// The program `leftfold`.
    #[arg(long)]
    leftfold: PathBuf,
    /// The program `umadb`, unless that peer is left out.
    #[arg(long)]
    umadb: Option<PathBuf>,
    /// The program `tephra-server`, unless that peer is left out.
    #[arg(long)]
    tephra: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let parent = arguments
        .directory
        .clone()
        .unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new()
        .prefix("leftfold-bench-server-")
        .tempdir_in(parent)?;
    let mut report = Report::begin(directory.path());
    let plan = Plan::of(arguments, directory.path());
    // A signal to this program also ends its servers: they are dropped with the measurement.
    let mut asked_to_end = signal(SignalKind::terminate())?;
    tokio::select! {
        measured = measure(&plan, &mut report) => measured,
        _ = ctrl_c() => anyhow::bail!("interrupted"),
        _ = asked_to_end.recv() => anyhow::bail!("asked to end"),
    }
}

async fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    rows::umadb_wire(plan, report).await?;
    rows::own_wires(plan, report).await?;
    rows::kurrentdb_wire(plan, report).await?;
    rows::subscribers(plan, report).await?;
    rows::groups(plan, report).await?;
    rows::security(plan, report).await?;
    rows::hostile(plan, report).await
}
