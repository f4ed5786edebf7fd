//! `leftfold metadata`: showing and setting a stream's metadata.
//!
//! **Owns:** the command's input and output as JSON. **Does not know:** what the keys do.
//! **Invariants:** metadata that does not parse is not stored.

use std::io::Write;

use anyhow::Context;
use leftfold_store::StreamMetadata;
use serde_json::{Map, Value};

use super::{append, output};
use crate::{cli, display, exit_code::usage, open};

pub(crate) async fn run(arguments: cli::Metadata) -> anyhow::Result<()> {
    match arguments.content.clone() {
        None => show(arguments).await,
        Some(content) => set(arguments, content).await,
    }
}

async fn show(arguments: cli::Metadata) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let state = store.stream_state(arguments.stream).await?;
    let mut out = output();
    let metadata = state.metadata.to_json();
    writeln!(
        out,
        "{}",
        display::json(&String::from_utf8_lossy(&metadata))
    )?;
    Ok(out.flush()?)
}

async fn set(arguments: cli::Metadata, content: String) -> anyhow::Result<()> {
    let json = append::json_from(content)?;
    let object = serde_json::from_slice::<Map<String, Value>>(&json);
    usage(object.context("invalid stream metadata; expected a JSON object"))?;
    let metadata = StreamMetadata::from_json(&json);
    let append = usage(metadata.append_for(&arguments.stream, arguments.expect.0))?;
    let store = open::for_writing(&arguments.data).await?;
    let appended = store.append(append).await?;
    let mut out = output();
    writeln!(out, "position {}", appended.last)?;
    out.flush()?;
    Ok(store.close().await?)
}
