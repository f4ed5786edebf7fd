//! The health service: what serves, and that it ends.
//!
//! **Owns:** tests. **Does not know:** the services themselves.

use std::sync::Arc;

use leftfold_store::MemoryStore;
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use leftfold_proto::umadb::v1::{self as wire, dcb_client::DcbClient};

use crate::{
    client::{event, of as of_events, reading},
    test_server::TestServer,
};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.into(),
    }
}

#[tokio::test]
async fn the_server_and_each_of_its_services_serve() {
    let server = TestServer::start().await;
    let mut client = HealthClient::new(server.connect().await);
    for service in [
        "",
        "umadb.v1.DCB",
        "event_store.client.streams.Streams",
        "kurrentdb.protocol.v2.streams.StreamsService",
    ] {
        let answer = client.check(of(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let refused = client.check(of("umadb.v1.Other")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test]
async fn who_watches_is_told_that_the_server_stops_and_does_not_keep_it() {
    let server = TestServer::start().await;
    let mut client = HealthClient::new(server.connect().await);
    let mut watch = client.watch(of("umadb.v1.DCB")).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let stopping = tokio::spawn(server.stop());
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    assert!(watch.message().await.unwrap().is_none());
    drop(client);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_and_still_answers() {
    let store = Arc::new(MemoryStore::new());
    let server = TestServer::new(store, &[("shutdown_delay", "2s")]).await;
    let channel = server.connect().await;
    let mut client = HealthClient::new(channel.clone());
    let mut watch = client.watch(of("")).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let stopping = tokio::spawn(server.stop());
    let second = watch.message().await.unwrap().unwrap();
    assert_eq!(second.status(), ServingStatus::NotServing);
    let checked = client.check(of("umadb.v1.DCB")).await.unwrap();
    assert_eq!(checked.into_inner().status(), ServingStatus::NotServing);
    let mut umadb = DcbClient::new(channel);
    let appended = umadb.append(of_events([event("A", &["x"])])).await;
    assert_eq!(appended.unwrap().into_inner().position, 1);
    assert!(watch.message().await.unwrap().is_none());
    drop((client, umadb));
    stopping.await.unwrap();
}

#[tokio::test]
async fn the_older_name_of_the_service_leads_to_each_method() {
    let server = TestServer::start().await;
    let channel = server.connect().await;
    let older = tower::service_fn(move |mut request: http::Request<tonic::body::Body>| {
        let path = request
            .uri()
            .path()
            .replace("/umadb.v1.DCB/", "/umadb.UmaDBService/");
        *request.uri_mut() = path.parse().unwrap();
        tower::ServiceExt::oneshot(channel.clone(), request)
    });
    let mut client = DcbClient::new(older);
    let appended = client
        .append(of_events([event("A", &["x"])]))
        .await
        .unwrap();
    assert_eq!(appended.into_inner().position, 1);
    let head = client.head(wire::HeadRequest {}).await.unwrap();
    assert_eq!(head.into_inner().position, Some(1));
    let mut read = client.read(reading(&[])).await.unwrap().into_inner();
    assert_eq!(read.message().await.unwrap().unwrap().events.len(), 1);
    let all = wire::SubscribeRequest::default();
    let mut following = client.subscribe(all).await.unwrap().into_inner();
    assert_eq!(following.message().await.unwrap().unwrap().events.len(), 1);
    let source = "s".to_owned();
    let tracked = client
        .get_tracking_info(wire::TrackingRequest { source })
        .await;
    assert_eq!(tracked.unwrap().into_inner().position, None);
    drop((read, following, client));
    server.stop().await;
}
