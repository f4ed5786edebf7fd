//! Reading over HTTP: pages, filters, order.
//!
//! **Owns:** what a page holds and where the next one begins. **Does not know:** other protocols.

use serde_json::json;

use crate::{
    client::{TestClient, types},
    test_server::TestServer,
};

#[tokio::test]
async fn pages_follow_each_other_to_the_end_in_both_directions() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let names: Vec<_> = (0..10).map(|n| format!("T{n}")).collect();
    let mut expected: Vec<_> = names.iter().map(String::as_str).collect();
    http.put("a-1", &expected).await;
    for base in ["/api/v1/events", "/api/v1/streams/a-1/events"] {
        for direction in ["forwards", "backwards"] {
            let mut seen = Vec::new();
            let mut from = String::new();
            loop {
                let path = format!("{base}?direction={direction}&limit=4{from}");
                let page = http.get(&path).await.good();
                seen.extend(types(&page).into_iter().map(str::to_owned));
                if page["is_last"] == true {
                    assert_eq!(page["next"].is_null(), direction == "backwards");
                    assert_eq!(page["token"].is_null(), direction == "backwards");
                    break;
                }
                assert!(
                    page["token"].is_null(),
                    "a page in the middle proves nothing"
                );
                from = format!("&from={}", page["next"]);
            }
            assert_eq!(seen, expected, "{base} {direction}");
            expected.reverse();
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_reader_at_the_end_goes_on_where_it_was() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let empty = http.get("/api/v1/streams/a/events").await.good();
    assert_eq!(
        empty,
        json!({"events": [], "next": 0, "is_last": true, "token": 0})
    );
    http.put("a", &["One"]).await;
    let page = http.get("/api/v1/streams/a/events?from=0").await.good();
    http.put("a", &["Two"]).await;
    let path = format!("/api/v1/streams/a/events?from={}", page["next"]);
    assert_eq!(types(&http.get(&path).await.good()), ["Two"]);
    let beyond = http.get("/api/v1/events?from=99").await.good();
    assert_eq!(
        (&beyond["events"], &beyond["next"]),
        (&json!([]), &json!(99))
    );
    server.stop().await;
}

#[tokio::test]
async fn events_are_found_by_type_tag_and_category() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let event = |kind: &str, tags: &[&str]| json!({"type": kind, "tags": tags});
    let events = json!([
        event("A", &["x"]),
        event("B", &["x", "y"]),
        event("C", &["y"])
    ]);
    http.post("/api/v1/streams/cart-1/events", &events)
        .await
        .good();
    http.post("/api/v1/streams/order-1/events", &event("A", &["y"]))
        .await
        .good();
    let found = async |query: &str| {
        let page = http.get(&format!("/api/v1/events?{query}")).await.good();
        types(&page)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(found("type=A&type=C").await, ["A", "C", "A"]);
    assert_eq!(found("tag=x&tag=y").await, ["B"]);
    assert_eq!(found("type=A&tag=y").await, ["A"]);
    assert_eq!(found("category=cart").await, ["A", "B", "C"]);
    assert_eq!(
        found("category=cart&tag=y&direction=backwards").await,
        ["C", "B"]
    );
    let either =
        json!({"items": [{"types": ["C"]}, {"tags": ["x"]}], "category": "cart", "limit": 2});
    let page = http.post("/api/v1/query", &either).await.good();
    assert_eq!(types(&page), ["A", "B"]);
    assert_eq!(
        (&page["is_last"], &page["next"]),
        (&json!(false), &json!(3))
    );
    let of_stream = json!({"items": [{"tags": ["y"]}], "stream": "cart-1", "from": 2});
    assert_eq!(
        types(&http.post("/api/v1/query", &of_stream).await.good()),
        ["C"]
    );
    server.stop().await;
}

#[tokio::test]
async fn a_page_that_reaches_the_end_has_its_token_in_a_header_too() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two"]).await;
    let json = [("content-type", "application/json")];
    let whole = http.ask("POST", "/api/v1/query", &json, "{}").await;
    assert_eq!(whole.headers["leftfold-token"], "2");
    assert_eq!(whole.headers["leftfold-last-page"], "true");
    let part = http
        .ask("POST", "/api/v1/query", &json, r#"{"limit": 1}"#)
        .await;
    assert!(!part.headers.contains_key("leftfold-token"), "{part:?}");
    assert_eq!(part.headers["leftfold-next"], "2");
    server.stop().await;
}

#[tokio::test]
async fn json_data_is_json_however_it_was_written() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let path = "/api/v1/streams/a/events";
    let json = [("content-type", "application/json")];
    let body = "[{\"type\": \"A\", \"data\": {\n  \"a\": 1\r\n}}, {\"type\": \"B\", \"data\": null}, {\"type\": \"C\"}]";
    http.ask("POST", path, &json, body).await.good();
    let page = http.get(path).await;
    assert!(page.text.contains("{\n  \"a\": 1\r\n}"), "{}", page.text);
    let events = &page.good()["events"];
    assert_eq!(events[0]["data"], json!({"a": 1}));
    assert_eq!(events[1].get("data"), Some(&json!(null)));
    assert_eq!(events[2]["data"], json!({}));
    server.stop().await;
}
