//! `leftfold export`: all events as JSON Lines.
//!
//! **Owns:** writing the file. **Does not know:** the format of a line; see `leftfold_server::json`.
//! **Invariants:** equal logs give equal bytes; the output file is complete or absent, because it is written under a
//! temporary name, synced and renamed.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use futures_util::StreamExt;
use leftfold_model::Read;
use leftfold_server::json;
use leftfold_store::EventStore;

use super::output;
use crate::{cli, open};

pub(crate) async fn run(arguments: cli::Export) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let allow_gaps = arguments.allow_gaps;
    match arguments.file.filter(|path| path != Path::new("-")) {
        None => {
            let mut out = output();
            let erased = write(store.as_ref(), &mut out).await?;
            out.flush()?;
            check_gaps(erased, allow_gaps)
        }
        Some(path) => {
            let beside = beside(&path);
            let result = to_file(store.as_ref(), &beside, &path, allow_gaps).await;
            result.with_context(|| format!("cannot export to {}", path.display()))
        }
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the export is the user's file, not the store's"
)]
async fn to_file(
    store: &dyn EventStore,
    beside: &Path,
    path: &Path,
    allow_gaps: bool,
) -> anyhow::Result<()> {
    let file = fs::File::create(beside)?;
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, file);
    let erased = write(store, &mut out).await?;
    let checked = check_gaps(erased, allow_gaps);
    if checked.is_err() {
        fs::remove_file(beside)?;
        return checked;
    }
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(beside, path)?;
    Ok(())
}

/// Writes all events; returns how many of the log were scavenged and so are missing.
async fn write(store: &dyn EventStore, out: &mut (impl Write + Send)) -> anyhow::Result<u64> {
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
             copy the store instead (docs/operations.md), or give --allow-gaps"
        );
    }
    Ok(())
}
