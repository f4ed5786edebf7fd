//! Subscriptions: the first message, and the messages between the events.
//!
//! **Owns:** the rules of `Read` that does not end. **Does not know:** how the log is followed.

use leftfold_proto::event_store::client::streams::{ReadResp, read_resp::Content};
use tonic::{Code, Streaming};

use crate::{
    client::{
        TestClient, code_and_trailer, filtered, of_all, of_stream, read, subscribed, type_of,
    },
    test_server::TestServer,
};

async fn next(answers: &mut Streaming<ReadResp>) -> Content {
    answers.message().await.unwrap().unwrap().content.unwrap()
}

/// The types of the next events; other messages between them are skipped.
async fn events(answers: &mut Streaming<ReadResp>, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        if let Content::Event(event) = next(answers).await {
            seen.push(type_of(&read(&event)));
        }
    }
    seen
}

#[tokio::test]
async fn a_subscription_is_confirmed_caught_up_and_goes_on() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One"]).await;
    let mut answers = client.read(subscribed(of_stream("a"))).await.unwrap();
    assert!(matches!(next(&mut answers).await, Content::Confirmation(_)));
    assert!(matches!(next(&mut answers).await, Content::Event(_)));
    let Content::CaughtUp(caught_up) = next(&mut answers).await else {
        panic!("caught up comes when everything stored was sent")
    };
    assert!(caught_up.timestamp.is_some());
    assert_eq!(caught_up.stream_revision, Some(0));
    client.put("b", &["Elsewhere"]).await;
    client.put("a", &["Two"]).await;
    assert_eq!(events(&mut answers, 1).await, ["Two"]);
    server.stop().await;
}

#[tokio::test]
async fn a_subscription_to_a_stream_that_is_not_there_yet_waits_for_it() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut answers = client.read(subscribed(of_stream("a"))).await.unwrap();
    assert!(matches!(next(&mut answers).await, Content::Confirmation(_)));
    let Content::CaughtUp(caught_up) = next(&mut answers).await else {
        panic!("there is nothing to wait for")
    };
    assert_eq!(caught_up.stream_revision, None);
    client.put("a", &["One"]).await;
    assert_eq!(events(&mut answers, 1).await, ["One"]);
    server.stop().await;
}

#[tokio::test]
async fn a_tombstone_ends_a_subscription_with_the_error_of_its_stream() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One"]).await;
    let mut answers = client.read(subscribed(of_stream("a"))).await.unwrap();
    assert_eq!(events(&mut answers, 1).await, ["One"]);
    client.tombstone("a").await.unwrap();
    let end = loop {
        match answers.message().await {
            Ok(answer) => assert!(answer.is_some(), "an end without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(
        code_and_trailer(&end, "exception"),
        (Code::FailedPrecondition, Some("stream-deleted"))
    );
    server.stop().await;
}

#[tokio::test]
async fn a_filtered_subscription_tells_how_far_it_is() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One"; 5]).await;
    let mut answers = client
        .read(subscribed(filtered(of_all(), "^b", 2)))
        .await
        .unwrap();
    assert!(matches!(next(&mut answers).await, Content::Confirmation(_)));
    let mut checkpoints = Vec::new();
    loop {
        match next(&mut answers).await {
            Content::Checkpoint(at) => checkpoints.push(at.commit_position),
            Content::CaughtUp(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(checkpoints.last(), Some(&5));
    client.put("b", &["Wanted"]).await;
    assert_eq!(events(&mut answers, 1).await, ["Wanted"]);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_tells_its_subscribers() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut answers = client.read(subscribed(of_all())).await.unwrap();
    assert!(matches!(next(&mut answers).await, Content::Confirmation(_)));
    let stopped = tokio::spawn(server.stop());
    let end = loop {
        match answers.message().await {
            Ok(answer) => assert!(answer.is_some(), "an end without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable);
    stopped.await.unwrap();
}
