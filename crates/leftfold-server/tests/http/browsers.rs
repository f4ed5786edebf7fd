//! What browsers may do, and what pages of other sites may not.
//!
//! **Owns:** which requests are taken for those of other sites, and what answers tell browsers. **Does not know:** events.

use std::sync::Arc;

use leftfold_store::MemoryStore;

use crate::{client::TestClient, test_server::TestServer};

#[tokio::test]
async fn pages_of_other_sites_can_neither_read_nor_write() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let own = format!("http://{}", http.address());
    for headers in [
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("host", "evil.example"), ("origin", "http://evil.example")],
        vec![("host", "evil.example")],
    ] {
        let mut headers = headers;
        headers.push(("content-type", "application/json"));
        let path = "/api/v1/streams/a/events";
        let write = http.ask("POST", path, &headers, r#"{"type":"T"}"#).await;
        write.problem(403, "LF0301");
        http.ask("GET", path, &headers, "")
            .await
            .problem(403, "LF0301");
    }
    let same = [("origin", own.as_str()), ("sec-fetch-site", "same-origin")];
    assert_eq!(
        http.ask("GET", "/api/v1/stats", &same, "").await.good()["events"],
        0
    );
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused_wherever_the_server_listens() {
    let settings = [
        ("listen", "0.0.0.0:0"),
        ("insecure", "true"),
        ("advertised_host", "events.example"),
    ];
    let server = TestServer::new(Arc::new(MemoryStore::new()), &settings).await;
    let http = TestClient::new(&server);
    for ours in [
        "192.0.2.7:2113",
        "[2001:db8::1]",
        "leftfold",
        "Events.Example:80",
    ] {
        let answer = http.ask("GET", "/info", &[("host", ours)], "").await;
        assert_eq!(answer.status, 200, "{ours}");
    }
    let problem = http
        .ask("GET", "/info", &[("host", "evil.example")], "")
        .await
        .problem(403, "LF0301");
    assert_eq!(problem["field"], "host");
    assert_eq!(problem["value"], "evil.example");
    server.stop().await;
}

#[tokio::test]
async fn a_link_from_elsewhere_opens_the_page_which_loads_nothing_from_elsewhere() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let link = [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let page = http.ask("GET", "/api/v1/docs/", &link, "").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["x-content-type-options"], "nosniff");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'self'"), "{policy}");
    let script = http.get("/api/v1/docs/swagger-initializer.js").await;
    assert!(
        script.text.contains("\"/api/v1/openapi.json\""),
        "{}",
        script.text
    );
    let events = http.ask("GET", "/api/v1/events", &link, "").await;
    assert_eq!(events.headers["x-content-type-options"], "nosniff");
    events.problem(403, "LF0301");
    server.stop().await;
}
