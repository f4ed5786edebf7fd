//! `leftfold consumers`: listing consumers and their parked events, and requesting retries and skips.
//!
//! **Owns:** the output. **Does not know:** what a consumer does with its events.
//! **Invariants:** a request about parked events is stored; the consumer's own process acts on it.

use std::io::Write;

use leftfold_model::Position;
use leftfold_server::json::time_text;
use leftfold_store::consumers::{
    ConsumerError, ConsumerName, ConsumerStatus, Consumers, LIST_MAX, ListParked, ParkedEvent,
    Resolution,
};
use serde_json::{Value, json};

use super::{output, printer::Printer};
use crate::{
    cli::{self, ConsumersCommand},
    display,
    exit_code::UsageError,
    open,
};

pub(crate) async fn run(arguments: cli::Consumers) -> anyhow::Result<()> {
    let store = match arguments.command {
        ConsumersCommand::List
        | ConsumersCommand::Show { .. }
        | ConsumersCommand::Parked { .. } => open::existing(&arguments.data).await?,
        _ => open::existing_for_writing(&arguments.data).await?,
    };
    let consumers = store.consumers();
    let mut out = Printer {
        json: arguments.json,
        out: output(),
    };
    match arguments.command {
        ConsumersCommand::List => list(&*consumers, &mut out).await?,
        ConsumersCommand::Show { consumer } => {
            let status = known(&*consumers, &consumer).await?;
            out.print(|| status_json(&status), || status_text(&status))?;
        }
        ConsumersCommand::Parked { consumer, key } => {
            known(&*consumers, &consumer).await?;
            parked(&*consumers, &consumer, key, &mut out).await?;
        }
        ConsumersCommand::Retry(event) => {
            let at = Position::new(event.position);
            let retry = Resolution::Retry;
            consumers.resolve(&event.consumer, at, retry).await?;
            let text = || format!("position {at} will be retried");
            out.print(|| json!({ "retry": at.get() }), text)?;
        }
        ConsumersCommand::Skip(event) => {
            let at = Position::new(event.position);
            let skip = Resolution::Skip;
            consumers.resolve(&event.consumer, at, skip).await?;
            let text = || format!("position {at} will be skipped");
            out.print(|| json!({ "skip": at.get() }), text)?;
        }
        ConsumersCommand::Reset { consumer, to } => {
            let to = Position::new(to);
            let head = store.head().await?;
            if to > head {
                let text =
                    format!("position {to} is behind the end of the log, which is at {head}");
                return Err(UsageError(text).into());
            }
            consumers.reset(&consumer, to).await?;
            let text = || format!("checkpoint set, position {to}");
            out.print(|| json!({ "position": to.get() }), text)?;
        }
        ConsumersCommand::Remove { consumer } => {
            known(&*consumers, &consumer).await?;
            consumers.remove(&consumer).await?;
            let name = consumer.as_str();
            let text = || format!("{} removed", display::escape(name));
            out.print(|| json!({ "removed": name }), text)?;
        }
    }
    out.out.flush()?;
    Ok(store.close().await?)
}

async fn list(consumers: &dyn Consumers, out: &mut Printer) -> anyhow::Result<()> {
    each(consumers, &mut |status| {
        out.print(|| status_json(status), || status_text(status))?;
        Ok(())
    })
    .await
}

/// Visits every consumer.
pub(super) async fn each(
    consumers: &dyn Consumers,
    visit: &mut (dyn FnMut(&ConsumerStatus) -> anyhow::Result<()> + Send),
) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = consumers.list(after.as_ref()).await?;
        page.iter().try_for_each(&mut *visit)?;
        match page.last() {
            Some(last) if page.len() >= LIST_MAX => after = Some(last.consumer.clone()),
            _ => return Ok(()),
        }
    }
}

async fn parked(
    consumers: &dyn Consumers,
    consumer: &ConsumerName,
    key: Option<String>,
    out: &mut Printer,
) -> anyhow::Result<()> {
    let mut list = ListParked {
        key,
        ..ListParked::default()
    };
    loop {
        let page = consumers.parked(consumer, &list).await?;
        for event in &page {
            out.print(|| parked_json(event), || parked_text(event))?;
        }
        match page.last() {
            Some(last) if page.len() >= LIST_MAX => list.after = last.position,
            _ => return Ok(()),
        }
    }
}

async fn known(consumers: &dyn Consumers, name: &ConsumerName) -> anyhow::Result<ConsumerStatus> {
    match consumers.status(name).await? {
        Some(status) => Ok(status),
        None => Err(ConsumerError::NotFound {
            consumer: name.clone(),
        }
        .into()),
    }
}

fn status_text(status: &ConsumerStatus) -> String {
    let holder = match &status.holder {
        Some((holder, _)) => format!("claimed by {}", display::escape(holder)),
        None => "not claimed".to_owned(),
    };
    format!(
        "{:>10}  {}  parked {}  timers {}  term {}  {holder}  {}",
        status.position,
        time_text(status.time),
        status.parked,
        status.timers,
        status.term,
        display::escape(status.consumer.as_str()),
    )
}

fn status_json(status: &ConsumerStatus) -> Value {
    json!({ "consumer": status.consumer.as_str(), "position": status.position.get(), "time": time_text(status.time),
        "parked": status.parked, "timers": status.timers, "term": status.term,
        "holder": status.holder.as_ref().map(|(holder, _)| holder) })
}

fn parked_text(event: &ParkedEvent) -> String {
    let request = match event.resolution {
        Some(Resolution::Retry) => "  (to be retried)",
        Some(Resolution::Skip) => "  (to be skipped)",
        None => "",
    };
    format!(
        "{:>10}  {}  {}  attempts {}  {}{request}",
        event.position,
        time_text(event.time),
        display::escape(&event.key),
        event.attempts,
        display::escape(&event.reason),
    )
}

fn parked_json(event: &ParkedEvent) -> Value {
    let request = event.resolution.map(|resolution| match resolution {
        Resolution::Retry => "retry",
        Resolution::Skip => "skip",
    });
    json!({ "position": event.position.get(), "key": event.key, "reason": event.reason, "attempts": event.attempts,
        "time": time_text(event.time), "request": request })
}
