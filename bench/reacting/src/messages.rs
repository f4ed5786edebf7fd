//! Messages by webhook to a local receiver, beside the requests alone.
//!
//! **Owns:** the messages, the receiver, and its check of their order. **Does not know:** how a webhook retries.
//! **Invariants:** the receiver takes each message once, and those of one stream in their order; otherwise the run fails.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use leftfold::{Outgoing, Recorded, Store, Webhook, model::Position};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::account::{AccountEvent, deposits};

/// Messages that are under way at a time, on both sides.
const PARALLEL: usize = 64;

struct Deposits;

impl Outgoing for Deposits {
    type Event = AccountEvent;
    const NAME: &'static str = "deposits";
    const SOURCE: &'static str = "/bank";

    fn message(&self, event: &Recorded<AccountEvent>) -> Option<(String, Value)> {
        let AccountEvent::Deposited { cents } = event.event;
        let data = json!({ "cents": cents, "nth": event.revision.get() });
        Some(("bank.deposit".to_owned(), data))
    }
}

#[derive(Deserialize)]
struct Message {
    subject: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    nth: u64,
}

/// What the receiver took: the number of the next message of each stream.
#[derive(Default)]
struct Received(Mutex<HashMap<String, u64>>);

async fn receive(State(received): State<Arc<Received>>, body: axum::body::Bytes) -> StatusCode {
    let Ok(message) = serde_json::from_slice::<Message>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut next = received.0.lock().unwrap_or_else(PoisonError::into_inner);
    let next = next.entry(message.subject).or_default();
    if *next != message.data.nth {
        return StatusCode::CONFLICT;
    }
    *next += 1;
    StatusCode::NO_CONTENT
}

async fn receiver() -> anyhow::Result<(Arc<Received>, String)> {
    let received = Arc::new(Received::default());
    let routes = Router::new()
        .route("/hook", post(receive))
        .with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}/hook", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok((received, address))
}

/// Delivers so many messages; messages per second, by webhook and by requests alone.
pub(crate) async fn run(messages: u64) -> anyhow::Result<(f64, f64)> {
    let beside = requests(messages).await?;
    let store = Store::memory();
    deposits(&store, messages).await?;
    let (received, address) = receiver().await?;
    let webhook = Webhook::to(&address)?.signed_by("a secret of the two of us");
    let begun = Instant::now();
    let delivery = store
        .deliver(Deposits, webhook)
        .parallel(PARALLEL)
        .stop_on_failure()
        .spawn();
    delivery.wait_for(Position::new(messages)).await?;
    let elapsed = begun.elapsed().as_secs_f64();
    delivery.stop().await?;
    let taken: u64 = received
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .values()
        .sum();
    anyhow::ensure!(
        taken == messages,
        "{taken} of {messages} messages were taken"
    );
    Ok((messages as f64 / elapsed, beside))
}

/// Sends requests of one size by hand, in order per key: each task has a key of its own.
async fn requests(messages: u64) -> anyhow::Result<f64> {
    let (_, address) = receiver().await?;
    let client = reqwest::Client::new();
    let begun = Instant::now();
    let each = messages / PARALLEL as u64;
    let tasks: Vec<_> = (0..PARALLEL)
        .map(|key| {
            let (client, address) = (client.clone(), address.clone());
            tokio::spawn(async move {
                for nth in 0..each {
                    let body = json!({
                        "specversion": "1.0", "id": "0192f0c4-5a3e-7a55-8a4e-3f0a2b7f7f01", "source": "/bank",
                        "type": "bank.deposit", "subject": format!("account-{key}"), "time": "2026-01-01T00:00:00.000000Z",
                        "datacontenttype": "application/json", "data": { "cents": 1, "nth": nth },
                    });
                    let request = client.post(&address).body(serde_json::to_vec(&body)?);
                    let answer = request.send().await?;
                    anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok((each * PARALLEL as u64) as f64 / begun.elapsed().as_secs_f64())
}
