//! A store that does not respond: every call on it times out.
//!
//! **Owns:** [`Silent`], and the responses meanwhile. **Does not know:** stores that respond.

use std::{
    future::{Pending, pending},
    io::{self, Write},
    sync::{Arc, Mutex},
};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, stream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_proto::{
    event_store::client::{
        Empty,
        persistent_subscriptions::{
            ListReq, list_req, persistent_subscriptions_client::PersistentSubscriptionsClient,
        },
    },
    umadb::v1::{HeadRequest, TrackingRequest, dcb_client::DcbClient},
};
use leftfold_store::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, MemorySnapshotStore,
    ReadBatch, ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo,
    StreamState, Subscription,
};
use serde_json::json;
use tokio::sync::Notify;
use tonic::Code;

use crate::{client::TestClient, test_server::TestServer};

/// A store of which every answer is awaited in vain, but that of its end.
#[derive(Debug, Default)]
struct Silent {
    /// Told of each read.
    read: Arc<Notify>,
}

fn never<T: Send + 'static>() -> BoxFuture<'static, T> {
    let never: Pending<T> = pending();
    Box::pin(never)
}

impl EventStore for Silent {
    fn append(&self, _: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        never()
    }
    fn read(&self, _: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.read.notify_one();
        stream::pending().boxed()
    }
    fn subscribe(&self, _: Subscription) -> BoxStream<'static, Result<Delivery, ReadError>> {
        stream::pending().boxed()
    }
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        never()
    }
    fn stream_state(&self, _: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        never()
    }
    fn delete(&self, _: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        never()
    }
    fn scavenge(&self, _: Scavenge) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        stream::pending().boxed()
    }
    fn streams(&self, _: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        stream::pending().boxed()
    }
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        never()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(false, u64::MAX)
    }
    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(MemorySnapshotStore::default())
    }
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async { Ok(()) })
    }
}

async fn over(store: Silent, request_timeout: &str) -> TestServer {
    let settings = [
        ("request_timeout", request_timeout),
        ("shutdown_timeout", "100ms"),
    ];
    TestServer::new(Arc::new(store), &settings).await
}

#[tokio::test]
async fn every_question_is_answered_in_time_and_an_append_says_that_it_may_have_happened() {
    let server = over(Silent::default(), "50ms").await;
    let http = TestClient::new(&server);
    for path in [
        "/api/v1/events",
        "/api/v1/streams/a/events",
        "/api/v1/streams",
        "/api/v1/streams/a",
        "/api/v1/streams/a/metadata",
        "/api/v1/stats",
    ] {
        let refused = http.get(path).await.problem(503, "LF0007");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("50ms"), "{path}: {detail}");
    }
    let query = http.post("/api/v1/query", &json!({})).await;
    query.problem(503, "LF0007");
    let event = json!({"type": "T"});
    let append = http.post("/api/v1/streams/a/events", &event).await;
    let detail = append.problem(504, "LF0006")["detail"].to_string();
    assert!(detail.contains("same ids or key"), "{detail}");
    let delete = http.ask("DELETE", "/api/v1/streams/a", &[], "").await;
    let detail = delete.problem(504, "LF0006")["detail"].to_string();
    assert!(detail.contains("status"), "{detail}");
    server.stop().await;
}

#[tokio::test]
async fn a_question_ends_when_the_server_stops() {
    let store = Silent::default();
    let read = Arc::clone(&store.read);
    let server = over(store, "1h").await;
    let http = TestClient::new(&server);
    let asking = tokio::spawn(async move { http.get("/api/v1/events").await });
    read.notified().await;
    server.stop().await;
    asking.await.unwrap().problem(503, "LF0007");
}

#[tokio::test]
async fn metrics_are_there_and_the_server_is_not_ready() {
    let server = over(Silent::default(), "1h").await;
    let http = TestClient::new(&server);
    let (metrics, ready) = tokio::join!(http.get("/metrics"), http.get("/health/ready"));
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.text.contains("leftfold_head_position 0"),
        "{}",
        metrics.text
    );
    ready.problem(503, "LF0007");
    assert_eq!(http.get("/health/live").await.status, 200);
    assert_eq!(http.get("/info").await.good()["recent_ids"], json!(null));
    server.stop().await;
}

/// What is logged, as text.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_call_is_logged_with_its_method_principal_peer_and_duration() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _until_the_end = tracing::subscriber::set_default(subscriber);
    let settings = [
        ("request_timeout", "50ms"),
        ("shutdown_timeout", "100ms"),
        ("slow_call_threshold", "20ms"),
    ];
    let server = TestServer::new(Arc::new(Silent::default()), &settings).await;
    let http = TestClient::new(&server);
    http.get("/health/live").await;
    http.get("/api/v1/streams?prefix=secret").await;
    server.stop().await;
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    let slow: Vec<_> = text
        .lines()
        .filter(|line| line.contains("slow_call"))
        .collect();
    let [slow] = slow.as_slice() else {
        panic!("{text}")
    };
    for part in [
        "method=\"GET /api/v1/streams\"",
        "principal=anonymous",
        "peer=127.0.0.1:",
        "duration_ms=",
        "left_out=0",
        "WARN",
    ] {
        assert!(slow.contains(part), "{part} in {slow}");
    }
    assert!(!slow.contains("secret"), "{slow}");
}

#[tokio::test]
async fn what_appends_and_queries_take_beside_their_bytes_is_charged_until_they_are_executed() {
    let settings = [
        ("request_timeout", "2s"),
        ("shutdown_timeout", "100ms"),
        ("in_flight_bytes_max", "34MiB"),
    ];
    let server = TestServer::new(Arc::new(Silent::default()), &settings).await;
    let http = TestClient::new(&server);
    // Together two mebibytes on the wire, and some fifty times that in memory.
    let events = json!(vec![json!({"type": "T"}); 10_000]);
    let items = vec![json!({"types": (0..256).map(|n| n.to_string()).collect::<Vec<_>>()}); 128];
    for (path, body) in [
        ("/api/v1/streams/a/events", events),
        ("/api/v1/query", json!({ "items": items })),
    ] {
        let calls = (0..30).map(|_| http.post(path, &body));
        let answers = futures_util::future::join_all(calls).await;
        let refused = answers
            .iter()
            .filter(|it| it.text.contains("in_flight_bytes_max"));
        let refused = refused.count();
        assert!((1..30).contains(&refused), "{path}: {refused} refused");
    }
    server.stop().await;
}

#[tokio::test]
async fn calls_whose_method_has_no_deadline_of_its_own_end_all_the_same() {
    let server = over(Silent::default(), "50ms").await;
    let http = TestClient::new(&server);
    let paths = ["/api/v1/subscriptions", "/api/v1/subscriptions/a/g"];
    let answers = futures_util::future::join_all(paths.map(|path| http.get(path))).await;
    for answer in answers {
        assert!([503, 504].contains(&answer.status), "{answer:?}");
    }
    let channel = server.connect().await;
    let mut groups = PersistentSubscriptionsClient::new(channel.clone());
    let options = list_req::Options {
        list_option: Some(list_req::options::ListOption::ListAllSubscriptions(
            Empty {},
        )),
    };
    let all = ListReq {
        options: Some(options),
    };
    let (mut umadb, mut tracking) = (DcbClient::new(channel.clone()), DcbClient::new(channel));
    let (list, head, tracked) = tokio::join!(
        groups.list(all),
        umadb.head(HeadRequest {}),
        tracking.get_tracking_info(TrackingRequest {
            source: "s".to_owned()
        }),
    );
    for refused in [list.err(), head.err(), tracked.err()] {
        assert_eq!(refused.unwrap().code(), Code::DeadlineExceeded);
    }
    server.stop().await;
}
