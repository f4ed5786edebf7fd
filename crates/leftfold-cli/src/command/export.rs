//! `leftfold export`: a store as JSON Lines, exactly or its events alone.
//!
//! **Owns:** what is written. **Does not know:** the formats of a line; see `leftfold_server::json`.
//! **Invariants:** equal logs give equal bytes.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use futures_util::StreamExt;
use leftfold_model::{Position, Read};
use leftfold_server::json;
use leftfold_store::{EventStore, LogEntry};

use super::{
    output,
    output_file::{self, OutputFile},
};
use crate::{cli, display::JsonLines, open};

pub(crate) async fn run(arguments: cli::Export) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let form = match (arguments.plain, arguments.allow_gaps) {
        (false, _) => Form::Exact,
        (true, allow_gaps) => Form::Plain { allow_gaps },
    };
    match arguments.file.filter(|path| path != Path::new("-")) {
        None => {
            let mut out = JsonLines::to_standard_output(output());
            let written = write(store.as_ref(), &mut out, form).await;
            out.flush()?;
            written
        }
        Some(path) => {
            let cannot = || format!("cannot export to {}", path.display());
            let written = match output_file::open_stream(&path).with_context(cannot)? {
                Some(stream) => to_stream(store.as_ref(), stream, form).await,
                None => {
                    open::must_be_path(&path)?;
                    let target = target(&path).with_context(cannot)?;
                    open::must_lie_outside(&target, &arguments.data)?;
                    to_file(store.as_ref(), &target, form).await
                }
            };
            written.with_context(cannot)
        }
    }
}

/// What an export consists of.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Every position, with checksums.
    Exact,
    /// Events alone.
    Plain {
        /// Whether events may be missing that were scavenged.
        allow_gaps: bool,
    },
}

/// The path that a link leads to, if it is one: the link stays.
fn target(path: &Path) -> std::io::Result<PathBuf> {
    match path.is_symlink() {
        true => fs::canonicalize(path),
        false => Ok(path.to_owned()),
    }
}

async fn to_stream(store: &dyn EventStore, stream: fs::File, form: Form) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, stream);
    write(store, &mut out, form).await?;
    Ok(out.flush()?)
}

async fn to_file(store: &dyn EventStore, path: &Path, form: Form) -> anyhow::Result<()> {
    let output = OutputFile::create(path)?;
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, output.file());
    let mut written = write(store, &mut out, form).await;
    if written.is_ok() {
        written = out.flush().map_err(Into::into);
    }
    drop(out);
    output.finish(written)
}

async fn write(
    store: &dyn EventStore,
    out: &mut (impl Write + Send),
    form: Form,
) -> anyhow::Result<()> {
    match form {
        Form::Exact => write_exact(store, out).await,
        Form::Plain { allow_gaps } => {
            let erased = write_plain(store, out).await?;
            check_gaps(erased, allow_gaps)
        }
    }
}

/// Writes every position.
async fn write_exact(store: &dyn EventStore, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    let mut lines = json::ExportWriter::default();
    writeln!(out, "{}", lines.header()?)?;
    match store.storage() {
        Some(storage) => {
            let mut entries = storage.entries(Position::START);
            while let Some(batch) = entries.next().await {
                for entry in batch? {
                    writeln!(out, "{}", lines.entry(&entry)?)?;
                }
            }
        }
        None => write_readable(store, &mut lines, out).await?,
    }
    writeln!(out, "{}", lines.end()?)?;
    Ok(())
}

/// Writes every position of a store that only returns events: of one that was never scavenged.
async fn write_readable(
    store: &dyn EventStore,
    lines: &mut json::ExportWriter,
    out: &mut (impl Write + Send),
) -> anyhow::Result<()> {
    let (mut head, mut expected) = (Position::START, Position::FIRST);
    let mut batches = store.read(Read::all());
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        head = batch.token.seen_through();
        for event in batch.events {
            if event.position != expected {
                return Err(scavenged(expected));
            }
            expected = event.position.next();
            writeln!(out, "{}", lines.entry(&LogEntry::Event(event))?)?;
        }
    }
    match expected <= head {
        true => Err(scavenged(expected)),
        false => Ok(()),
    }
}

fn scavenged(position: Position) -> anyhow::Error {
    anyhow!(
        "position {position} is erased, and a server does not return erased places; stop the server and export with --data, \
         or give --plain --allow-gaps"
    )
}

/// Writes all events; returns how many of the log were scavenged and so are missing.
async fn write_plain(store: &dyn EventStore, out: &mut (impl Write + Send)) -> anyhow::Result<u64> {
    let (mut head, mut written) = (0, 0);
    let mut batches = store.read(Read::all());
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        head = batch.token.seen_through().get();
        for event in batch.events {
            writeln!(out, "{}", json::format_line(&event, false)?)?;
            written += 1;
        }
    }
    Ok(head - written)
}

/// Refuses an export that would import as a different store.
fn check_gaps(erased: u64, allow_gaps: bool) -> anyhow::Result<()> {
    if erased > 0 && !allow_gaps {
        bail!(
            "export is incomplete: {erased} events were scavenged, and an import would assign new positions and revisions; \
             export without --plain, or give --allow-gaps"
        );
    }
    Ok(())
}
