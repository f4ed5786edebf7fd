//! Servers that go and come back.
//!
//! **Owns:** what appends and subscriptions see of it. **Does not know:** cut connections; those are in `cuts`.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use leftfold_client::Client;
use leftfold_model::{Append, ExpectedRevision, Position, Read, RecordedEvent, StreamName};
use leftfold_store::{AppendError, EventStore, Subscription};
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    model::{Ledger, all, event},
    running::{Running, in_time, quick},
};

/// Events of one writer.
const EVENTS: u64 = 120;

/// Collects what a subscription gives up to a position.
fn follow(
    client: &Client,
    until: tokio::sync::watch::Receiver<u64>,
) -> JoinHandle<Vec<RecordedEvent>> {
    let mut deliveries = client.subscribe(Subscription::after(Position::START));
    let mut until = until;
    tokio::spawn(async move {
        let mut seen = Vec::new();
        let mut through = 0;
        loop {
            tokio::select! {
                delivery = deliveries.next() => {
                    let delivery = delivery.unwrap().unwrap();
                    through = delivery.through.get();
                    seen.extend(delivery.events);
                }
                changed = until.changed() => changed.unwrap(),
            }
            if through >= *until.borrow() {
                return seen;
            }
        }
    })
}

/// Writes and follows while `interrupt` does to the server what it does, three times.
async fn through_restarts(interrupt: impl AsyncFn(&mut Running)) -> Arc<Ledger> {
    let mut running = Running::start().await;
    let client = running.client().await;
    let (until, limit) = tokio::sync::watch::channel(u64::MAX);
    let followed = follow(&client, limit);
    let ledger = Arc::new(Ledger::default());
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let (ledger, client) = (Arc::clone(&ledger), client.clone());
        writers.spawn(async move {
            let stream = format!("w-{writer}");
            if writer < 3 {
                ledger.write_exactly(&client, &stream, EVENTS).await;
            } else {
                ledger.write_anyhow(&client, &stream, EVENTS).await;
            }
        });
    }
    for round in 1..=3 {
        while ledger.acknowledged() < round * 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        interrupt(&mut running).await;
        running.go_on().await;
    }
    in_time(writers.join_all()).await;
    let log = in_time(all(&client, Read::all())).await;
    ledger.check(&log);
    until.send(log.len() as u64).unwrap();
    let seen = in_time(followed).await.unwrap();
    assert_eq!(seen, log, "the subscription has a gap or a repetition");
    ledger
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stops_in_order_leaves_no_outcome_unknown() {
    let ledger = through_restarts(async |running| running.stop().await).await;
    assert_eq!(ledger.unknown(), 0);
    assert_eq!(ledger.acknowledged() as u64, 4 * EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_and_doubles_nothing_acknowledged() {
    let ledger = through_restarts(async |running| running.kill().await).await;
    assert_eq!(
        (ledger.acknowledged() + ledger.unknown()) as u64,
        4 * EVENTS
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_server_an_append_is_certainly_not_written() {
    let mut running = Running::start().await;
    let address = format!("leftfold://{}", running.place());
    let impatient = quick().with_write_timeout(Duration::from_millis(50));
    let client = Client::connect_with(&address, impatient).await.unwrap();
    running.stop().await;
    let stream = StreamName::new("a").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event()]).unwrap();
    let refused = client.append(append).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Unavailable { .. }),
        "{refused:?}"
    );
    running.go_on().await;
    assert_eq!(in_time(client.head()).await.unwrap(), Position::START);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_retry_that_reaches_no_server_is_not_said_to_be_certainly_not_written() {
    let mut running = Running::start().await;
    let address = format!("leftfold://{}", running.place());
    let impatient = quick().with_write_timeout(Duration::from_millis(50));
    let client = Client::connect_with(&address, impatient).await.unwrap();
    let append = |stream: &str| {
        let stream = StreamName::new(stream).unwrap();
        Append::to(stream, ExpectedRevision::Any, vec![event()]).unwrap()
    };
    let (first, other) = (append("a"), append("b"));
    // Its caller gives it up while it may be on its way.
    assert!(client.append(first.clone()).now_or_never().is_none());
    running.kill().await;
    let retry = client.append(first.clone()).await.unwrap_err();
    assert!(!retry.is_definitely_not_written(), "{retry:?}");
    let refused = client.append(other).await.unwrap_err();
    assert!(refused.is_definitely_not_written(), "{refused:?}");

    running.go_on().await;
    let client = running.client().await;
    in_time(client.append(first)).await.unwrap();
    let stored = in_time(all(&client, Read::all())).await;
    assert_eq!(stored.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_and_a_read_wait_for_the_server_to_come_back() {
    let mut running = Running::start().await;
    let client = running.client().await;
    running.stop().await;
    let ledger = Arc::new(Ledger::default());
    let waiting = {
        let (client, ledger) = (client.clone(), Arc::clone(&ledger));
        tokio::spawn(async move { ledger.write_anyhow(&client, "a", 1).await })
    };
    running.go_on().await;
    in_time(waiting).await.unwrap();
    ledger.check(&in_time(all(&client, Read::all())).await);
    assert_eq!(ledger.acknowledged(), 1);
}
