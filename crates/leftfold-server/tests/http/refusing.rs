//! Bad input over HTTP: each mistake is named, nothing is written.
//!
//! **Owns:** mistakes and their problems. **Does not know:** good requests.

use std::sync::Arc;

use leftfold_store::MemoryStore;
use serde_json::{Value, json};

use crate::{client::TestClient, test_server::TestServer};

#[tokio::test]
async fn a_wrong_body_is_refused_by_the_path_of_what_is_wrong() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let writes =
        |event: Value| json!({"writes": [{"stream": "a", "events": [{"type": "T"}, event]}]});
    for (body, field) in [
        (writes(json!({"type": ""})), "writes[0].events[1].type"),
        (
            writes(json!({"type": "T", "id": "7"})),
            "writes[0].events[1].id",
        ),
        (
            writes(json!({"type": "T", "tags": [""]})),
            "writes[0].events[1].tags",
        ),
        (
            writes(json!({"type": "T", "content_type": "text/html"})),
            "writes[0].events[1].content_type",
        ),
        (
            writes(json!({"type": "T", "data": 1, "data_base64": ""})),
            "writes[0].events[1].data_base64",
        ),
        (
            writes(json!({"type": "T", "time": "soon"})),
            "writes[0].events[1].time",
        ),
        (
            writes(json!({"type": "T", "data_base64": "!"})),
            "writes[0].events[1].data_base64",
        ),
        (
            writes(json!({"type": "T", "daat": 1})),
            "writes[0].events[1].daat",
        ),
        (writes(json!({"type": 5})), "writes[0].events[1].type"),
        (
            writes(json!({"type": "T", "stream": "b"})),
            "writes[0].events[1].stream",
        ),
        (
            json!({"writes": [{"stream": "", "events": [{"type": "T"}]}]}),
            "writes[0].stream",
        ),
        (
            json!({"writes": [{"stream": "a", "expected": "soon", "events": []}]}),
            "writes[0].expected",
        ),
        (
            json!({"writes": [{"stream": "a", "events": []}]}),
            "request",
        ),
        (
            json!({"writes": [], "conditions": [{"items": []}]}),
            "conditions[0].items",
        ),
        (
            json!({"writes": [], "conditions": [{"items": [{}]}]}),
            "conditions[0].items[0]",
        ),
        (json!({"writes": [], "surprise": 1}), "surprise"),
        (json!([]), "request"),
    ] {
        let problem = http
            .post("/api/v1/append", &body)
            .await
            .problem(400, "LF0001");
        assert_eq!(problem["field"], field, "{body}: {problem}");
    }
    assert_eq!(http.get("/api/v1/stats").await.good()["events"], 0);
    server.stop().await;
}

#[tokio::test]
async fn a_limit_is_told_with_its_name_and_the_value_that_breaks_it() {
    let store = Arc::new(MemoryStore::new());
    let given = [("message_bytes_max", "4KiB"), ("page_events_max", "5")];
    let server = TestServer::new(store, &given).await;
    let http = TestClient::new(&server);
    let long = json!({"type": "x".repeat(256)});
    let problem = http
        .post("/api/v1/streams/a/events", &long)
        .await
        .problem(400, "LF0001");
    assert_eq!(problem["value"], 256);
    assert_eq!(
        problem["limit"],
        json!({"name": "EVENT_TYPE_BYTES_MAX", "unit": "bytes", "min": 1, "max": 255})
    );
    let large = json!({"type": "T", "data": "x".repeat(8192)});
    let problem = http
        .post("/api/v1/streams/a/events", &large)
        .await
        .problem(413, "LF0305");
    assert_eq!(problem["limit"]["name"], "message_bytes_max");
    let problem = http
        .get("/api/v1/events?limit=6")
        .await
        .problem(400, "LF0001");
    assert_eq!(
        (&problem["field"], &problem["value"]),
        (&json!("limit"), &json!(6))
    );
    assert_eq!(problem["limit"]["max"], 5);
    let stream = "x".repeat(1025);
    let path = format!("/api/v1/streams/{stream}/events");
    let problem = http
        .post(&path, &json!({"type": "T"}))
        .await
        .problem(400, "LF0001");
    assert_eq!(problem["limit"]["name"], "STREAM_NAME_BYTES_MAX");
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_parameter_is_named_with_what_it_was() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    for (path, field, value) in [
        ("/events?limit=many", "limit", "many"),
        ("/events?from=-1", "from", "-1"),
        ("/events?direction=sideways", "direction", "sideways"),
        ("/events?limt=1", "limt", "1"),
        ("/streams/a/events?category=x", "category", "x"),
        ("/subscribe?after=soon", "after", "soon"),
        ("/streams?prefx=a", "prefx", "a"),
    ] {
        let problem = http
            .get(&format!("/api/v1{path}"))
            .await
            .problem(400, "LF0001");
        assert_eq!(
            (&problem["field"], &problem["value"]),
            (&json!(field), &json!(value)),
            "{path}"
        );
    }
    let both = http
        .get("/api/v1/subscribe?stream=a&category=b")
        .await
        .problem(400, "LF0001");
    assert_eq!(both["field"], "category");
    let key = [
        ("content-type", "application/json"),
        ("idempotency-key", ""),
    ];
    let empty = http
        .ask("POST", "/api/v1/streams/a/events", &key, r#"{"type":"T"}"#)
        .await;
    empty.problem(400, "LF0001");
    server.stop().await;
}

#[tokio::test]
async fn other_media_types_addresses_and_methods_are_refused_in_kind() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let path = "/api/v1/streams/a/events";
    let plain = [("content-type", "text/plain")];
    let refused = http.ask("POST", path, &plain, r#"{"type":"T"}"#).await;
    assert_eq!(refused.problem(415, "LF0306")["value"], "text/plain");
    let broken = http
        .ask(
            "POST",
            path,
            &[("content-type", "application/json")],
            "{\"type\":",
        )
        .await;
    broken.problem(400, "LF0001");
    let more = http
        .ask(
            "POST",
            path,
            &[("content-type", "application/json")],
            "{\"type\":\"T\"} x",
        )
        .await;
    more.problem(400, "LF0001");
    http.get("/api/v2/events").await.problem(404, "LF0302");
    let patched = http.ask("PATCH", path, &[], "").await;
    assert!(patched.headers.contains_key("allow"), "{patched:?}");
    patched.problem(405, "LF0303");
    let metadata = http
        .send_json("PUT", "/api/v1/streams/a/metadata", &json!([1]))
        .await;
    metadata.problem(400, "LF0001");
    server.stop().await;
}

#[tokio::test]
async fn parameters_that_are_forgotten_unknown_or_no_text_are_refused_everywhere() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    for (request, field, value) in [
        ("GET /api/v1/events?from=", "from", ""),
        ("GET /api/v1/events?limit=", "limit", ""),
        ("GET /api/v1/events?category", "category", ""),
        ("GET /api/v1/streams?prefix=%FF", "prefix", "%FF"),
        ("GET /api/v1/events?tag=a%C3%28", "tag", "a%C3%28"),
        ("POST /api/v1/append?expected=none", "expected", "none"),
        ("POST /api/v1/query?limit=1", "limit", "1"),
        ("GET /api/v1/stats?x=1", "x", "1"),
        ("GET /api/v1/scavenge?x=1", "x", "1"),
        ("DELETE /api/v1/scavenge?x=1", "x", "1"),
        ("GET /api/v1/streams/a?x=1", "x", "1"),
        ("GET /api/v1/streams/a/metadata?x=1", "x", "1"),
        ("GET /health/live?x=1", "x", "1"),
        ("GET /health/ready?x=1", "x", "1"),
        ("GET /info?x=1", "x", "1"),
        ("GET /metrics?x=1", "x", "1"),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        let refused = http.ask(method, path, &[], "{}").await;
        let problem = refused.problem(400, "LF0001");
        assert_eq!(
            (&problem["field"], &problem["value"]),
            (&json!(field), &json!(value)),
            "{request}"
        );
    }
    let text = http.get("/api/v1/streams?prefix=%C3%A9%25").await.good();
    assert_eq!(text["streams"], json!([]));
    server.stop().await;
}

#[tokio::test]
async fn streams_that_are_computed_or_kept_elsewhere_are_refused_by_name_and_never_empty() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("account-1", &["Opened"]).await;
    for name in [
        "$ce-account",
        "$et-Opened",
        "$bc-7",
        "$category-account",
        "$streams",
        "$ce-",
        "$et-",
        "$bc-",
        "$category-",
        "$idx-all",
        "$idx-ce-account",
        "$scavenges",
        "$stats-127.0.0.1:2113",
        "$projections-$all",
        "$persistentsubscription-a::g-parked",
        "$persistentsubscription-a::g-checkpoint",
        "$all",
    ] {
        for path in [
            format!("/api/v1/streams/{name}/events"),
            format!("/api/v1/streams/{name}/events?direction=backwards"),
            format!("/api/v1/subscribe?stream={name}"),
        ] {
            let refused = http.get(&path).await.problem(400, "LF0001");
            assert!(
                refused["detail"].as_str().unwrap().contains(name),
                "{path}: {refused}"
            );
        }
        let query = http.post("/api/v1/query", &json!({"stream": name})).await;
        query.problem(400, "LF0001");
    }
    // A stream of such a name that has events is that stream. Any other missing stream has no events.
    http.put("$scavenges", &["Noted"]).await;
    let page = http.get("/api/v1/streams/$scavenges/events").await.good();
    assert_eq!(page["events"].as_array().unwrap().len(), 1);
    http.get("/api/v1/streams/account-2/events").await.good();
    server.stop().await;
}

#[tokio::test]
async fn addresses_of_other_servers_that_this_one_has_not_are_not_found() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("account-1", &["Opened"]).await;
    for path in [
        "/streams/account-1",
        "/streams/$all",
        "/streams/$ce-account",
        "/subscriptions",
        "/subscriptions/account-1/g",
        "/projections/any",
        "/projections/all-non-transient",
        "/projection/$by_category/state",
        "/stats",
        "/users",
        "/admin/scavenge",
        "/v2/indexes",
    ] {
        let refused = http.get(path).await;
        assert!((400..500).contains(&refused.status), "{path}: {refused:?}");
    }
    server.stop().await;
}
