//! `leftfold tail`: printing events as they are committed.
//!
//! **Owns:** subscribing until a signal arrives. **Does not know:** how subscriptions work.
//! **Invariants:** every batch is flushed at once, because a person may be watching; a signal ends it between two batches.

use std::io::Write;

use futures_util::StreamExt;
use leftfold_model::Position;
use leftfold_server::{json, refuse_scope};
use leftfold_store::Subscription;

use super::{output, read::scope};
use crate::{cli, display, exit_code::usage, open, signals::Signals};

pub(crate) async fn run(arguments: cli::Tail) -> anyhow::Result<()> {
    let store = open::existing(&arguments.data).await?;
    let head = store.head().await?;
    let after = arguments.after.map_or(head, Position::new);
    if arguments.until_caught_up && after >= head {
        return Ok(());
    }
    let query = usage(arguments.filter.query())?;
    let scope = scope(arguments.filter);
    refuse_scope(store.as_ref(), &scope).await?;
    let subscription = Subscription::after(after).matching(query).scope(scope);
    let mut deliveries = store.subscribe(subscription);
    let mut out = output();
    let mut signals = Signals::listen()?;
    loop {
        let delivery = tokio::select! {
            delivery = deliveries.next() => delivery,
            () = signals.next() => None,
        };
        let Some(delivery) = delivery.transpose()? else {
            break;
        };
        for event in &delivery.events {
            if arguments.json {
                let line = json::format_line(event, true)?;
                writeln!(out, "{}", display::json(&line))?;
            } else {
                writeln!(out, "{}", display::event(event))?;
            }
        }
        out.flush()?;
        if arguments.until_caught_up && delivery.caught_up {
            break;
        }
    }
    Ok(())
}
