//! `leftfold append`: one event from the command line.
//!
//! **Owns:** building the event from flags and input. **Does not know:** how it is stored.
//! **Invariants:** data that claims to be JSON is JSON.

use std::io::{Read, Write, stdin};

use anyhow::Context;
use leftfold_model::{Append, ContentType, NewEvent};
use leftfold_store::AppendError;
use serde_json::{json, value::RawValue};

use super::output;
use crate::{
    cli::{self, Encoding},
    exit_code::usage,
    open,
};

pub(crate) async fn run(arguments: cli::Append) -> anyhow::Result<()> {
    let content_type = match arguments.content_type {
        Encoding::Json => ContentType::Json,
        Encoding::Binary => ContentType::Binary,
        Encoding::Msgpack => ContentType::MessagePack,
        Encoding::Cbor => ContentType::Cbor,
    };
    let data = data(arguments.content, content_type)?;
    let mut event =
        usage(NewEvent::new(arguments.event_type, content_type, data).with_tags(arguments.tags))?;
    if let Some(metadata) = arguments.metadata {
        let checked = serde_json::from_str::<&RawValue>(&metadata);
        usage(checked.context("metadata is not JSON"))?;
        event = event.with_metadata(metadata);
    }
    if let Some(id) = arguments.id {
        event = event.with_id(id);
    }
    let id = event.id();
    let append = usage(Append::to(
        arguments.stream,
        arguments.expect.0,
        vec![event],
    ))?;
    let store = open::for_writing(&arguments.data).await?;
    let appended = match store.append(append).await {
        Err(error @ AppendError::OutcomeUnknown { .. }) => {
            let remedy = format!("repeat the command with --id {id} to find out");
            return Err(anyhow::Error::from(error).context(remedy));
        }
        appended => appended?,
    };
    let revision = appended
        .streams
        .first()
        .map(|&(_, revision)| revision.get());
    let mut out = output();
    if arguments.json {
        let line = json!({ "position": appended.last.get(), "revision": revision, "repeated": appended.repeated });
        writeln!(out, "{line}")?;
    } else {
        let note = if appended.repeated {
            " (was stored already)"
        } else {
            ""
        };
        writeln!(
            out,
            "position {}, revision {}{note}",
            appended.last,
            revision.unwrap_or_default()
        )?;
    }
    out.flush()?;
    Ok(store.close().await?)
}

/// JSON as it was given, or from standard input.
pub(super) fn json_from(content: String) -> anyhow::Result<Vec<u8>> {
    data(Some(content), ContentType::Json)
}

fn data(content: Option<String>, content_type: ContentType) -> anyhow::Result<Vec<u8>> {
    let is_json = content_type == ContentType::Json;
    let data = match content {
        None if is_json => b"{}".to_vec(),
        None => Vec::new(),
        Some(dash) if dash == "-" => {
            let mut data = Vec::new();
            stdin()
                .read_to_end(&mut data)
                .context("cannot read the data from standard input")?;
            // The line break that `echo` adds is not part of JSON.
            if is_json {
                data.trim_ascii().to_vec()
            } else {
                data
            }
        }
        Some(text) => text.into_bytes(),
    };
    if is_json {
        let checked = serde_json::from_slice::<&RawValue>(&data);
        usage(checked.context("data is not JSON (see --content-type)"))?;
    }
    Ok(data)
}
