//! Streams over HTTP: listed, described, deleted.
//!
//! **Owns:** what these routes tell. **Does not know:** how retention works.

use serde_json::json;

use crate::{
    client::{TestClient, types},
    test_server::TestServer,
};

#[tokio::test]
async fn streams_are_listed_by_name_in_pages() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    for stream in ["cart-2", "order-1", "cart-1", "cart-3"] {
        http.put(stream, &["T"]).await;
    }
    let page = http
        .get("/api/v1/streams?prefix=cart-&limit=2")
        .await
        .good();
    let names = |page: &serde_json::Value| {
        let listed = page["streams"].as_array().unwrap().iter();
        listed
            .map(|stream| stream["stream"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&page), ["cart-1", "cart-2"]);
    assert_eq!(page["next"], "cart-2");
    assert_eq!(page["streams"][1]["position"], 1);
    let page = http
        .get("/api/v1/streams?prefix=cart-&limit=2&after=cart-2")
        .await
        .good();
    assert_eq!(
        (names(&page), &page["next"]),
        (vec!["cart-3".to_owned()], &json!(null))
    );
    server.stop().await;
}

#[tokio::test]
async fn metadata_shortens_a_stream_and_has_revisions_of_its_own() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two", "Three"]).await;
    let path = "/api/v1/streams/a/metadata";
    let unset = http.get(path).await;
    assert!(!unset.headers.contains_key("leftfold-revision"));
    assert_eq!(unset.good(), json!({}));
    let keep = json!({"$maxCount": 2, "owner": "ann"});
    let set = http
        .send_json("PUT", &format!("{path}?expected=none"), &keep)
        .await;
    set.good();
    let raced = http
        .send_json("PUT", &format!("{path}?expected=none"), &keep)
        .await;
    raced.problem(409, "LF0002");
    let read = http.get(path).await;
    assert_eq!(read.headers["leftfold-revision"], "0");
    assert_eq!(read.good(), keep);
    assert_eq!(
        types(&http.get("/api/v1/streams/a/events").await.good()),
        ["Two", "Three"]
    );
    let state = http.get("/api/v1/streams/a").await.good();
    assert_eq!(
        state,
        json!({"stream": "a", "status": "present", "first": 1, "last": 2, "metadata": keep, "metadata_revision": 0})
    );
    http.get("/api/v1/streams/nowhere")
        .await
        .problem(404, "LF0302");
    server.stop().await;
}

#[tokio::test]
async fn metadata_keeps_the_numbers_and_the_order_of_its_keys() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One"]).await;
    let path = "/api/v1/streams/a/metadata";
    let kind = [("content-type", "application/json")];
    let written = r#"{"z":1.50,"a":12345678901234567890123,"e":1e3}"#;
    http.ask("PUT", path, &kind, written).await.good();
    assert_eq!(http.get(path).await.text, written);
    let state = http.get("/api/v1/streams/a").await.text;
    assert!(state.contains(written), "{state}");
    // Also when the server changes a key of its own.
    http.ask("DELETE", "/api/v1/streams/a", &[], "")
        .await
        .good();
    http.put("a", &["Two"]).await;
    let again = http.get(path).await.text;
    assert!(again.starts_with(written.trim_end_matches('}')), "{again}");
    assert!(again.len() > written.len(), "{again}");
    for other in ["[1]", "7", "{\"a\":}"] {
        let refused = http.ask("PUT", path, &kind, other).await;
        refused.problem(400, "LF0001");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_stream_comes_back_and_one_deleted_for_good_does_not() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two"]).await;
    let wrong = http
        .ask("DELETE", "/api/v1/streams/a?expected=0", &[], "")
        .await;
    wrong.problem(409, "LF0002");
    http.ask("DELETE", "/api/v1/streams/a?expected=1", &[], "")
        .await
        .good();
    assert_eq!(
        http.get("/api/v1/streams/a").await.good()["status"],
        "deleted"
    );
    assert_eq!(
        types(&http.get("/api/v1/streams/a/events").await.good()),
        Vec::<&str>::new()
    );
    http.put("a", &["Three"]).await;
    let page = http.get("/api/v1/streams/a/events").await.good();
    assert_eq!(
        (types(&page), &page["events"][0]["revision"]),
        (vec!["Three"], &json!(2))
    );

    http.ask("DELETE", "/api/v1/streams/a?permanent=true", &[], "")
        .await
        .good();
    assert_eq!(
        http.get("/api/v1/streams/a").await.good()["status"],
        "tombstoned"
    );
    let read = http.get("/api/v1/streams/a/events").await;
    assert_eq!(read.problem(410, "LF0004")["stream"], "a");
    let append = http
        .post("/api/v1/streams/a/events", &json!({"type": "Four"}))
        .await;
    append.problem(410, "LF0004");
    server.stop().await;
}

#[tokio::test]
async fn a_scavenge_is_started_watched_and_runs_alone() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.get("/api/v1/scavenge").await.problem(404, "LF0302");
    http.put("a", &["One", "Two"]).await;
    http.ask("DELETE", "/api/v1/streams/a", &[], "")
        .await
        .good();
    let started = http
        .ask("POST", "/api/v1/scavenge?bytes_per_second=0", &[], "")
        .await;
    assert_eq!(started.status, 202);
    let id = started.good()["id"].clone();
    let done = loop {
        let run = http.get("/api/v1/scavenge").await.good();
        assert_eq!(run["id"], id);
        if run["state"] != "running" {
            break run;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&done["state"], &done["events"]),
        (&json!("finished"), &json!(2))
    );
    http.ask("DELETE", "/api/v1/scavenge", &[], "")
        .await
        .problem(404, "LF0302");
    server.stop().await;
}
