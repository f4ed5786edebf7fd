//! Listeners beside a bare subscription.
//!
//! **Owns:** a subscription by hand, a listener that does nothing, and one that waits. **Does not know:** views.
//! **Invariants:** each side decodes every event into the same type; a listener ends with its checkpoint written.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use leftfold::{
    HandlerError, Listener, Recorded, Store, model::Position, stores::consumers::ConsumerName,
};

use crate::account::{AccountEvent, deposits};

/// Reads the log as a subscriber would by hand; events per second.
pub(crate) async fn subscription(store: &Store) -> anyhow::Result<f64> {
    let head = store.event_store().head().await?;
    let begun = Instant::now();
    let subscription = store.events::<AccountEvent>().subscription()?;
    let mut deliveries = store.event_store().subscribe(subscription);
    let (mut reached, mut cents) = (Position::START, 0);
    while reached < head {
        let Some(delivery) = deliveries.next().await else {
            anyhow::bail!("store is closed");
        };
        let delivery = delivery?;
        for event in &delivery.events {
            for value in Recorded::<AccountEvent>::of(event)? {
                let AccountEvent::Deposited { cents: more } = value.event;
                cents += more;
            }
        }
        reached = delivery.through;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    anyhow::ensure!(cents > 0);
    Ok(head.get() as f64 / elapsed)
}

struct Nothing;

impl Listener for Nothing {
    type Event = AccountEvent;
    const NAME: &'static str = "nothing";

    async fn on(&self, _: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// Runs a listener that does nothing from the first event on; events per second.
pub(crate) async fn does_nothing(store: &Store) -> anyhow::Result<f64> {
    let head = store.event_store().head().await?;
    let name = ConsumerName::new(Nothing::NAME)?;
    let consumers = store.event_store().consumers();
    if consumers.status(&name).await?.is_some() {
        consumers.reset(&name, Position::START).await?;
    }
    let begun = Instant::now();
    let listener = store.follow(Nothing).spawn();
    listener.wait_for(head).await?;
    listener.stop().await?;
    Ok(head.get() as f64 / begun.elapsed().as_secs_f64())
}

struct Waiting;

impl Listener for Waiting {
    type Event = AccountEvent;
    const NAME: &'static str = "waiting";

    async fn on(&self, _: &Recorded<AccountEvent>) -> Result<(), HandlerError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

/// Handles events that take a millisecond each, of so many keys at a time; events per second.
pub(crate) async fn waits(workers: usize) -> anyhow::Result<f64> {
    const EVENTS: u64 = 1_600;
    let store = Store::memory();
    deposits(&store, EVENTS).await?;
    let begun = Instant::now();
    let listener = store.follow(Waiting).parallel(workers).spawn();
    listener.wait_for(Position::new(EVENTS)).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    listener.stop().await?;
    Ok(EVENTS as f64 / elapsed)
}
