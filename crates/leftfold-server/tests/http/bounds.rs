//! How much a request may ask for, and how much an answer holds.
//!
//! **Owns:** limits of lists and pages. **Does not know:** what is in them.

use serde_json::{Value, json};

use crate::{
    client::{TestClient, types},
    test_server::TestServer,
};

const MIB: usize = 1024 * 1024;

const ONE: &str = "/api/v1/streams/a/events";
const APPEND: &str = "/api/v1/append";

/// Sends a list that is too long, and checks that it is refused by its field, its length and the name of the limit.
async fn is_refused(http: &TestClient, path: &str, body: Value, exceeded: (&str, usize, &str)) {
    let problem = http.post(path, &body).await.problem(400, "LF0001");
    let (field, value, limit) = exceeded;
    assert_eq!(problem["field"], field, "{problem}");
    assert_eq!(problem["value"], value, "{problem}");
    assert_eq!(problem["limit"]["name"], limit, "{problem}");
}

/// A write of so many events.
fn write(count: usize) -> Value {
    json!({"stream": "a", "events": vec![json!({"type": "T"}); count]})
}

#[tokio::test]
async fn lists_of_events_that_are_too_long_are_refused_by_their_length() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let events = "APPEND_EVENTS_MAX";
    let many = json!(vec![json!({"type": "T"}); 10_001]);
    is_refused(&http, ONE, many, ("events", 10_001, events)).await;
    let many = json!({"writes": vec![write(1); 10_002]});
    is_refused(&http, APPEND, many, ("writes", 10_002, events)).await;
    let many = json!({"writes": [write(1), write(10_003)]});
    is_refused(&http, APPEND, many, ("writes[1].events", 10_003, events)).await;
    let many = json!({"writes": [write(6_000), write(6_000), write(6_000)]});
    is_refused(&http, APPEND, many, ("writes[1].events", 12_000, events)).await;

    let batch = json!(vec![json!({}); 10_001]).to_string();
    let kind = [("content-type", "application/cloudevents-batch+json")];
    let refused = http.ask("POST", ONE, &kind, batch).await;
    assert_eq!(refused.problem(400, "LF0001")["value"], 10_001);
    assert_eq!(http.get("/api/v1/stats").await.good()["events"], 0);
    let most = json!(vec![json!({"type": "T"}); 10_000]);
    assert_eq!(http.post(ONE, &most).await.good()["last"], 10_000);
    server.stop().await;
}

#[tokio::test]
async fn other_lists_that_are_too_long_are_refused_by_their_length() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let tags = "TAGS_PER_EVENT_MAX";
    let tagged = json!([{"type": "T", "tags": vec!["x"; 70]}]);
    is_refused(&http, ONE, tagged, ("events[0].tags", 70, tags)).await;
    let checks = vec![json!({"stream": "b", "expected": "none"}); 20_001];
    let checks = json!({"writes": [write(1)], "checks": checks});
    let exceeded = ("checks", 20_001, "APPEND_CHECKS_MAX");
    is_refused(&http, APPEND, checks, exceeded).await;
    let conditions = json!({"writes": [write(1)], "conditions": vec![json!({}); 65]});
    let exceeded = ("conditions", 65, "APPEND_CONDITIONS_MAX");
    is_refused(&http, APPEND, conditions, exceeded).await;

    let item = |name: &str, count| json!({"items": [{name: vec!["x"; count]}]});
    for (body, field, value, limit) in [
        (
            json!({"items": vec![json!({"types": ["T"]}); 4097]}),
            "items",
            4097,
            "QUERY_ITEMS_MAX",
        ),
        (
            item("types", 300),
            "items[0].types",
            300,
            "QUERY_ITEM_TYPES_MAX",
        ),
        (item("tags", 65), "items[0].tags", 65, "QUERY_ITEM_TAGS_MAX"),
    ] {
        is_refused(&http, "/api/v1/query", body, (field, value, limit)).await;
    }
    server.stop().await;
}

/// Items of a query with so many types, each of another name.
fn items(types: usize) -> Vec<Value> {
    let names: Vec<String> = (0..types).map(|nth| format!("T{nth}")).collect();
    names
        .chunks(256)
        .map(|types| json!({"types": types}))
        .collect()
}

#[tokio::test]
async fn types_and_tags_of_a_query_and_of_conditions_are_refused_by_their_number() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let query = |types| json!({"items": items(types)});
    let exceeded = ("items", 65_537, "QUERY_TERMS_MAX");
    is_refused(&http, "/api/v1/query", query(65_537), exceeded).await;
    http.post("/api/v1/query", &query(65_536)).await.good();
    let under = |types| json!({"writes": [write(1)], "conditions": [query(types), query(32_768)]});
    let exceeded = ("conditions[1]", 65_537, "APPEND_CONDITION_TERMS_MAX");
    is_refused(&http, APPEND, under(32_769), exceeded).await;
    http.post(APPEND, &under(32_768)).await.good();
    server.stop().await;
}

#[tokio::test]
async fn metadata_of_a_stream_is_refused_by_its_size() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let path = "/api/v1/streams/a/metadata";
    let long = json!({"note": "x".repeat(MIB)});
    let refused = http.send_json("PUT", path, &long).await;
    let problem = refused.problem(400, "LF0001");
    assert_eq!(problem["field"], "metadata");
    assert_eq!(problem["value"], long.to_string().len());
    assert_eq!(problem["limit"]["name"], "METADATA_BYTES_MAX");
    let fits = json!({"note": "x".repeat(MIB - 100)});
    http.send_json("PUT", path, &fits).await.good();
    server.stop().await;
}

#[tokio::test]
async fn what_is_told_of_a_long_mistake_is_short() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let long = json!({"type": "T", "time": "x".repeat(MIB), "y".repeat(MIB): 1});
    for body in [long, json!({"type": "T", "time": "x".repeat(MIB)})] {
        let refused = http.post("/api/v1/streams/a/events", &body).await;
        assert!(refused.text.len() < 8_192, "{}", refused.text.len());
        refused.problem(400, "LF0001");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_never_empty_for_it() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    for size in [2 * MIB, MIB / 2, MIB / 2 - 100, 100] {
        let event = json!({"type": "T", "data": "x".repeat(size - 2)});
        http.post("/api/v1/streams/a/events", &event).await.good();
    }
    // Data and the names of stream and type: two bytes for each event.
    for (from, count, next) in [(1, 1, 2), (2, 2, 4), (4, 1, 5)] {
        let path = format!("/api/v1/events?from={from}");
        let page = http.get(&path).await.good();
        assert_eq!((types(&page).len(), &page["next"]), (count, &json!(next)));
        assert_eq!(page["is_last"], next == 5);
    }
    assert_eq!(
        http.get("/info").await.good()["limits"]["page_bytes_max"],
        MIB
    );
    server.stop().await;
}
