//! Messages to a real server of NATS JetStream that is killed, started again, and set up wrongly.
//!
//! **Owns:** the tests of `Store::deliver` by JetStream. **Does not know:** how the server stores streams.
//! **Invariants:** what was delivered is read back from the server itself.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use leftfold::{
    Backoff, Follow, InvalidJetStream, JetStream, ListenerHandle, Outgoing, Store,
    async_nats::{
        ConnectOptions,
        jetstream::{self, consumer::pull, context::Context, stream},
    },
    model::Position,
    stores::consumers::ConsumerName,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    account::{AccountEvent, BankAccount},
    messages::{Deposits, Movements},
    nats_server::NatsServer,
};

const SOON: Duration = Duration::from_secs(60);
const ACCOUNTS: u64 = 10;

/// Connects to a server that may be gone for a while.
async fn connect(server: &NatsServer) -> Context {
    let options = ConnectOptions::new()
        .retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(20));
    let client = options.connect(server.address()).await.unwrap();
    let mut context = jetstream::new(client);
    context.set_timeout(Duration::from_millis(500));
    context
}

/// A context of a stream that was created.
async fn with_stream(server: &NatsServer, name: &str, subject: &str) -> Context {
    let context = connect(server).await;
    let config = stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.into()],
        ..stream::Config::default()
    };
    // A server that was just started may not answer at once.
    let create = async {
        while context.create_stream(config.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, create).await.unwrap();
    context
}

async fn delivery(store: &Store, context: Context) -> Follow<impl leftfold::Listener> {
    let broker = JetStream::open(context, "BANK", "bank").await.unwrap();
    let quick = Backoff::default()
        .initial(Duration::from_millis(5))
        .max(Duration::from_millis(100));
    store
        .deliver(Deposits, broker)
        .retry(quick.attempts(10_000))
}

async fn deposit(store: &Store, id: &str, amount: u64) -> Position {
    let accounts = store.repository::<BankAccount>();
    let done = accounts
        .execute(id, |account| account.deposit(amount))
        .await;
    done.unwrap().position.unwrap()
}

async fn reach(delivery: &ListenerHandle, position: Position) {
    let reached = timeout(SOON, delivery.wait_for(position)).await;
    reached.unwrap().unwrap();
}

struct Stored {
    subject: String,
    id: String,
    content_type: String,
    body: Value,
}

/// What the stream holds.
async fn stored(context: &Context) -> Vec<Stored> {
    let mut stream = context.get_stream("BANK").await.unwrap();
    let count = stream.info().await.unwrap().state.messages;
    let consumer = stream
        .create_consumer(pull::OrderedConfig::default())
        .await
        .unwrap();
    let messages = consumer
        .messages()
        .await
        .unwrap()
        .take(usize::try_from(count).unwrap());
    let read = messages.map(|message| {
        let message = message.unwrap();
        let headers = message.headers.as_ref().unwrap();
        let header = |name: &str| headers.get(name).unwrap().to_string();
        Stored {
            subject: message.subject.to_string(),
            id: header("Nats-Msg-Id"),
            content_type: header("Content-Type"),
            body: serde_json::from_slice(&message.payload).unwrap(),
        }
    });
    timeout(SOON, read.collect()).await.unwrap()
}

#[tokio::test]
async fn a_message_is_a_cloud_event_on_the_subject_of_its_stream_with_the_id_of_its_event() {
    let server = NatsServer::start();
    let context = with_stream(&server, "BANK", "bank.>").await;
    let store = Store::memory();
    let last = deposit(&store, "a.nn *", 7).await;
    let delivery = delivery(&store, context.clone()).await.spawn();
    reach(&delivery, last).await;
    delivery.stop().await.unwrap();
    let events = store.events::<AccountEvent>().collect().await.unwrap();
    let stored = stored(&context).await;
    let [message] = &stored[..] else {
        panic!("{} messages", stored.len());
    };
    assert_eq!(message.subject, "bank.account-a%2Enn%20%2A");
    assert!(!message.id.is_empty());
    assert_eq!(
        message.content_type,
        "application/cloudevents+json; charset=utf-8"
    );
    let expected = json!({
        "specversion": "1.0", "id": events[0].id.to_string(), "source": "/bank", "type": "bank.deposit",
        "subject": "account-a.nn *", "time": message.body["time"], "datacontenttype": "application/json",
        "data": { "account": "a.nn *", "amount": 7 },
    });
    assert_eq!(message.body, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_stored_once_and_in_order_though_the_broker_is_killed_and_gone_for_a_while() {
    let mut server = NatsServer::start();
    let context = with_stream(&server, "BANK", "bank.>").await;
    let store = Store::memory();
    let delivery = delivery(&store, context.clone()).await.parallel(8).spawn();
    let (mut last, mut retries) = (Position::START, 0);
    for amount in 1..=600 {
        last = deposit(&store, &(amount % ACCOUNTS).to_string(), amount).await;
        if amount % 200 == 100 {
            // Some are stored, others are under way.
            reach(&delivery, Position::new(last.get() - 50)).await;
            server.kill();
            retries = delivery.status().await.unwrap().retries;
        }
        if amount % 200 == 150 {
            let failing = async {
                while delivery.status().await.unwrap().retries <= retries {
                    tokio::task::yield_now().await;
                }
            };
            timeout(SOON, failing).await.unwrap();
            server.restart();
        }
    }
    reach(&delivery, last).await;
    let status = delivery.status().await.unwrap();
    assert_eq!(status.parked, 0);
    delivery.stop().await.unwrap();
    let mut ids: Vec<_> = stored(&context)
        .await
        .into_iter()
        .map(|one| one.body["id"].as_str().unwrap().to_owned())
        .collect();
    let in_order = stored(&context).await;
    let events = store.events::<AccountEvent>().collect().await.unwrap();
    let mut expected: Vec<_> = events.iter().map(|event| event.id.to_string()).collect();
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected, "each event has one message");
    let mut newest = BTreeMap::new();
    for message in in_order {
        let amount = message.body["data"]["amount"].as_u64().unwrap();
        let before = newest.insert(message.subject.clone(), amount);
        assert!(
            before < Some(amount),
            "{}: {amount} behind {before:?}",
            message.subject
        );
    }
    assert_eq!(newest.len() as u64, ACCOUNTS);
}

#[tokio::test]
async fn messages_that_are_delivered_once_more_are_stored_once() {
    let server = NatsServer::start();
    let context = with_stream(&server, "BANK", "bank.*").await;
    let store = Store::memory();
    let mut last = Position::START;
    for amount in 1..=20 {
        last = deposit(&store, "ann", amount).await;
    }
    for _ in 0..2 {
        let delivery = delivery(&store, context.clone()).await.spawn();
        reach(&delivery, last).await;
        delivery.stop().await.unwrap();
        assert_eq!(stored(&context).await.len(), 20);
        let name = ConsumerName::new(Deposits::NAME).unwrap();
        let consumers = store.event_store().consumers();
        consumers.reset(&name, Position::START).await.unwrap();
    }
}

#[tokio::test]
async fn several_messages_of_one_event_are_stored_each_in_one_stream() {
    let server = NatsServer::start();
    let context = with_stream(&server, "BANK", "bank.>").await;
    let store = Store::memory();
    let last = deposit(&store, "ann", 7).await;
    let first = delivery(&store, context.clone()).await.spawn();
    reach(&first, last).await;
    // Other data on the same subject, and the same data on another.
    let same = JetStream::open(context.clone(), "BANK", "bank").await;
    let second = store.deliver(Movements, same.unwrap()).spawn();
    reach(&second, last).await;
    second.stop().await.unwrap();
    let name = ConsumerName::new(Movements::NAME).unwrap();
    let consumers = store.event_store().consumers();
    consumers.reset(&name, Position::START).await.unwrap();
    let other = JetStream::open(context.clone(), "BANK", "bank.audit").await;
    let third = store.deliver(Movements, other.unwrap()).spawn();
    reach(&third, last).await;
    for delivery in [first, third] {
        delivery.stop().await.unwrap();
    }
    let stored = stored(&context).await;
    let kinds: Vec<_> = stored
        .iter()
        .map(|message| (&*message.subject, message.body["type"].as_str().unwrap()))
        .collect();
    let expected = [
        ("bank.account-ann", "bank.deposit"),
        ("bank.account-ann", "bank.movement"),
        ("bank.audit.account-ann", "bank.movement"),
    ];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn a_stream_that_cannot_take_the_messages_is_refused_by_name() {
    let server = NatsServer::start();
    let context = with_stream(&server, "BANK", "bank.account-1").await;
    let refused = async |stream: &str, prefix: &str| {
        let refused = JetStream::open(context.clone(), stream, prefix).await;
        refused.unwrap_err().to_string()
    };
    assert_eq!(
        refused("SHOP", "shop").await,
        "JetStream stream missing: \"SHOP\"; expected one that exists; create it first"
    );
    assert_eq!(
        refused("BANK", "bank").await,
        "JetStream stream \"BANK\" does not capture bank.*: it captures [\"bank.account-1\"]; add bank.* to its subjects"
    );
    assert_eq!(
        refused("BANK", "bank.>").await,
        "subject prefix not valid: \"bank.>\"; expected tokens joined by dots, without spaces, `*` and `>`"
    );
    let silent = stream::Config {
        name: "SILENT".to_owned(),
        subjects: vec!["silent.>".into()],
        no_ack: true,
        ..stream::Config::default()
    };
    context.create_stream(silent).await.unwrap();
    assert_eq!(
        refused("SILENT", "silent").await,
        "JetStream stream \"SILENT\" acknowledges nothing; expected one with no_ack = false"
    );
    let unnamed = JetStream::open(context.clone(), "a b", "bank").await;
    assert!(
        matches!(unnamed, Err(InvalidJetStream::Unavailable { .. })),
        "{unnamed:?}"
    );
}

#[tokio::test]
async fn a_message_that_the_stream_refuses_is_parked_with_the_reason_and_delivered_later() {
    let server = NatsServer::start();
    let context = with_stream(&server, "BANK", "bank.>").await;
    let store = Store::memory();
    let follow = delivery(&store, context.clone()).await;
    let delivery = follow.retry(Backoff::default().attempts(1)).spawn();
    context.delete_stream("BANK").await.unwrap();
    // Another stream takes the subject now.
    with_stream(&server, "OTHER", "bank.>").await;
    let last = deposit(&store, "ann", 1).await;
    reach(&delivery, last).await;
    let parked = timeout(SOON, async {
        loop {
            let parked = delivery.parked(Position::START).await.unwrap();
            if let [parked] = &parked[..] {
                return parked.clone();
            }
            tokio::task::yield_now().await; // it is written down with the next checkpoint
        }
    });
    let parked = parked.await.unwrap();
    let expected =
        "message not acknowledged by JetStream stream \"BANK\" on subject \"bank.account-ann\"";
    assert!(parked.reason.starts_with(expected), "{}", parked.reason);
    assert!(
        parked.reason.contains("expected stream does not match"),
        "{}",
        parked.reason
    );
    context.delete_stream("OTHER").await.unwrap();
    with_stream(&server, "BANK", "bank.>").await;
    delivery.retry(parked.position).await.unwrap();
    let delivered = async {
        while delivery.status().await.unwrap().parked > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, delivered).await.unwrap();
    assert_eq!(stored(&context).await.len(), 1);
    delivery.stop().await.unwrap();
}
