//! Leftfold beside other embedded stores: one command, one table.
//!
//! **Owns:** the command line. **Does not know:** how anything is measured.
//! **Invariants:** every figure of a table comes from one run of this program; runs of the stores alternate.

mod engine;
mod machine;
mod plan;
mod report;
mod task;

use std::path::PathBuf;

use clap::Parser;
use engine::Kind;

/// Measures Leftfold beside other embedded stores, in one run.
#[derive(Parser, Debug)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// A shorter table: fewer rows, shorter runs, three of each.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name holds this text.
    #[arg(long)]
    only: Option<String>,
    /// How often each row is measured for each store.
    #[arg(long)]
    runs: Option<usize>,
    /// Only these stores.
    #[arg(long, value_delimiter = ',')]
    stores: Vec<Kind>,
    /// Where the stores keep their files; a temporary directory unless given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Also writes every outcome, as JSON, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    /// One measurement; what the table is made of.
    #[command(hide = true)]
    Child {
        kind: Kind,
        task: String,
        directory: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Child {
        kind,
        task,
        directory,
    }) = arguments.command
    {
        let outcome = task::run(kind, &serde_json::from_str(&task)?, &directory)?;
        println!("{}", serde_json::to_string(&outcome)?);
        return Ok(());
    }
    let parent = arguments
        .directory
        .clone()
        .unwrap_or_else(std::env::temp_dir);
    let directory = tempfile::Builder::new()
        .prefix("leftfold-bench-")
        .tempdir_in(parent)?;
    let mut report = report::Report::begin(directory.path());
    let selection = plan::Selection {
        quick: arguments.quick,
        only: arguments.only,
        runs: arguments
            .runs
            .unwrap_or(if arguments.quick { 3 } else { 5 }),
        stores: arguments.stores,
    };
    plan::run(&selection, directory.path(), &mut report)?;
    report.finish(arguments.json.as_deref())
}
