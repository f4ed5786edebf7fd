//! Leftfold's own protocol where only the wire shows it: its client hides it by coming back.
//!
//! **Owns:** tests. **Does not know:** the client.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

#[path = "test_server/mod.rs"]
mod test_server;

use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_proto::leftfold::v1::{
    ReadRequest, SubscribeRequest, read_request::From, store_client::StoreClient,
};
use tonic::Code;

use crate::test_server::TestServer;

/// Far more bytes than any window lets through at once.
const EVENTS: usize = 400;
const EVENT_BYTES: usize = 64 * 1024;

async fn filled() -> TestServer {
    let server = TestServer::start().await;
    for _ in 0..EVENTS / 100 {
        let event = |_| NewEvent::json(EventType::new("T").unwrap(), vec![b' '; EVENT_BYTES]);
        let stream = StreamName::new("a").unwrap();
        let events = (0..100).map(event).collect();
        let append = Append::to(stream, ExpectedRevision::Any, events).unwrap();
        server.store.append(append).await.unwrap();
    }
    server
}

#[tokio::test]
async fn a_read_that_began_goes_to_its_end_though_the_server_stops() {
    let server = filled().await;
    let mut client = StoreClient::new(server.connect().await);
    let request = ReadRequest {
        from: Some(From::Position(1)),
        ..ReadRequest::default()
    };
    let mut batches = client.read(request).await.unwrap().into_inner();
    let first = batches.message().await.unwrap().unwrap();
    let stopping = tokio::spawn(server.stop());
    let mut read = first.events.unwrap().events.len();
    // The shutdown is well under way when the client reads the rest.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    while let Some(batch) = batches.message().await.unwrap() {
        read += batch.events.unwrap().events.len();
    }
    assert_eq!(read, EVENTS);
    drop(client);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_subscription_is_told_that_the_server_stops() {
    let server = TestServer::start().await;
    let mut client = StoreClient::new(server.connect().await);
    let request = SubscribeRequest::default();
    let mut deliveries = client.subscribe(request).await.unwrap().into_inner();
    let stopping = tokio::spawn(server.stop());
    let answer = loop {
        match deliveries.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(answer.code(), Code::Unavailable, "{answer:?}");
    drop(client);
    stopping.await.unwrap();
}
