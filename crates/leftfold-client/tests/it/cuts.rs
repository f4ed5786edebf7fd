//! Connections that break at any byte.
//!
//! **Owns:** what must hold all the same. **Does not know:** servers that end; those are in `restarts`.

use std::sync::Arc;

use futures_util::StreamExt;
use leftfold_client::Client;
use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, Position, Read, StreamName};
use leftfold_store::{EventStore, MemoryStore, ReadError, Subscription};
use tokio::task::JoinSet;

use crate::{
    model::{Ledger, all},
    proxy::{Chance, Proxy},
    running::{in_time, quick, serve},
};

/// Bytes after which a connection breaks: from the middle of the greeting to some messages.
const BYTES: (u64, u64) = (150, 6_000);
/// Bytes after which a connection breaks: one message of 256 KiB of events passes, and all of them together do not.
const WITH_A_MESSAGE: (u64, u64) = (350_000, 700_000);

/// A store in memory, its server behind a proxy, and a client through it.
async fn behind_cuts(seed: u64, bytes: (u64, u64)) -> (Arc<MemoryStore>, Proxy, Client) {
    let store = Arc::new(MemoryStore::new());
    let shared: Arc<dyn EventStore> = store.clone();
    let address = serve(shared, &[]).await;
    let place = address.trim_start_matches("leftfold://").to_owned();
    let proxy = Proxy::before(place, Chance::seeded(seed), bytes).await;
    let client = loop {
        // Connecting is one attempt by design, and it may be cut too.
        if let Ok(client) = Client::connect_with(&proxy.address, quick()).await {
            break client;
        }
    };
    (store, proxy, client)
}

/// Writes past the proxy: `count` events of about 200 bytes.
async fn fill(store: &MemoryStore, stream: &str, count: usize) {
    let event = || {
        let data = format!("{:?}", "x".repeat(150));
        NewEvent::json(EventType::new("Noted").unwrap(), data)
    };
    let stream = StreamName::new(stream).unwrap();
    for _ in 0..count {
        let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event()]);
        store.append(append.unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_eight_writers_were_told_over_breaking_connections_is_true() {
    let (store, proxy, client) = behind_cuts(7, BYTES).await;
    let ledger = Arc::new(Ledger::default());
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (ledger, client) = (Arc::clone(&ledger), client.clone());
        writers.spawn(async move {
            let stream = format!("w-{writer}");
            if writer % 2 == 0 {
                ledger.write_exactly(&client, &stream, 60).await;
            } else {
                ledger.write_anyhow(&client, &stream, 60).await;
            }
        });
    }
    in_time(writers.join_all()).await;
    assert!(proxy.cuts() > 3, "only {} connections broke", proxy.cuts());
    assert_eq!(ledger.acknowledged() + ledger.unknown(), 480);
    proxy.heal();
    // An append whose connection broke may still be under way in the server; one behind it is not before it.
    in_time(ledger.write_anyhow(&client, "last", 1)).await;
    ledger.check(&all(&*store, Read::all()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_over_breaking_connections_has_no_gap_and_no_repetition() {
    let (store, proxy, client) = behind_cuts(11, WITH_A_MESSAGE).await;
    let mut deliveries = client.subscribe(Subscription::after(Position::START));
    let writing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { fill(&store, "a", 10_000).await })
    };
    let mut seen = Vec::new();
    while seen.len() < 10_000 {
        let delivery = in_time(deliveries.next()).await.unwrap().unwrap();
        seen.extend(delivery.events.iter().map(|event| event.position.get()));
    }
    writing.await.unwrap();
    assert!(proxy.cuts() > 2, "only {} connections broke", proxy.cuts());
    assert!(seen.into_iter().eq(1..=10_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_over_breaking_connections_is_the_read_that_began() {
    let (store, proxy, client) = behind_cuts(13, WITH_A_MESSAGE).await;
    for _ in 0..10 {
        fill(&store, "a", 1_000).await;
    }
    for read in [
        Read::all(),
        Read::all().backwards(),
        Read::all().limit(7_000),
    ] {
        let expected = all(&*store, read.clone()).await;
        let mut batches = client.read(read);
        let first = in_time(batches.next()).await.unwrap().unwrap();
        let token = first.token;
        // What comes from here on is not part of the read.
        fill(&store, "b", 5).await;
        let mut seen = first.events;
        while let Some(batch) = in_time(batches.next()).await {
            let batch = batch.unwrap();
            assert_eq!(batch.token, token);
            seen.extend(batch.events);
        }
        assert!(seen == expected, "{} of {}", seen.len(), expected.len());
    }
    assert!(proxy.cuts() > 3, "only {} connections broke", proxy.cuts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_one_stream_that_breaks_says_so() {
    let (store, proxy, client) = behind_cuts(17, (350_000, 350_000)).await;
    for _ in 0..10 {
        fill(&store, "a", 1_000).await;
    }
    let expected = all(&*store, Read::all()).await;
    let mut batches = client.read(Read::stream(StreamName::new("a").unwrap()));
    let mut seen = Vec::new();
    let error = loop {
        match in_time(batches.next()).await.unwrap() {
            Ok(batch) => seen.extend(batch.events),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::Unavailable { .. }), "{error:?}");
    assert!(in_time(batches.next()).await.is_none());
    assert!(!seen.is_empty() && expected.starts_with(&seen));
    drop(proxy);
}
