//! Messages to receivers that answer late, twice, elsewhere, too much, or never.
//!
//! **Owns:** the tests of `Store::deliver` by webhook. **Does not know:** the HTTP client.
//! **Invariants:** the receiver is one of a few lines, so that it can misbehave in every way.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use leftfold::{
    Backoff, Follow, ListenerHandle, Store, Webhook,
    model::{EventId, Position},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    account::{AccountEvent, BankAccount},
    messages::{Deposits, Movements},
};

const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Copy)]
enum Answer {
    Status(&'static str),
    Redirect,
    /// An error, and ten megabytes of why.
    Endless,
    /// The connection ends before an answer.
    Lost,
    Never,
}

#[derive(Debug, Clone)]
struct Received {
    head: String,
    body: Value,
}

/// A receiver that answers as it is told, and then well.
#[derive(Clone, Default)]
struct Receiver {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> (Self, String) {
        let receiver = Self::default();
        receiver.answers.lock().unwrap().extend(answers);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/hook", listener.local_addr().unwrap());
        let serving = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().serve(connection));
            }
        });
        (receiver, address)
    }

    async fn serve(self, mut connection: TcpStream) {
        while let Some(received) = request(&mut connection).await {
            self.received.lock().unwrap().push(received);
            let answer = self.answers.lock().unwrap().pop_front();
            let status = match answer.unwrap_or(Answer::Status("200 OK")) {
                Answer::Status(status) => format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"),
                Answer::Redirect => {
                    "HTTP/1.1 307 Temporary Redirect\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
                Answer::Endless => {
                    let why = "x".repeat(10_000_000);
                    format!("HTTP/1.1 500 No\r\ncontent-length: {}\r\n\r\n{why}", why.len())
                }
                Answer::Lost => return,
                Answer::Never => std::future::pending().await,
            };
            if connection.write_all(status.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn amounts(&self) -> Vec<u64> {
        let received = self.received.lock().unwrap();
        let amount = |one: &Received| one.body["data"]["amount"].as_u64().unwrap();
        received.iter().map(amount).collect()
    }

    fn first(&self) -> Received {
        self.received.lock().unwrap()[0].clone()
    }
}

/// Reads one request; `None` if there is no further one.
async fn request(connection: &mut TcpStream) -> Option<Received> {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.unwrap().parse().unwrap() {
                let body = serde_json::from_str(body).unwrap();
                return Some(Received { head: lower, body });
            }
        }
        let mut part = [0; 4096];
        match connection.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(bytes) => read.extend_from_slice(&part[..bytes]),
        }
    }
}

fn delivery(store: &Store, address: &str) -> Follow<impl leftfold::Listener> {
    let webhook = Webhook::to(address).unwrap().signed_by("a shared secret");
    let webhook = webhook.timeout(Duration::from_millis(500)).unwrap();
    let quick = Backoff::default()
        .initial(Duration::from_millis(1))
        .attempts(3);
    store.deliver(Deposits, webhook).retry(quick)
}

async fn deposit(store: &Store, id: &str, amount: u64) -> Position {
    let accounts = store.repository::<BankAccount>();
    let done = accounts
        .execute(id, |account| account.deposit(amount))
        .await;
    done.unwrap().position.unwrap()
}

fn id_of(head: &str) -> &str {
    let mut lines = head.lines();
    let id = lines.find_map(|line| line.strip_prefix("webhook-id: "));
    id.unwrap()
}

async fn reach(delivery: &ListenerHandle, position: Position) {
    let reached = timeout(SOON, delivery.wait_for(position)).await;
    reached.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_is_a_signed_cloud_event_with_the_id_of_its_event() {
    let (receiver, address) = Receiver::start([]).await;
    let store = Store::memory();
    let last = deposit(&store, "ann", 7).await;
    let delivery = delivery(&store, &address).spawn();
    reach(&delivery, last).await;
    delivery.stop().await.unwrap();
    let event = store
        .events::<AccountEvent>()
        .collect()
        .await
        .unwrap()
        .remove(0);
    let Received { head, body } = receiver.first();
    assert!(head.starts_with("post /hook http/1.1"), "{head}");
    for line in [
        "content-type: application/cloudevents+json; charset=utf-8".to_owned(),
        "webhook-signature: v1,".to_owned(),
        "webhook-timestamp: ".to_owned(),
    ] {
        assert!(head.contains(&line), "{line} is not in {head}");
    }
    let id: EventId = id_of(&head).parse().unwrap();
    assert_ne!(id, event.id);
    let expected = json!({
        "specversion": "1.0", "id": event.id.to_string(), "source": "/bank", "type": "bank.deposit",
        "subject": "account-ann", "time": body["time"], "datacontenttype": "application/json",
        "data": { "account": "ann", "amount": 7 },
    });
    assert_eq!(body, expected);
    let time = body["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
}

/// A receiver takes requests with one id for repetitions.
#[tokio::test]
async fn several_messages_of_one_event_have_ids_of_their_own_for_the_receiver() {
    let (receiver, address) = Receiver::start([Answer::Lost]).await;
    let store = Store::memory();
    let last = deposit(&store, "ann", 7).await;
    let first = delivery(&store, &address).spawn();
    reach(&first, last).await;
    let webhook = Webhook::to(&address).unwrap();
    let second = store.deliver(Movements, webhook).spawn();
    reach(&second, last).await;
    for delivery in [first, second] {
        delivery.stop().await.unwrap();
    }
    let received = receiver.received.lock().unwrap().clone();
    let ids: Vec<_> = received.iter().map(|one| id_of(&one.head)).collect();
    let [lost, repeated, other] = ids[..] else {
        panic!("{ids:?}");
    };
    assert_eq!(lost, repeated, "a repetition has the same id");
    assert_ne!(repeated, other, "another message has another id");
}

#[tokio::test]
async fn whatever_a_receiver_answers_a_message_comes_until_it_is_taken_and_in_order() {
    let hostile = [
        Answer::Status("503 Busy"),
        Answer::Lost,
        Answer::Status("204 Taken"),
        Answer::Redirect,
        Answer::Endless,
        Answer::Status("202 Taken"),
        Answer::Never,
        Answer::Status("404 Gone"),
    ];
    let (receiver, address) = Receiver::start(hostile).await;
    let store = Store::memory();
    let delivery = delivery(&store, &address).spawn();
    let mut last = Position::START;
    for amount in 1..=4 {
        last = deposit(&store, "ann", amount).await;
    }
    reach(&delivery, last).await;
    delivery.stop().await.unwrap();
    assert_eq!(receiver.amounts(), [1, 1, 1, 2, 2, 2, 3, 3, 3, 4]);
    let received = receiver.received.lock().unwrap().clone();
    assert_eq!(
        received[0].body["id"], received[2].body["id"],
        "a repetition has the same id"
    );
    assert!(
        received
            .iter()
            .all(|one| one.head.starts_with("post /hook ")),
        "a redirection was followed"
    );
}

#[tokio::test]
async fn a_receiver_that_refuses_for_good_parks_its_stream_with_the_reason() {
    let refusals = [Answer::Status("400 No"); 3];
    let (receiver, address) = Receiver::start(refusals).await;
    let store = Store::memory();
    let delivery = delivery(&store, &address).spawn();
    deposit(&store, "ann", 1).await;
    let refused = deposit(&store, "ann", 2).await;
    reach(&delivery, refused).await;
    let last = deposit(&store, "bob", 3).await;
    reach(&delivery, last).await;
    assert_eq!(receiver.amounts(), [1, 1, 1, 3]);
    let parked = timeout(SOON, async {
        loop {
            let parked = delivery.parked(Position::START).await.unwrap();
            if parked.len() == 2 {
                return parked;
            }
            tokio::task::yield_now().await; // they are written down with the next checkpoint
        }
    });
    let parked = parked.await.unwrap();
    assert_eq!(
        parked[0].reason,
        "webhook answered 400 Bad Request: \"\"; expected 2xx"
    );
    delivery.retry(parked[0].position).await.unwrap();
    timeout(SOON, async {
        while delivery.status().await.unwrap().parked > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(receiver.amounts(), [1, 1, 1, 3, 1, 2]);
    delivery.stop().await.unwrap();
}
