//! The subcommands, one file each.
//!
//! **Owns:** dispatching a parsed command line to its subcommand. **Does not know:** what subcommands do.
//! **Invariants:** each subcommand writes its result to standard output through one buffered writer and flushes it.

mod access_admin;
mod append;
mod audit;
mod bench;
mod certs;
mod consumers;
mod decompress;
mod delete;
mod demo;
mod doctor;
mod explain;
mod export;
mod groups;
mod import;
mod import_lines;
mod keys;
mod metadata;
mod migrate;
mod output_file;
mod printer;
mod read;
mod salvage;
mod scavenge;
mod serve;
mod stats;
mod streams;
mod tail;
mod users;
mod verify;

use std::{
    fs::File,
    io::{self, BufWriter, Stdout, stdout},
    path::Path,
};

use clap::CommandFactory;

use crate::{
    cli::{Cli, Command},
    exit_code::Exit,
};

/// Runs a subcommand.
pub(crate) async fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Demo(arguments) => demo::run(arguments).await?,
        Command::Append(arguments) => append::run(arguments).await?,
        Command::Read(arguments) => read::run(arguments).await?,
        Command::Tail(arguments) => tail::run(arguments).await?,
        Command::Streams(arguments) => streams::run(arguments).await?,
        Command::Stats(arguments) => stats::run(arguments).await?,
        Command::Import(arguments) => import::run(arguments).await?,
        Command::Export(arguments) => export::run(arguments).await?,
        Command::Metadata(arguments) => metadata::run(arguments).await?,
        Command::Consumers(arguments) => consumers::run(arguments).await?,
        Command::Groups(arguments) => groups::run(arguments).await?,
        Command::Delete(arguments) => delete::run(arguments).await?,
        Command::Scavenge(arguments) => scavenge::run(arguments).await?,
        Command::Salvage(arguments) => return salvage::run(&arguments),
        Command::Serve(arguments) => serve::run(arguments).await?,
        Command::Doctor(arguments) => {
            let settings = serve::settings(arguments.config.as_deref(), &arguments.given)?;
            return doctor::run(&arguments, &settings, output()).await;
        }
        Command::Certs(arguments) => certs::run(&arguments)?,
        Command::Users(arguments) => users::run(arguments).await?,
        Command::Keys(arguments) => keys::run(arguments).await?,
        Command::Audit(arguments) => audit::run(arguments).await?,
        Command::Verify(arguments) => verify::run(&arguments).await?,
        Command::Migrate(arguments) => migrate::run(&arguments).await?,
        Command::Bench(arguments) => bench::run(arguments).await?,
        Command::Explain { code } => explain::run(code)?,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "leftfold", &mut stdout());
        }
    }
    Ok(Exit::Ok)
}

/// Standard output, buffered: results are printed in few writes.
fn output() -> BufWriter<Stdout> {
    BufWriter::with_capacity(64 * 1024, stdout())
}

/// Makes the name of a file durable.
#[expect(
    clippy::disallowed_methods,
    reason = "the file is the user's, not the store's"
)]
fn sync_directory_of(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
