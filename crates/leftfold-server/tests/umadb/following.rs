//! Subscriptions: from what is stored to what is committed, until the server stops.
//!
//! **Owns:** tests. **Does not know:** reads.

use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_proto::umadb::v1::{SubscribeRequest, SubscribeResponse, error_response::ErrorType};
use tonic::{Code, Streaming};

use crate::{
    client::{TestClient, assert_is, events, query},
    test_server::TestServer,
};

async fn take(subscription: &mut Streaming<SubscribeResponse>, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let message = subscription.message().await.unwrap().unwrap();
        taken.extend(events(&message.events).iter().map(|event| event.position));
    }
    taken
}

#[tokio::test]
async fn a_subscription_gives_what_is_stored_and_then_what_is_committed() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[] as &[&str]); 300]).await;
    let request = SubscribeRequest {
        after: Some(298),
        ..SubscribeRequest::default()
    };
    let mut events = client.client.subscribe(request).await.unwrap().into_inner();
    assert_eq!(take(&mut events, 2).await, [299, 300]);
    client.put(&[("A", &[])]).await;
    assert_eq!(take(&mut events, 1).await, [301]);
    client.put(&[("A", &[]), ("B", &[])]).await;
    assert_eq!(take(&mut events, 2).await, [302, 303]);
    drop(events);
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_gives_what_matches_and_nothing_of_system_streams() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &["x"]), ("A", &["y"])]).await;
    let request = SubscribeRequest {
        query: Some(query(&[(&["A"], &["x"])])),
        ..SubscribeRequest::default()
    };
    let mut some = client.client.subscribe(request).await.unwrap().into_inner();
    let everything = SubscribeRequest::default();
    let mut all = client
        .client
        .subscribe(everything)
        .await
        .unwrap()
        .into_inner();
    let noted = NewEvent::json(EventType::new("A").unwrap(), "{}");
    let stream = StreamName::new("$noted").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![noted]);
    server.store.append(append.unwrap()).await.unwrap();
    client.put(&[("B", &["x"]), ("A", &["x"])]).await;
    assert_eq!(take(&mut some, 2).await, [1, 5]);
    assert_eq!(take(&mut all, 4).await, [1, 2, 4, 5]);
    drop((some, all));
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_from_behind_the_end_begins_there() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[])]).await;
    let request = SubscribeRequest {
        after: Some(2),
        ..SubscribeRequest::default()
    };
    let mut events = client.client.subscribe(request).await.unwrap().into_inner();
    client.put(&[("A", &[]), ("A", &[]), ("A", &[])]).await;
    assert_eq!(take(&mut events, 2).await, [3, 4]);
    drop(events);
    server.stop().await;
}

#[tokio::test]
async fn messages_of_a_subscription_have_at_most_as_many_events_as_asked_for() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[] as &[&str]); 10]).await;
    let request = SubscribeRequest {
        batch_size: Some(4),
        ..SubscribeRequest::default()
    };
    let mut events = client.client.subscribe(request).await.unwrap().into_inner();
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < 10 {
        sizes.push(events.message().await.unwrap().unwrap().events.len());
    }
    assert_eq!(sizes, [4, 4, 2]);
    drop(events);
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_says_that_the_server_stops() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[])]).await;
    let request = SubscribeRequest::default();
    let mut events = client.client.subscribe(request).await.unwrap().into_inner();
    assert_eq!(take(&mut events, 1).await, [1]);
    let stopping = tokio::spawn(server.stop());
    let ended = events.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(ended.details().is_empty(), "clients take it for an outage");
    drop(client);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_subscription_to_what_cannot_be_is_refused() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let request = SubscribeRequest {
        query: Some(query(&[(&[], &[""])])),
        ..SubscribeRequest::default()
    };
    let refused = client.client.subscribe(request).await.unwrap_err();
    assert_is(
        &refused,
        Code::InvalidArgument,
        ErrorType::InvalidArgument,
        "TAG_BYTES_MAX",
    );
    server.stop().await;
}
