//! What orchestrators and monitoring ask.
//!
//! **Owns:** health, information, metrics, the description. **Does not know:** events.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use leftfold_store::{EventStore, MemoryStore};
use serde_json::json;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{client::TestClient, test_server::TestServer};

#[tokio::test]
async fn a_server_is_alive_and_ready_until_its_store_is_closed() {
    let store = Arc::new(MemoryStore::new());
    let server = TestServer::new(Arc::clone(&store) as Arc<dyn EventStore>, &[]).await;
    let http = TestClient::new(&server);
    assert_eq!(http.get("/health/live").await.status, 200);
    assert_eq!(http.get("/health/ready").await.status, 200);
    store.close().await.unwrap();
    assert_eq!(http.get("/health/live").await.status, 200);
    http.get("/health/ready").await.problem(503, "LF0007");
    server.stop().await;
}

#[tokio::test]
async fn the_health_service_of_grpc_tells_the_same_of_every_service() {
    let store = Arc::new(MemoryStore::new());
    let server = TestServer::new(Arc::clone(&store) as Arc<dyn EventStore>, &[]).await;
    let mut client = HealthClient::new(server.connect().await);
    let services = [
        "",
        "leftfold.v1.Store",
        "event_store.client.streams.Streams",
    ];
    for (closed, expected) in [
        (false, ServingStatus::Serving),
        (true, ServingStatus::NotServing),
    ] {
        if closed {
            store.close().await.unwrap();
        }
        for service in services {
            let request = HealthCheckRequest {
                service: service.into(),
            };
            let answer = client.check(request).await.unwrap().into_inner();
            assert_eq!(answer.status(), expected, "{service}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn information_tells_version_and_limits() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let info = http.get("/info").await.good();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["address"], server.address());
    assert_eq!(
        (&info["durable"], &info["recent_ids"]),
        (&json!(false), &json!(65_536))
    );
    assert_eq!(info["limits"]["page_events_max"], 1000);
    server.stop().await;
}

/// The names of metrics as they are published. What only informs has a suffix of its own.
fn published(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    lines
        .map(|rest| match rest.split_once(' ').unwrap() {
            (name, "info") => format!("{name}_info"),
            (name, _) => name.to_owned(),
        })
        .collect()
}

/// The names of metrics as the documentation has them.
fn documented(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| `"));
    lines
        .map(|rest| rest.split('`').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn metrics_count_what_is_done_and_are_the_documented_ones() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    http.put("a", &["One", "Two"]).await;
    http.get("/api/v1/events").await.good();
    http.get("/api/v1/streams/a/events?from=1").await.good();
    let path = "/api/v1/streams/a/events?expected=none";
    let refused = http.post(path, &json!({"type": "T"})).await;
    refused.problem(409, "LF0002");
    let answer = http.get("/metrics").await;
    let kind = answer.headers["content-type"].to_str().unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    for line in [
        "leftfold_appends_total{outcome=\"written\"} 1",
        "leftfold_appends_total{outcome=\"conflict\"} 1",
        "leftfold_events_appended_total 2",
        "leftfold_appended_bytes_total 4",
        "leftfold_reads_total 2",
        "leftfold_events_read_total 3",
        "leftfold_head_position 2",
        "leftfold_appends_total{outcome=\"unknown\"} 0",
        "leftfold_read_failures_total{reason=\"corrupt\"} 0",
        "leftfold_requests_total{protocol=\"grpc\"} 0",
        "leftfold_subscriptions 0",
        "leftfold_append_duration_seconds_count 2",
        "leftfold_requests_total{protocol=\"http\"} 5",
        "# EOF",
    ] {
        assert!(
            answer.text.lines().any(|other| other == line),
            "{line} in {}",
            answer.text
        );
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    assert_eq!(published(&answer.text), documented(&text));
    let build = format!(
        "leftfold_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(answer.text.contains(&build), "{}", answer.text);
    // Those of the requests before are on their way out.
    while !http
        .get("/metrics")
        .await
        .text
        .contains("leftfold_connections 1\n")
    {}
    server.stop().await;
}

#[tokio::test]
async fn the_description_has_every_route_and_the_page_shows_it() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    let description = http.get("/api/v1/openapi.json").await.good();
    let paths = description["paths"].as_object().unwrap();
    let routes: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let documented = fs::read_to_string(root.join("docs/http.md")).unwrap();
    let documented: BTreeSet<_> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(route, _)| route.to_owned())
        .filter(|route| route.contains(" /"))
        .collect();
    assert_eq!(routes, documented);
    for schema in [
        "NewEvent",
        "Event",
        "Problem",
        "AppendRequest",
        "CloudEvent",
    ] {
        assert!(
            description["components"]["schemas"][schema].is_object(),
            "{schema}"
        );
    }
    let page = http.get("/api/v1/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text.contains("swagger"), "{}", page.text);
    server.stop().await;
}

#[tokio::test]
async fn a_ping_and_the_gossip_are_answered_as_clients_of_kurrentdb_ask_for_them() {
    let server = TestServer::start().await;
    let http = TestClient::new(&server);
    for accept in [&[][..], &[("accept", "application/json")]] {
        let ping = http.ask("GET", "/ping", accept, "").await;
        assert_eq!(ping.headers["content-type"], "application/json");
        assert_eq!(
            ping.good(),
            json!({"text": "Ping request successfully handled"})
        );
    }
    let (host, port) = server.address().split_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let gossip = http.get("/gossip").await.good();
    assert_eq!(gossip["serverIp"], host);
    assert_eq!(gossip["serverPort"], port);
    let members = gossip["members"].as_array().unwrap();
    assert_eq!(members.len(), 1);
    let member = &members[0];
    assert_eq!(
        (&member["state"], &member["isAlive"]),
        (&json!("Leader"), &json!(true))
    );
    assert_eq!(
        (&member["httpEndPointIp"], &member["httpEndPointPort"]),
        (&json!(host), &json!(port))
    );
    let again = http.get("/gossip").await.good();
    assert_eq!(again["members"][0]["instanceId"], member["instanceId"]);
    // As they came: by the name they used.
    let host = format!("localhost:{port}");
    let named = http.ask("GET", "/gossip", &[("host", &host)], "").await;
    assert_eq!(named.good()["members"][0]["httpEndPointIp"], "localhost");
    server.stop().await;
}

#[tokio::test]
async fn the_type_of_a_problem_leads_to_its_page() {
    let server = TestServer::new(Arc::new(MemoryStore::new()), &[]).await;
    let http = TestClient::new(&server);
    let problem = http.get("/nowhere").await.problem(404, "LF0302");
    assert_eq!(problem["code"], "LF0302");
    let page = http.get(problem["type"].as_str().unwrap()).await;
    assert_eq!(page.status, 200);
    assert!(page.text.starts_with("# LF0302: "), "{}", page.text);
    let list = http.get("/errors").await.text;
    assert!(list.contains("(/errors/LF0302)"), "{list}");
    let unknown = http.get("/errors/LF9999").await.problem(404, "LF0302");
    assert_eq!(unknown["field"], "code");
    http.get("/errors/%ff").await.problem(404, "LF0302");
    server.stop().await;
}
