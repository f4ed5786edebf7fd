//! Tickets for clients that cannot set a header, tried as a page and as a thief would.

use std::sync::{Arc, Mutex};

use leftfold_model::{ExpectedRevision, StreamName};
use leftfold_server::access::{AccessAdmin, NewApiKey};
use leftfold_store::{EventStore, MemoryStore, StreamMetadata};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::test_server::TestServer;

/// A server with a key that may do everything, one that may read what is open to all, and a stream for `ann` alone.
struct Rig {
    server: TestServer,
    admin: AccessAdmin,
    all: NewApiKey,
    narrow: NewApiKey,
}

impl Rig {
    async fn new() -> Self {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let admin = AccessAdmin::open(Arc::clone(&store)).await.unwrap();
        let key = async |grant: &str| {
            let grants = [grant.parse().unwrap()];
            admin.create_key("page", &grants, None).await.unwrap()
        };
        let (all, narrow) = (key("admin").await, key("read:prefix=order-").await);
        let acl = json!({"$r": "ann"});
        let metadata = StreamMetadata::default().with_property("$acl", acl);
        let secret = StreamName::new("secret-1").unwrap();
        let append = metadata.append_for(&secret, ExpectedRevision::Any);
        store.append(append.unwrap()).await.unwrap();
        let settings = [("authentication", "on"), ("slow_call_threshold", "1ms")];
        let server = TestServer::new(store, &settings).await;
        Self {
            server,
            admin,
            all,
            narrow,
        }
    }

    async fn ticket(&self, key: &NewApiKey) -> String {
        ticket(self.server.address(), Some(&key.key)).await
    }

    async fn get(&self, path: &str) -> String {
        begin(self.server.address(), "GET", path, None).await.1
    }
}

/// Begins a request, and returns its connection with the answer up to the end of the headers.
async fn begin(address: &str, method: &str, path: &str, key: Option<&str>) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let authorization = key.map(|key| format!("authorization: Bearer {key}\r\n"));
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n{}connection: close\r\n\r\n",
        authorization.unwrap_or_default()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    (socket, String::from_utf8(answer).unwrap())
}

/// Gets a ticket.
async fn ticket(address: &str, key: Option<&str>) -> String {
    let (mut socket, head) = begin(address, "POST", "/api/v1/tickets", key).await;
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let mut body = String::new();
    socket.read_to_string(&mut body).await.unwrap();
    let issued: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(issued["expires_in"], 30);
    issued["ticket"].as_str().unwrap().to_owned()
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[tokio::test]
async fn a_ticket_opens_one_stream_of_events_and_no_second_one() {
    let rig = Rig::new().await;
    for path in [
        "/api/v1/subscribe?after=0&ticket=",
        "/api/v1/subscribe?ticket=",
    ] {
        let path = format!("{path}{}", rig.ticket(&rig.all).await);
        assert_eq!(status(&rig.get(&path).await), "200");
        assert_eq!(status(&rig.get(&path).await), "401", "it is used up");
    }
    let consume = "/api/v1/subscriptions/order-1/g/events?ticket=";
    let path = format!("{consume}{}", rig.ticket(&rig.all).await);
    assert_eq!(
        status(&rig.get(&path).await),
        "404",
        "there is no such group"
    );
    assert_eq!(status(&rig.get(&path).await), "401");
    assert_eq!(status(&rig.get("/api/v1/subscribe").await), "401");
    rig.server.stop().await;
}

#[tokio::test]
async fn no_other_route_takes_a_ticket_and_none_uses_it_up() {
    let rig = Rig::new().await;
    let ticket = rig.ticket(&rig.all).await;
    for path in ["events", "streams/order-1/events", "streams"] {
        let path = format!("/api/v1/{path}?ticket={ticket}");
        assert_eq!(status(&rig.get(&path).await), "401", "{path}");
    }
    let address = rig.server.address();
    for path in ["tickets", "append"] {
        let path = format!("/api/v1/{path}?ticket={ticket}");
        let (_, head) = begin(address, "POST", &path, None).await;
        assert_eq!(status(&head), "401", "{path}");
    }
    // Neither does a header.
    let (_, head) = begin(address, "GET", "/api/v1/subscribe", Some(&ticket)).await;
    assert_eq!(status(&head), "401");
    let path = format!("/api/v1/subscribe?ticket={ticket}");
    assert_eq!(status(&rig.get(&path).await), "200");
    rig.server.stop().await;
}

#[tokio::test]
async fn a_ticket_has_the_rights_of_the_credential_that_got_it() {
    let rig = Rig::new().await;
    for (stream, expected) in [("secret-1", "403"), ("order-1", "200")] {
        let ticket = rig.ticket(&rig.narrow).await;
        let path = format!("/api/v1/subscribe?stream={stream}&ticket={ticket}");
        assert_eq!(status(&rig.get(&path).await), expected, "{stream}");
    }
    let wrong = rig.get("/api/v1/subscribe?ticket=lft_AAAA").await;
    assert_eq!(status(&wrong), "401");
    rig.server.stop().await;
}

#[tokio::test]
async fn a_ticket_and_what_it_opened_end_with_the_credential() {
    let rig = Rig::new().await;
    let (first, second) = (rig.ticket(&rig.narrow).await, rig.ticket(&rig.narrow).await);
    let path = format!("/api/v1/subscribe?stream=order-1&ticket={first}");
    let (mut socket, head) = begin(rig.server.address(), "GET", &path, None).await;
    assert_eq!(status(&head), "200");
    rig.admin.revoke_key(&rig.narrow.id).await.unwrap();
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("problem"), "{rest}");
    let path = format!("/api/v1/subscribe?stream=order-1&ticket={second}");
    assert_eq!(status(&rig.get(&path).await), "401");
    rig.server.stop().await;
}

#[tokio::test]
async fn a_server_without_users_issues_tickets_too() {
    let server = TestServer::start().await;
    let ticket = ticket(server.address(), None).await;
    let path = format!("/api/v1/subscribe?ticket={ticket}");
    let (_, head) = begin(server.address(), "GET", &path, None).await;
    assert_eq!(status(&head), "200");
    server.stop().await;
}

/// What is logged, as one text.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_holds_a_ticket() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    // For all threads: what a thread without a subscriber logs first may never be logged for another.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let rig = Rig::new().await;
    let ticket = rig.ticket(&rig.all).await;
    let path = format!("/api/v1/subscribe?ticket={ticket}");
    assert_eq!(status(&rig.get(&path).await), "200");
    assert_eq!(status(&rig.get(&path).await), "401");
    rig.server.stop().await;
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("credentials wrong"),
        "the rejection is logged: {text}"
    );
    assert!(!text.contains(&ticket), "{text}");
}

/// Whoever answers: a route, or what refuses a request before it comes to one.
#[tokio::test]
async fn every_answer_over_a_connection_that_stays_tells_how_long() {
    let rig = Rig::new().await;
    for (version, path, header, status, is_told) in [
        ("1.1", "/health/live", "", "200", true),
        ("1.1", "/api/v1/head", "", "401", true),
        ("1.1", "/health/live", "connection: close\r\n", "200", false),
        (
            "1.0",
            "/health/live",
            "connection: Keep-Alive\r\n",
            "200",
            true,
        ),
        ("1.0", "/health/live", "", "200", false),
    ] {
        let mut socket = TcpStream::connect(rig.server.address()).await.unwrap();
        let request = format!("GET {path} HTTP/{version}\r\nhost: localhost\r\n{header}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(answer).unwrap();
        assert_eq!(self::status(&head), status, "{head}");
        assert_eq!(
            head.contains("keep-alive: timeout="),
            is_told,
            "{request}{head}"
        );
    }
    rig.server.stop().await;
}
