//! Groups of competing consumers over HTTP.
//!
//! **Owns:** the routes of groups. **Does not know:** how events are shared.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{client::TestClient, test_server::TestServer};

const GROUP: &str = "/api/v1/subscriptions/account-1/mailer";

/// A consumer on its stream of events.
struct Consumer {
    body: Incoming,
    text: String,
    /// Where it acknowledges.
    path: String,
}

/// A message of that stream.
#[derive(Debug)]
struct Message {
    event: Option<String>,
    id: String,
    data: Value,
}

impl Consumer {
    async fn join(http: &TestClient, query: &str) -> Self {
        let path = format!("{GROUP}/events?{query}");
        let response = http.send("GET", &path, &[], "").await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut consumer = Self {
            body: response.into_body(),
            text: String::new(),
            path: String::new(),
        };
        let joined = consumer.next().await;
        assert_eq!(joined.event.as_deref(), Some("joined"));
        let id = joined.data["consumer"].as_str().unwrap();
        consumer.path = format!("/api/v1/consumers/{id}");
        consumer
    }

    async fn next(&mut self) -> Message {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = block.lines();
                    lines
                        .find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
                };
                let message = field("data").map(|data| Message {
                    event: field("event"),
                    id: field("id").unwrap_or_default(),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.text = rest.to_owned();
                if let Some(message) = message {
                    return message;
                }
                continue;
            }
            let frame = self
                .body
                .frame()
                .await
                .expect("an end without a word")
                .unwrap();
            self.text += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    async fn ack(&self, http: &TestClient, message: &Message) {
        let path = format!("{}/ack", self.path);
        http.post(&path, &json!({"ids": [message.id]})).await.good();
    }

    async fn nack(&self, http: &TestClient, message: &Message, action: &str) {
        let path = format!("{}/nack", self.path);
        let body = json!({"ids": [message.id], "action": action, "reason": "cannot be handled"});
        http.post(&path, &body).await.good();
    }
}

async fn create(http: &TestClient) -> Value {
    let settings = json!({
        "start": "start", "max_retry_count": 1, "min_checkpoint_count": 1, "checkpoint_after_ms": 10,
    });
    http.send_json("PUT", GROUP, &settings).await.good()
}

/// Asks until the group is as it should be: what consumers say takes a moment to be written down.
async fn until(http: &TestClient, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let group = http.get(GROUP).await.good();
        if is_so(&group) {
            return group;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_group_is_created_shown_changed_listed_and_deleted() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("account-1", &["Opened"]).await;
    let created = create(&http).await;
    assert_eq!(created["settings"]["max_retry_count"], 1);
    assert_eq!(
        (&created["position"], &created["lag"]),
        (&json!(0), &json!(1))
    );
    let again = http.send_json("PUT", GROUP, &json!({})).await;
    again.problem(409, "LF0013");
    let change = json!({"max_retry_count": 5, "consumer_strategy": "Pinned"});
    let changed = http.post(GROUP, &change).await.good();
    assert_eq!(changed["settings"]["consumer_strategy"], "Pinned");
    assert_eq!(changed["settings"]["min_checkpoint_count"], 1);
    for (body, what) in [
        (json!({"consumer_strategy": "Fastest"}), "Fastest"),
        (json!({"read_batch_size": 500}), "read batch size"),
        (json!({"retries": 5}), "retries"),
        (
            json!({"filter": {"on": "type", "prefixes": ["A"]}}),
            "filter",
        ),
    ] {
        let problem = http.post(GROUP, &body).await.problem(400, "LF0001");
        assert!(
            problem["detail"].as_str().unwrap().contains(what),
            "{problem}"
        );
    }
    let listed = http.get("/api/v1/subscriptions").await.good();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    http.send_json("DELETE", GROUP, &json!({})).await.good();
    http.get(GROUP).await.problem(404, "LF0302");
    http.get(&format!("{GROUP}/events"))
        .await
        .problem(404, "LF0302");
    let all = "/api/v1/subscriptions/$all/audit";
    let filter = json!({"filter": {"on": "stream", "prefixes": ["account-"]}});
    let created = http.send_json("PUT", all, &filter).await.good();
    assert_eq!(created["filter"]["prefixes"], json!(["account-"]));
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_acknowledges_retries_and_parks_and_gets_what_is_replayed() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    create(&http).await;
    http.put("account-1", &["Opened", "Poison", "Closed"]).await;
    let mut consumer = Consumer::join(&http, "window=1").await;
    let opened = consumer.next().await;
    assert_eq!(opened.data["event"]["type"], "Opened");
    // The definition of the group stands before it.
    assert_eq!(opened.data["event"]["position"], 2);
    consumer.ack(&http, &opened).await;
    for retries in 0..=1 {
        let poison = consumer.next().await;
        assert_eq!(poison.data["event"]["type"], "Poison");
        assert_eq!(poison.data["retries"], retries);
        consumer.nack(&http, &poison, "retry").await;
    }
    let closed = consumer.next().await;
    assert_eq!(closed.data["event"]["type"], "Closed");
    consumer.ack(&http, &closed).await;
    let group = until(&http, |group| group["position"] == 4).await;
    assert_eq!((&group["parked"], &group["lag"]), (&json!(1), &json!(0)));
    assert_eq!(group["consumers"], 1);
    let parked = http.get(&format!("{GROUP}/parked")).await.good();
    assert_eq!(parked[0]["position"], 3);
    assert_eq!(parked[0]["deliveries"], 2);
    assert!(
        parked[0]["reason"]
            .as_str()
            .unwrap()
            .contains("cannot be handled")
    );
    let replayed = http
        .post(&format!("{GROUP}/replay"), &json!({}))
        .await
        .good();
    assert_eq!(replayed, json!({"events": 1, "done": false}));
    let again = consumer.next().await;
    assert_eq!(again.data["event"]["position"], 3);
    consumer.nack(&http, &again, "park").await;
    let path = format!("{GROUP}/parked");
    let truncated = http.send_json("DELETE", &path, &json!({})).await.good();
    assert_eq!(truncated["events"], 1);
    until(&http, |group| group["parked"] == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_consumer_that_is_not_connected_acknowledges_nothing() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    create(&http).await;
    let stranger = "/api/v1/consumers/6f2f3c52-5f3a-4f0e-8c3f-0d9c1a1f2b3c/ack";
    http.post(stranger, &json!({"ids": []}))
        .await
        .problem(404, "LF0302");
    let consumer = Consumer::join(&http, "").await;
    let bad = http
        .post(&format!("{}/ack", consumer.path), &json!({"ids": ["x"]}))
        .await;
    bad.problem(400, "LF0001");
    let path = format!("{GROUP}/events?window=0");
    http.get(&path).await.problem(400, "LF0001");
    let path = consumer.path.clone();
    drop(consumer);
    until(&http, |group| group["consumers"] == 0).await;
    http.post(&format!("{path}/ack"), &json!({"ids": []}))
        .await
        .problem(404, "LF0302");
    server.stop().await;
}
