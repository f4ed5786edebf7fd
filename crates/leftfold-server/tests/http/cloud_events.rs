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
async fn events_of_two_sources_with_one_id_are_two_events_also_if_it_is_a_uuid() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let id = "019a0000-0000-7000-8000-00000000000a";
    let event =
        |source: &str| json!({"specversion": "1.0", "id": id, "source": source, "type": "T"});
    for (source, repeated) in [("a", false), ("b", false), ("a", true), ("b", true)] {
        let appended = send(&http, ONE, &event(source)).await.good();
        assert_eq!(appended["repeated"], repeated, "{source}");
    }
    let got = read(&http).await;
    assert_eq!((&got[0]["id"], &got[1]["id"]), (&json!(id), &json!(id)));
    // What others appended comes back under its own id, and is recognised where it is appended again.
    let own = json!({"type": "T", "id": "019a0000-0000-7000-8000-00000000000b"});
    http.post(PATH, &own).await.good();
    let got = read(&http).await.remove(2);
    assert_eq!(got["id"], own["id"]);
    assert_eq!(send(&http, ONE, &got).await.good()["repeated"], true);
    server.stop().await;
}

/// `CloudEvents` compares ids as texts.
#[tokio::test]
async fn ids_of_one_source_that_are_one_uuid_in_several_spellings_are_several_events() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let source = PATH.strip_suffix("/events").unwrap();
    let id = "019a0000-0000-7000-8000-00000000000c";
    let spellings = [
        id.to_owned(),
        id.to_uppercase(),
        id.replace('-', ""),
        format!("urn:uuid:{id}"),
        format!("{{{id}}}"),
    ];
    for repeated in [false, true] {
        for id in &spellings {
            let event = json!({"specversion": "1.0", "id": id, "source": source, "type": "T"});
            let appended = send(&http, ONE, &event).await.good();
            assert_eq!(appended["repeated"], repeated, "{id}");
        }
    }
    let got = read(&http).await;
    let ids: Vec<_> = got.iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, spellings);
    server.stop().await;
}

/// The headers of an event in binary mode.
const BINARY: [(&str, &str); 5] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.placed"),
    ("ce-source", "/mycontext"),
    ("ce-id", "A234"),
    ("ce-time", "2026-04-05T17:31:00Z"),
];

#[tokio::test]
async fn an_event_in_binary_mode_is_the_one_its_headers_describe() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let mut headers = BINARY.to_vec();
    headers.extend([
        ("content-type", "application/json; charset=utf-8"),
        ("ce-subject", "a%20%22b%22%20%E2%82%AC"),
        ("ce-comexample", "5"),
        ("ce-tags", "x,y"),
    ]);
    let body = "{\"n\": 1.50}";
    http.ask("POST", PATH, &headers, body).await.good();
    // The body is the data, whatever it is.
    let mut image = BINARY.to_vec();
    image[3].1 = "A235";
    image.push(("content-type", "image/png"));
    http.ask("POST", PATH, &image, &b"\x89PNG"[..]).await.good();
    let mut bare = BINARY.to_vec();
    bare[3].1 = "A236";
    http.ask("POST", PATH, &bare, "").await.good();
    let got = read(&http).await;
    let first = &got[0];
    for (name, value) in [
        ("id", "A234"),
        ("type", "com.example.placed"),
        ("source", "/mycontext"),
        ("time", "2026-04-05T17:31:00Z"),
        ("subject", "a \"b\" \u{20ac}"),
        ("comexample", "5"),
        ("tags", "x,y"),
        ("datacontenttype", "application/json; charset=utf-8"),
    ] {
        assert_eq!(first[name], value, "{first}");
    }
    assert_eq!(first["data"], json!({"n": 1.5}));
    assert_eq!(
        (&got[1]["datacontenttype"], &got[1]["data_base64"]),
        (&json!("image/png"), &json!("iVBORw=="))
    );
    assert_eq!(
        (&got[2]["data"], &got[2]["data_base64"]),
        (&Value::Null, &Value::Null)
    );
    // Sending the event again in the other mode repeats it.
    let again = http.ask("POST", PATH, &headers, body).await.good();
    assert_eq!(again["repeated"], true);
    server.stop().await;
}

#[tokio::test]
async fn headers_that_say_half_of_an_event_are_refused_and_not_dropped() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let json_type = ("content-type", "application/json");
    let all = BINARY.to_vec();
    let without = |name: &str| {
        let mut rest: Vec<_> = all.iter().copied().filter(|(n, _)| *n != name).collect();
        rest.push(json_type);
        rest
    };
    for (headers, field) in [
        (without("ce-specversion"), "ce-specversion"),
        (without("ce-type"), "ce-type"),
        (without("ce-source"), "ce-source"),
        (without("ce-id"), "ce-id"),
        (vec![json_type, ("ce-subject", "alone")], "ce-specversion"),
        (
            [without(""), vec![("ce-not_plain", "x")]].concat(),
            "ce-not_plain",
        ),
        (
            [without(""), vec![("ce-subject", "%FF")]].concat(),
            "ce-subject",
        ),
        ([without(""), vec![("ce-data", "x")]].concat(), "ce-data"),
        (
            [without(""), vec![("ce-datacontenttype", "x/y")]].concat(),
            "ce-datacontenttype",
        ),
    ] {
        let problem = http
            .ask("POST", PATH, &headers, "{}")
            .await
            .problem(400, "LF0001");
        assert_eq!(problem["field"], field, "{problem}");
    }
    // An append to several streams knows none.
    let append = json!({"writes": [{"stream": "mine", "events": [{"type": "T"}]}]}).to_string();
    let several = [all.clone(), vec![json_type]].concat();
    let refused = http.ask("POST", "/api/v1/append", &several, append).await;
    refused.problem(400, "LF0001");
    assert_eq!(http.get("/api/v1/stats").await.good()["events"], 0);
    // In structured mode they may be there too, and the body counts.
    let both = [all, vec![("content-type", ONE)]].concat();
    let one = json!({"specversion": "1.0", "id": "1", "source": "s", "type": "T"}).to_string();
    http.ask("POST", PATH, &both, one).await.good();
    assert_eq!(read(&http).await[0]["source"], "s");
    server.stop().await;
}

/// Heads of requests whose body is not sent, and what is answered to them.
fn heads_without_a_body() -> Vec<(&'static str, &'static str, &'static str)> {
    let append = "/api/v1/append";
    vec![
        (PATH, "content-length: 70000", "413"),
        (PATH, "content-length: 7\r\ncontent-type: text/html", "415"),
        (
            append,
            "content-length: 7\r\ncontent-type: text/html",
            "415",
        ),
        (
            append,
            "content-length: 7\r\ncontent-type: application/cloudevents+json",
            "415",
        ),
        (append, "content-length: 7\r\nce-id: 1", "400"),
        (append, "content-length: 7\r\ncontent-encoding: gzip", "415"),
        (append, "transfer-encoding: gzip, chunked", "415"),
        (append, "transfer-encoding: chunked, chunked", "415"),
        (
            PATH,
            "transfer-encoding: deflate\r\ntransfer-encoding: chunked\r\nce-id: 1\r\nce-source: a\r\nce-type: T\r\n\
             ce-specversion: 1.0\r\ncontent-type: application/octet-stream",
            "415",
        ),
        (append, "transfer-encoding: Chunked", "100"),
        (
            append,
            "content-length: 7\r\ncontent-range: bytes 0-6/70",
            "400",
        ),
        (
            PATH,
            "content-length: 7\r\ncontent-type: application/json\r\ncontent-type: text/plain",
            "415",
        ),
        (
            PATH,
            "content-length: 7\r\ncontent-range: bytes 0-6/70\r\nce-id: 1\r\nce-source: a\r\nce-type: T\r\n\
             ce-specversion: 1.0\r\ncontent-type: application/octet-stream",
            "400",
        ),
        (
            PATH,
            "content-length: 7\r\nce-id: 1\r\nce-source: a\r\nce-type: T\r\nce-specversion: 1.0\r\n\
             content-type: application/octet-stream\r\ncontent-type: application/json",
            "415",
        ),
        (
            append,
            "content-length: 7\r\ncontent-encoding: identity\r\ncontent-encoding: br",
            "415",
        ),
        (
            PATH,
            "content-length: 7\r\ncontent-encoding: zstd\r\nce-id: 1\r\nce-source: a\r\nce-type: T\r\n\
             ce-specversion: 1.0\r\ncontent-type: application/octet-stream",
            "415",
        ),
        (
            append,
            "content-length: 7\r\ncontent-encoding: Identity",
            "100",
        ),
    ]
}

#[tokio::test]
async fn a_body_that_its_headers_rule_out_is_not_waited_for() {
    let store = std::sync::Arc::new(leftfold_store::MemoryStore::new());
    let server = TestServer::new(store, &[("message_bytes_max", "64KiB")]).await;
    for (path, head, status) in heads_without_a_body() {
        let mut socket = tokio::net::TcpStream::connect(server.address())
            .await
            .unwrap();
        let host = server.address();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nexpect: 100-continue\r\n{head}\r\n\r\n"
        );
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes())
            .await
            .unwrap();
        let mut answer = [0; 12];
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut answer)
            .await
            .unwrap();
        assert_eq!(&answer[9..], status.as_bytes(), "{path} {head}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_type_that_is_accepted_with_quality_0_is_not_accepted() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.post(PATH, &json!({"type": "T"})).await.good();
    let plain = "application/json";
    let batch_0 = format!("{BATCH};q=0");
    let batch_00 = format!("{BATCH}; q=0.000, application/json");
    let batch_1 = format!("{BATCH};q=1");
    let lower = format!("{BATCH};q=0.5, application/json;q=0.9");
    let higher = format!("application/json;q=0.1, {BATCH}; Q=0.2");
    // What a range names is accepted with the quality of the most specific range.
    let any = format!("{BATCH};q=0.5, */*");
    let any_application = format!("{BATCH};q=0.5, application/*;q=0.6, */*;q=0.1");
    let last = format!("{BATCH}, application/*;q=0.9, */*;q=0.8");
    let json_0 = format!("application/json;q=0, {BATCH};q=0.5, */*");
    let quoted_0 = format!("{BATCH};note=\"a, b; q=1\";q=0");
    let quoted = format!("text/html;note=\"\\\", {BATCH}, \", application/json");
    for (accept, expected) in [
        ("*/*", plain),
        (&*batch_0, plain),
        (&*batch_00, plain),
        (&*batch_1, BATCH),
        (&*lower, plain),
        (&*higher, BATCH),
        (&*any, plain),
        (&*any_application, plain),
        (&*last, BATCH),
        (&*json_0, BATCH),
        (&*quoted_0, plain),
        (&*quoted, plain),
    ] {
        let answer = http.ask("GET", PATH, &[("accept", accept)], "").await;
        assert_eq!(answer.headers["content-type"], expected, "{accept}");
    }
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
        let problem = send(&http, ONE, &event).await.problem(400, "LF0001");
        assert_eq!(problem["field"], field);
    }
    let missing = send(&http, ONE, &json!({"specversion": "1.0"}))
        .await
        .problem(400, "LF0001");
    assert!(
        missing["detail"].as_str().unwrap().contains("id: missing"),
        "{missing}"
    );
    let both = json!({
        "specversion": "1.0", "id": "1", "source": "s", "type": "T", "data": 1, "data_base64": "AA==",
    });
    let problem = send(&http, ONE, &both).await.problem(400, "LF0001");
    assert_eq!(problem["field"], "events[0].data_base64");
    let twice = r#"{"specversion":"1.0","id":"1","id":"2","source":"s","type":"T"}"#;
    let twice = http
        .ask("POST", PATH, &[("content-type", ONE)], twice)
        .await;
    twice.problem(400, "LF0001");
    let mut many = good.clone();
    for n in 0..300 {
        many[format!("a{n}")] = json!(n);
    }
    let problem = send(&http, ONE, &many).await.problem(400, "LF0001");
    assert_eq!(problem["value"], 304);
    assert_eq!(http.get("/api/v1/stats").await.good()["events"], 0);
    server.stop().await;
}
