//! Appending over HTTP.
//!
//! **Owns:** what is written, what is refused, what is recognised. **Does not know:** other protocols.

use serde_json::json;

use crate::{
    client::{TestClient, types},
    test_server::TestServer,
};

#[tokio::test]
async fn an_append_says_where_its_events_stand_and_they_come_back_as_they_were() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let body = r#"[
        {"type":"Deposited","data":{ "amount":1.00 },"tags":["vip"],"metadata":{"by":"ann"}},
        {"type":"Scanned","content_type":"application/octet-stream","data_base64":"AP8=",
         "id":"019a0000-0000-7000-8000-000000000001","time":"2026-01-31T12:00:00.5Z"}
    ]"#;
    let path = "/api/v1/streams/a%2Fb%20c/events";
    let json = [("content-type", "application/json; charset=utf-8")];
    let appended = http.ask("POST", path, &json, body).await.good();
    assert_eq!(
        appended,
        json!({"first": 1, "last": 2, "streams": [{"stream": "a/b c", "revision": 1}], "repeated": false})
    );
    let read = http.get(path).await;
    assert!(
        read.text.contains(r#""data":{ "amount":1.00 }"#),
        "{}",
        read.text
    );
    let events = &read.good()["events"];
    assert_eq!(events[0]["tags"], json!(["vip"]));
    assert_eq!(events[0]["metadata"], json!({"by": "ann"}));
    assert_eq!(
        events[1],
        json!({
            "position": 2, "stream": "a/b c", "revision": 1, "type": "Scanned",
            "id": "019a0000-0000-7000-8000-000000000001", "time": "2026-01-31T12:00:00.5Z",
            "content_type": "application/octet-stream", "data_base64": "AP8=",
        })
    );
    server.stop().await;
}

#[tokio::test]
async fn an_unmet_expectation_is_a_conflict_that_tells_both_revisions_and_writes_nothing() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two"]).await;
    for (expected, answer) in [("none", json!("none")), ("0", json!(0)), ("7", json!(7))] {
        let path = format!("/api/v1/streams/a/events?expected={expected}");
        let refused = http.post(&path, &json!({"type": "Three"})).await;
        let problem = refused.problem(409, "LF0002");
        assert_eq!(
            (&problem["expected"], &problem["actual"]),
            (&answer, &json!(1))
        );
        assert_eq!(problem["stream"], "a");
    }
    let absent = http
        .post(
            "/api/v1/streams/b/events?expected=exists",
            &json!({"type": "T"}),
        )
        .await;
    assert_eq!(absent.problem(409, "LF0002")["actual"], "none");
    let exact = http
        .post(
            "/api/v1/streams/a/events?expected=1",
            &json!({"type": "Three"}),
        )
        .await;
    assert_eq!(exact.good()["last"], 3);
    server.stop().await;
}

#[tokio::test]
async fn streams_are_written_together_or_not_at_all() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let transfer = |expected: serde_json::Value| {
        json!({"writes": [
            {"stream": "from", "expected": expected, "events": [{"type": "Taken"}]},
            {"stream": "to", "events": [{"type": "Given"}, {"type": "Noted"}]},
        ], "checks": [{"stream": "frozen", "expected": "none"}]})
    };
    let written = http
        .post("/api/v1/append", &transfer(json!("none")))
        .await
        .good();
    assert_eq!(
        written["streams"],
        json!([{"stream": "from", "revision": 0}, {"stream": "to", "revision": 1}])
    );
    let refused = http.post("/api/v1/append", &transfer(json!("none"))).await;
    assert_eq!(refused.problem(409, "LF0002")["stream"], "from");
    http.put("frozen", &["Frozen"]).await;
    let checked = http.post("/api/v1/append", &transfer(json!(0))).await;
    assert_eq!(checked.problem(409, "LF0002")["stream"], "frozen");
    let all = http.get("/api/v1/events").await.good();
    assert_eq!(types(&all), ["Taken", "Given", "Noted", "Frozen"]);
    server.stop().await;
}

#[tokio::test]
async fn a_decision_is_refused_when_something_it_did_not_see_matches() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let tagged = |kind: &str| json!({"type": kind, "tags": ["seat:7"]});
    http.post("/api/v1/streams/s/events", &tagged("Offered"))
        .await
        .good();
    let items = json!([{"types": ["Offered", "Reserved"], "tags": ["seat:7"]}]);
    let seen = http
        .post("/api/v1/query", &json!({"items": items}))
        .await
        .good();
    assert_eq!(types(&seen), ["Offered"]);
    let reserve = json!({
        "writes": [{"stream": "s", "events": [tagged("Reserved")]}],
        "conditions": [{"items": items, "after": seen["token"]}],
    });
    http.post("/api/v1/append", &reserve).await.good();
    let problem = http
        .post("/api/v1/append", &reserve)
        .await
        .problem(409, "LF0003");
    assert_eq!(
        (&problem["condition"], &problem["position"]),
        (&json!(0), &json!(2))
    );
    server.stop().await;
}

#[tokio::test]
async fn an_append_that_is_repeated_by_ids_or_by_key_is_written_once() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let event = json!({"type": "T", "id": "019a0000-0000-7000-8000-000000000002"});
    let path = "/api/v1/streams/a/events?expected=none";
    let first = http.post(path, &event).await.good();
    let again = http.post(path, &event).await.good();
    assert_eq!(
        (&first["repeated"], &again["repeated"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(first["last"], again["last"]);

    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "order 17"),
    ];
    let events = json!([{"type": "A"}, {"type": "B"}]).to_string();
    let path = "/api/v1/streams/b/events";
    let first = http
        .ask("POST", path, &headers, events.clone())
        .await
        .good();
    let again = http
        .ask("POST", path, &headers, events.clone())
        .await
        .good();
    assert_eq!(first["last"], again["last"]);
    assert_eq!(again["repeated"], true);
    let other = [
        ("content-type", "application/json"),
        ("idempotency-key", "order 18"),
    ];
    let third = http.ask("POST", path, &other, events).await.good();
    assert_eq!(third["repeated"], false);
    server.stop().await;
}

#[tokio::test]
async fn metadata_that_is_set_again_by_the_same_key_is_set_once() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let path = "/api/v1/streams/a/metadata?expected=none";
    let set = async |key: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", key),
        ];
        http.ask("PUT", path, &headers, r#"{"owner":"ann"}"#).await
    };
    assert_eq!(set("one").await.good()["repeated"], false);
    assert_eq!(set("one").await.good()["repeated"], true);
    set("two").await.problem(409, "LF0002");
    server.stop().await;
}

#[tokio::test]
async fn a_repetition_is_told_by_its_ids_and_not_by_what_else_it_says() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let path = "/api/v1/streams/a/events?expected=none";
    let send = async |body: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("idempotency-key", "k"),
        ];
        http.ask("POST", path, &headers, body.to_owned()).await
    };
    send(r#"{"type":"One"}"#).await.good();
    assert_eq!(send(r#"{"type":"Two"}"#).await.good()["repeated"], true);
    assert_eq!(types(&http.get("/api/v1/events").await.good()), ["One"]);
    let longer = send(r#"[{"type":"One"},{"type":"Two"}]"#).await;
    longer.problem(409, "LF0005");
    server.stop().await;
}
