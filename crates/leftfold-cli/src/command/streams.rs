//! `leftfold streams`: listing streams.
//!
//! **Owns:** the listing as text and as JSON. **Does not know:** how the store finds streams.
//! **Invariants:** memory does not grow with the number of streams.

use std::io::Write;

use futures_util::StreamExt;
use leftfold_server::json::time_text;
use leftfold_store::ListStreams;
use serde_json::json;

use super::output;
use crate::{cli, display, open};

pub(crate) async fn run(arguments: cli::Streams) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let mut out = output();
    let list = ListStreams {
        prefix: arguments.prefix,
        after: None,
        limit: arguments.limit,
    };
    let mut batches = store.streams(list);
    while let Some(batch) = batches.next().await {
        for info in batch? {
            let time = time_text(info.time);
            if arguments.json {
                let line = json!({ "stream": info.stream.as_str(), "events": info.events, "last_time": time,
                    "last_position": info.position.get() });
                writeln!(out, "{}", display::json(&line.to_string()))?;
            } else {
                writeln!(
                    out,
                    "{:>10}  {time}  {}",
                    info.events,
                    display::escape(info.stream.as_str())
                )?;
            }
        }
    }
    Ok(out.flush()?)
}
