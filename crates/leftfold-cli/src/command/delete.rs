//! `leftfold delete`: deleting a stream.
//!
//! **Owns:** the output. **Does not know:** what deletion does; the store does.

use std::io::Write;

use leftfold_store::Delete;
use serde_json::json;

use super::output;
use crate::{cli, open};

pub(crate) async fn run(arguments: cli::Delete) -> anyhow::Result<()> {
    let (stream, expected) = (arguments.stream, arguments.expect.0);
    let store = open::existing_for_writing(&arguments.data).await?;
    let delete = if arguments.permanent {
        Delete::tombstone(stream, expected)
    } else {
        Delete::stream(stream, expected)
    };
    let deleted = store.delete(delete).await?;
    let mut out = output();
    if arguments.json {
        writeln!(out, "{}", json!({ "position": deleted.last.get() }))?;
    } else {
        writeln!(out, "deleted, position {}", deleted.last)?;
    }
    out.flush()?;
    Ok(store.close().await?)
}
