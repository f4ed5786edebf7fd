//! `leftfold scavenge`: erasing what no stream read can return, and freeing its space.
//!
//! **Owns:** the output. **Does not know:** which events a scavenge erases, or how.
//! **Invariants:** the last line states what was erased, even if the run ended early.

use std::io::Write;

use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use leftfold_store::{Scavenge, ScavengeProgress};
use serde_json::json;

use super::output;
use crate::{cli, open};

pub(crate) async fn run(arguments: cli::Scavenge) -> anyhow::Result<()> {
    let store = open::existing_for_writing(&arguments.data).await?;
    let scavenge = match arguments.rate {
        Some(bytes) => Scavenge::default().with_bytes_per_second(bytes),
        None => Scavenge::default(),
    };
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(
        "{wide_bar} {pos}/{len} parts, {msg}",
    )?);
    let mut last = ScavengeProgress::default();
    let mut reports = store.scavenge(scavenge);
    let ended = loop {
        let progress = match reports.try_next().await {
            Ok(Some(progress)) => progress,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        bar.set_length(progress.parts);
        bar.set_position(progress.parts_done);
        bar.set_message(format!("{} bytes", progress.bytes));
        last = progress;
    };
    bar.finish_and_clear();
    let mut out = output();
    if arguments.json {
        let line = json!({ "streams": last.streams, "events": last.events, "bytes": last.bytes,
            "finished": last.finished });
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{} events of {} streams erased, {} bytes reclaimed",
            last.events, last.streams, last.bytes
        )?;
    }
    out.flush()?;
    ended?;
    Ok(store.close().await?)
}
