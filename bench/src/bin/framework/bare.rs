//! What the framework is measured beside: reads and appends of the store itself.
//!
//! **Owns:** a load and an append as one would write them by hand. **Does not know:** the framework.
//! **Invariants:** decodes the same data into the same type.

use std::{sync::Arc, time::Instant};

use futures_util::StreamExt;
use leftfold::{
    Store,
    model::{Append, EventType, ExpectedRevision, NewEvent, Read, Revision, StreamName},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Amount {
    cents: u64,
}

/// Reads a stream, decodes each event, adds up.
pub(crate) async fn load(store: &Store, account: &str) -> anyhow::Result<()> {
    let stream = StreamName::new(format!("account-{account}"))?;
    let mut balance = 0;
    let mut batches = store.event_store().read(Read::stream(stream));
    while let Some(batch) = batches.next().await {
        for event in batch?.events {
            let amount: Amount = serde_json::from_slice(&event.data)?;
            match event.event_type.as_str() {
                "MoneyDeposited" => balance += amount.cents,
                _ => balance -= amount.cents,
            }
        }
    }
    anyhow::ensure!(balance > 0);
    Ok(())
}

/// Streams of each caller, so that histories stay short.
pub(crate) const STREAMS_EACH: u64 = 50;

/// Appends under an exact revision, each caller to streams of its own.
pub(crate) async fn appends(store: &Store, callers: u64, seconds: f64) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let events = Arc::clone(store.event_store());
            tokio::spawn(async move {
                let mut count = 0;
                while begun.elapsed().as_secs_f64() < seconds {
                    let (nth, round) = (count % STREAMS_EACH, count / STREAMS_EACH);
                    let stream = StreamName::new(format!("account-{caller}-{nth}"))?;
                    let expected = match round {
                        0 => ExpectedRevision::NoStream,
                        round => ExpectedRevision::Exact(Revision::new(round - 1)),
                    };
                    let event = NewEvent::json(EventType::new("MoneyDeposited")?, r#"{"cents":1}"#);
                    events
                        .append(Append::to(stream, expected, vec![event])?)
                        .await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
