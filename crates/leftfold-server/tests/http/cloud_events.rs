//! Events in the words of `CloudEvents`, in and out.
//!
//! **Owns:** that nothing of them is lost. **Does not know:** how they are kept.

use serde_json::{Value, json};

use crate::{client::TestClient, test_server::TestServer};

const ONE: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const PATH: &str = "/api/v1/streams/mine/events";

async fn send(http: &TestClient, kind: &str, body: &Value) -> crate::client::Answer {
    http.ask("POST", PATH, &[("content-type", kind)], body.to_string())
        .await
}

async fn read(http: &TestClient) -> Vec<Value> {
    let answer = http.ask("GET", PATH, &[("accept", BATCH)], "").await;
    assert_eq!(answer.headers["content-type"], BATCH);
    assert_eq!(answer.headers["leftfold-last-page"], "true");
    answer.good().as_array().unwrap().clone()
}

#[tokio::test]
async fn every_attribute_comes_back_as_it_was_sent() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let events = [
        json!({
            "specversion": "1.0", "id": "A234-1234", "source": "/mycontext", "type": "com.example.someevent",
            "subject": "larger-context", "time": "2026-04-05T17:31:00Z", "datacontenttype": "application/json",
            "comexampleextension1": "value", "comexampleothervalue": 5, "flag": true,
            "tags": "a%2Cb,c", "data": {"appinfoA": "abc", "appinfoB": 123},
        }),
        json!({
            "specversion": "1.0", "id": "019a0000-0000-7000-8000-000000000003", "source": "urn:x", "type": "T",
            "time": "2026-04-05T17:31:00Z", "datacontenttype": "application/vnd.example+json", "data": [1, 2],
        }),
        json!({
            "specversion": "1.0", "id": "c", "source": "urn:x", "type": "T", "time": "2026-04-05T17:31:00Z",
            "datacontenttype": "image/png", "data_base64": "iVBORw==",
        }),
        // In other words than those this server would choose.
        json!({
            "specversion": "1.0", "id": "019A0000-0000-7000-8000-00000000000A", "source": "urn:x", "type": "T",
            "time": "2026-04-05T17:31:00.000+02:00", "datacontenttype": "text/json; charset=utf-8",
            "tags": "z,a,z", "metadata": "somebody's own", "data": null,
        }),
    ];
    send(&http, ONE, &events[0]).await.good();
    send(&http, BATCH, &json!(events[1..])).await.good();
    for (nth, (sent, mut got)) in events.iter().zip(read(&http).await).enumerate() {
        let own = got.as_object_mut().unwrap();
        assert_eq!(own.remove("position"), Some(json!((nth + 1).to_string())));
        assert_eq!(own.remove("revision"), Some(json!(nth.to_string())));
        assert_eq!(own.remove("stream"), Some(json!("mine")));
        assert_eq!(got, *sent);
    }
    let tagged = http.get("/api/v1/events?tag=a%2Cb").await.good();
    assert_eq!(
        tagged["events"][0]["data"],
        json!({"appinfoA": "abc", "appinfoB": 123})
    );
    server.stop().await;
}

#[tokio::test]
async fn the_same_source_and_id_are_the_same_event() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let event =
        |source: &str| json!({"specversion": "1.0", "id": "1", "source": source, "type": "T"});
    assert_eq!(
        send(&http, ONE, &event("a")).await.good()["repeated"],
        false
    );
    assert_eq!(send(&http, ONE, &event("a")).await.good()["repeated"], true);
    assert_eq!(
        send(&http, ONE, &event("b")).await.good()["repeated"],
        false
    );
    server.stop().await;
}

#[tokio::test]
async fn text_of_another_type_is_its_bytes_and_comes_back_in_base64() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let event = json!({
        "specversion": "1.0", "id": "x", "source": "s", "type": "T", "datacontenttype": "text/plain", "data": "h\u{e9}",
    });
    send(&http, ONE, &event).await.good();
    let got = read(&http).await;
    assert_eq!(
        (&got[0]["data_base64"], &got[0]["datacontenttype"]),
        (&json!("aMOp"), &json!("text/plain"))
    );
    server.stop().await;
}

#[tokio::test]
async fn events_of_other_origin_have_a_source_and_keep_their_metadata() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.post(PATH, &json!({"type": "T", "metadata": {"by": "ann"}}))
        .await
        .good();
    let got = read(&http).await;
    assert_eq!(got[0]["source"], "/api/v1/streams/mine");
    assert_eq!(got[0]["metadata"], r#"{"by":"ann"}"#);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_set_may_be_null_and_what_a_read_adds_may_be_sent() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "s", "type": "T", "subject": null, "time": null, "tags": null,
        "datacontenttype": null, "data_base64": null, "position": "71", "revision": 72, "stream": "mine",
    });
    send(&http, ONE, &event).await.good();
    let got = read(&http).await.remove(0);
    let own = got.as_object().unwrap();
    let names: Vec<_> = own.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "datacontenttype",
            "id",
            "position",
            "revision",
            "source",
            "specversion",
            "stream",
            "time",
            "type"
        ]
    );
    assert_eq!(
        (&got["position"], &got["revision"]),
        (&json!("1"), &json!("0"))
    );
    // It is appended again as it was read, and recognised.
    assert_eq!(send(&http, ONE, &got).await.good()["repeated"], true);
    server.stop().await;
}

#[tokio::test]
async fn where_the_source_ends_and_the_id_begins_makes_a_difference() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    for (source, id) in [("a", "bc"), ("ab", "c"), ("a\n", "c"), ("a", "\nc")] {
        let event = json!({"specversion": "1.0", "id": id, "source": source, "type": "T"});
        let appended = send(&http, ONE, &event).await.good();
        assert_eq!(appended["repeated"], false, "{source:?} {id:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn metadata_that_only_looks_like_attributes_is_shown_as_text() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let time = "2026-04-05T17:31:00Z";
    let metadatas = [
        json!({"cloudevents": {"id": "x"}}),
        json!({"cloudevents": {"source": ""}}),
        json!({"cloudevents": {"source": "s", "id": ""}}),
        json!({"cloudevents": {"source": "s", "type": "Other"}}),
        json!({"cloudevents": {"source": "s", "data": "other"}}),
        json!({"cloudevents": {"source": "s", "data_base64": "AA=="}}),
        json!({"cloudevents": {"source": "s", "specversion": "2.0"}}),
        json!({"cloudevents": {"source": "s", "position": "71"}}),
        json!({"cloudevents": {"source": "s", "stream": "other"}}),
        json!({"cloudevents": {"source": "s", "Big": "x"}}),
        json!({"cloudevents": {"source": "s", "nested": {"a": 1}}}),
        json!({"cloudevents": {"source": "s", "large": 4_294_967_296_u64}}),
        json!({"cloudevents": {"source": "s", "time": "2020-01-01T00:00:00Z"}}),
        json!({"cloudevents": {"source": "s", "tags": "other"}}),
        json!({"cloudevents": {"source": "s", "datacontenttype": "image/png"}}),
        json!({"cloudevents": {"source": 5}}),
        json!({"cloudevents": {"source": "s"}, "by": "ann"}),
        json!({"cloudevents": []}),
    ];
    let event = |metadata: &Value| json!({"type": "T", "time": time, "metadata": metadata});
    let events: Vec<_> = metadatas.iter().map(event).collect();
    http.post(PATH, &json!(events)).await.good();
    for (metadata, got) in metadatas.iter().zip(read(&http).await) {
        let text = got["metadata"].as_str().unwrap_or_default();
        let shown: Value = serde_json::from_str(text).unwrap_or_default();
        assert_eq!(shown, *metadata, "{got}");
        assert_eq!(got["source"], "/api/v1/streams/mine");
        assert_eq!((&got["type"], &got["time"]), (&json!("T"), &json!(time)));
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_cloud_event_is_refused_by_field() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let good = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "T"});
    let with = |key: &str, value: Value| {
        let mut event = good.clone();
        event[key] = value;
        event
    };
    for (event, field) in [
        (with("specversion", json!("0.3")), "events[0].specversion"),
        (with("time", json!("yesterday")), "events[0].time"),
        (with("Big", json!("x")), "events[0].Big"),
        (with("nested", json!({"a": 1})), "events[0].nested"),
        (with("data_base64", json!("!")), "events[0].data_base64"),
        (with("type", json!("")), "events[0].type"),
        (with("id", json!("")), "events[0].id"),
        (with("id", json!(5)), "events[0].id"),
        (with("source", json!("")), "events[0].source"),
        (with("source", json!(null)), "events[0].source"),
        (with("large", json!(4_294_967_296_u64)), "events[0].large"),
        (with("tags", json!("a,,b")), "events[0].tags"),
        (with("stream", json!("other")), "events[0].stream"),
    ] {
        let problem = send(&http, ONE, &event).await.problem(400, "invalid");
        assert_eq!(problem["field"], field);
    }
    let missing = send(&http, ONE, &json!({"specversion": "1.0"}))
        .await
        .problem(400, "invalid");
    assert!(
        missing["detail"].as_str().unwrap().contains("id: missing"),
        "{missing}"
    );
    let both = json!({
        "specversion": "1.0", "id": "1", "source": "s", "type": "T", "data": 1, "data_base64": "AA==",
    });
    let problem = send(&http, ONE, &both).await.problem(400, "invalid");
    assert_eq!(problem["field"], "events[0].data_base64");
    let twice = r#"{"specversion":"1.0","id":"1","id":"2","source":"s","type":"T"}"#;
    let twice = http
        .ask("POST", PATH, &[("content-type", ONE)], twice)
        .await;
    twice.problem(400, "invalid");
    let mut many = good.clone();
    for n in 0..300 {
        many[format!("a{n}")] = json!(n);
    }
    let problem = send(&http, ONE, &many).await.problem(400, "invalid");
    assert_eq!(problem["value"], 304);
    assert_eq!(http.get("/api/v1/stats").await.good()["events"], 0);
    server.stop().await;
}
