//! The health service: what serves, and that it ends.
//!
//! **Owns:** tests. **Does not know:** the services themselves.

use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::test_server::TestServer;

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
