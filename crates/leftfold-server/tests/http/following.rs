//! Subscriptions by server-sent events.
//!
//! **Owns:** what arrives, and where it goes on. **Does not know:** other protocols.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::{client::TestClient, test_server::TestServer};

/// A subscription as a browser reads it.
struct Source {
    body: Incoming,
    text: String,
    /// The id of the first message: where it begins.
    begin: String,
    /// Milliseconds before a browser reconnects.
    retry: u64,
}

/// What was received, field by field.
#[derive(Debug, Default, PartialEq)]
struct Message {
    event: Option<String>,
    id: Option<String>,
    data: Option<Value>,
}

impl Source {
    async fn open(http: &TestClient, query: &str, last: Option<&str>) -> Self {
        let headers: Vec<_> = last.map(|id| ("last-event-id", id)).into_iter().collect();
        let path = format!("/api/v1/subscribe?{query}");
        let response = http.send("GET", &path, &headers, "").await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let mut source = Self {
            body: response.into_body(),
            text: String::new(),
            begin: String::new(),
            retry: 0,
        };
        let first = source.next().await.unwrap();
        assert_eq!((&first.event, &first.data), (&None, &None));
        source.begin = first.id.unwrap();
        source
    }

    /// The next message that says something; `None`: the server ended it.
    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let message = parse(block);
                let retry = block.lines().find_map(|line| line.strip_prefix("retry: "));
                self.retry = retry.map_or(self.retry, |delay| delay.parse().unwrap());
                self.text = rest.to_owned();
                if message != Message::default() {
                    return Some(message);
                }
                continue;
            }
            let frame = self.body.frame().await?.unwrap();
            self.text += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    /// The types of the next events; other messages between them are skipped.
    async fn events(&mut self, count: usize) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let message = self.next().await.unwrap();
            if let (None, Some(id), Some(data)) = (message.event, message.id, message.data) {
                seen.push((id, data["type"].as_str().unwrap().to_owned()));
            }
        }
        seen
    }
}

fn parse(block: &str) -> Message {
    let mut message = Message::default();
    let mut data = Vec::new();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("event", value)) => message.event = Some(value.to_owned()),
            Some(("id", value)) => message.id = Some(value.to_owned()),
            Some(("data", value)) => data.push(value),
            _ => {}
        }
    }
    if !data.is_empty() {
        message.data = Some(serde_json::from_str(&data.join("\n")).unwrap());
    }
    message
}

fn pairs(seen: &[(String, String)]) -> Vec<(&str, &str)> {
    seen.iter()
        .map(|(id, kind)| (id.as_str(), kind.as_str()))
        .collect()
}

#[tokio::test]
async fn a_subscription_gives_what_is_stored_says_so_and_then_what_is_new() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two"]).await;
    let mut source = Source::open(&http, "", None).await;
    assert_eq!(pairs(&source.events(2).await), [("1", "One"), ("2", "Two")]);
    let current = source.next().await.unwrap();
    assert_eq!(current.event.as_deref(), Some("caught-up"));
    assert_eq!(
        (current.id.as_deref(), current.data),
        (Some("2"), Some(json!({"position": 2})))
    );
    http.put("b", &["Three"]).await;
    assert_eq!(pairs(&source.events(1).await), [("3", "Three")]);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_goes_on_behind_the_last_id() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two", "Three"]).await;
    let mut source = Source::open(&http, "after=0", None).await;
    assert_eq!(pairs(&source.events(1).await), [("1", "One")]);
    drop(source);
    let mut source = Source::open(&http, "after=0", Some("1")).await;
    assert_eq!(source.begin, "1");
    assert_eq!(
        pairs(&source.events(2).await),
        [("2", "Two"), ("3", "Three")]
    );
    let mut new = Source::open(&http, "after=end", None).await;
    assert_eq!(
        new.begin, "3",
        "who comes back before anything came begins here"
    );
    assert_eq!(
        new.next().await.unwrap().event.as_deref(),
        Some("caught-up")
    );
    http.put("a", &["Four"]).await;
    assert_eq!(pairs(&new.events(1).await), [("4", "Four")]);
    server.stop().await;
}

#[tokio::test]
async fn a_filtered_subscription_tells_how_far_it_searched() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let tagged = json!({"type": "Wanted", "tags": ["x"]});
    http.post("/api/v1/streams/cart-1/events", &tagged)
        .await
        .good();
    http.put("order-1", &["Other", "Other"]).await;
    let mut source = Source::open(&http, "type=Wanted&tag=x&category=cart", None).await;
    assert_eq!(pairs(&source.events(1).await), [("1", "Wanted")]);
    let current = source.next().await.unwrap();
    assert_eq!(
        (current.event.as_deref(), current.id.as_deref()),
        (Some("caught-up"), Some("3"))
    );
    server.stop().await;
}

#[tokio::test]
async fn subscriptions_say_that_the_server_stops_and_are_not_counted_any_more() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let source = Source::open(&http, "", None).await;
    let open = http.get("/metrics").await.text;
    assert!(open.contains("leftfold_subscriptions 1"), "{open}");
    drop(source);
    let mut other = Source::open(&http, "stream=a", None).await;
    let current = other.next().await.unwrap();
    assert_eq!(current.event.as_deref(), Some("caught-up"));
    server.stop().await;
    let notice = other.next().await.unwrap();
    assert_eq!(notice.event.as_deref(), Some("problem"), "{notice:?}");
    let problem = notice.data.unwrap();
    assert_eq!(problem["type"], "/errors/LF0007");
    assert!(other.next().await.is_none());
}

#[tokio::test]
async fn a_subscription_to_a_stream_that_is_deleted_for_good_says_why_it_ends() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One"]).await;
    let mut source = Source::open(&http, "stream=a&after=1", None).await;
    source.next().await.unwrap();
    http.ask("DELETE", "/api/v1/streams/a?permanent=true", &[], "")
        .await
        .good();
    let notice = loop {
        let message = source.next().await.unwrap();
        if message.event.is_some() {
            break message;
        }
    };
    assert_eq!(notice.event.as_deref(), Some("problem"), "{notice:?}");
    let problem = notice.data.unwrap();
    assert_eq!(problem["type"], "/errors/LF0004");
    assert!(source.next().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn what_coming_back_does_not_mend_is_answered_before_the_stream_begins() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One"]).await;
    for (path, headers, field, value) in [
        ("/api/v1/subscribe?after=71", vec![], "after", 71),
        (
            "/api/v1/subscribe",
            vec![("last-event-id", "72")],
            "last-event-id",
            72,
        ),
    ] {
        let refused = http.ask("GET", path, &headers, "").await;
        let problem = refused.problem(400, "LF0001");
        let notice = (&problem["field"], &problem["value"]);
        assert_eq!(notice, (&json!(field), &json!(value)));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("position 1"), "{detail}");
    }
    http.ask("DELETE", "/api/v1/streams/a?permanent=true", &[], "")
        .await
        .good();
    let refused = http.get("/api/v1/subscribe?stream=a").await;
    assert_eq!(refused.problem(410, "LF0004")["stream"], "a");
    server.stop().await;
}

#[tokio::test]
async fn json_on_several_lines_arrives_as_json() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let json = [("content-type", "application/json")];
    let body = "{\"type\": \"T\", \"data\": {\r\n  \"a\": [1,\n 2]\r}}";
    http.ask("POST", "/api/v1/streams/a/events", &json, body)
        .await
        .good();
    let mut source = Source::open(&http, "", None).await;
    let message = source.next().await.unwrap();
    assert_eq!(message.data.unwrap()["data"], json!({"a": [1, 2]}));
    server.stop().await;
}

#[tokio::test]
async fn clients_that_reconnect_do_not_all_come_at_one_moment() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..16 {
        let source = Source::open(&http, "", None).await;
        assert!((1_000..3_000).contains(&source.retry), "{}", source.retry);
        delays.insert(source.retry);
    }
    // Sixteen of two thousand are equal about never.
    assert!(delays.len() > 8, "{delays:?}");
    server.stop().await;
}
