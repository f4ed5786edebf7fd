//! `leftfold read`: events, filtered, in either direction.
//!
//! **Owns:** building the read from flags. **Does not know:** how the store finds events.
//! **Invariants:** events are printed batch by batch; memory does not grow with their number.

use std::io::Write;

use futures_util::StreamExt;
use leftfold_model::{Position, Read, Revision, Scope};

use super::output;
use crate::{
    cli::{self, Filter},
    display,
    exit_code::usage,
    open,
};
use leftfold_server::{json, refuse_scope};

pub(crate) async fn run(arguments: cli::Read) -> anyhow::Result<()> {
    let mut read = Read {
        query: usage(arguments.filter.query())?,
        limit: arguments.limit,
        ..Read::all()
    };
    read = match arguments.from {
        Some(from) if arguments.filter.stream.is_some() => read.from_revision(Revision::new(from)),
        Some(from) => read.from_position(Position::new(from)),
        None => read,
    };
    if arguments.backwards {
        read = read.backwards();
    }
    read.scope = scope(arguments.filter);
    let store = open::existing(&arguments.data).await?;
    refuse_scope(store.as_ref(), &read.scope).await?;
    let mut out = output();
    let mut batches = store.read(read);
    while let Some(batch) = batches.next().await {
        for event in batch?.events {
            if arguments.json {
                let line = json::format_line(&event, true)?;
                writeln!(out, "{}", display::json(&line))?;
            } else {
                writeln!(out, "{}", display::event(&event))?;
            }
        }
    }
    Ok(out.flush()?)
}

/// The part of the log that the flags name.
pub(crate) fn scope(filter: Filter) -> Scope {
    match (filter.stream, filter.category) {
        (Some(stream), _) => Scope::Stream(stream),
        (None, Some(category)) => Scope::Category(category),
        (None, None) => Scope::All,
    }
}
