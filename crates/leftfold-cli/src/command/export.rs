//! `leftfold export`: all events as JSON Lines.
//!
//! **Owns:** writing them out. **Does not know:** the line's format; see `line`.
//! **Invariants:** the same log gives the same bytes; a file is complete or has another name: it is written beside its
//! place, synced, and put there.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;
use futures_util::StreamExt;
use leftfold_model::Read;
use leftfold_server::json;
use leftfold_store::EventStore;

use super::output;
use crate::{cli, open};

pub(crate) async fn run(arguments: cli::Export) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    match arguments.file.filter(|path| path != Path::new("-")) {
        None => {
            let mut out = output();
            write(store.as_ref(), &mut out).await?;
            Ok(out.flush()?)
        }
        Some(path) => {
            let beside = beside(&path);
            let result = to_file(store.as_ref(), &beside, &path).await;
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
async fn to_file(store: &dyn EventStore, beside: &Path, path: &Path) -> anyhow::Result<()> {
    let file = fs::File::create(beside)?;
    let mut out = std::io::BufWriter::with_capacity(256 * 1024, file);
    write(store, &mut out).await?;
    out.into_inner()
        .map_err(std::io::IntoInnerError::into_error)?
        .sync_all()?;
    fs::rename(beside, path)?;
    Ok(())
}

async fn write(store: &dyn EventStore, out: &mut (impl Write + Send)) -> anyhow::Result<()> {
    let mut batches = store.read(Read::all());
    while let Some(batch) = batches.next().await {
        for event in batch?.events {
            writeln!(out, "{}", json::format_line(&event, false)?)?;
        }
    }
    Ok(())
}
