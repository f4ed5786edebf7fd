//! Deletions, soft and for good.
//!
//! **Owns:** the rules of `Delete` and `Tombstone`. **Does not know:** how streams end in the store.

use leftfold_proto::event_store::client::{
    Empty,
    streams::{append_req::options::ExpectedStreamRevision as Expected, read_resp::Content},
};
use tonic::Code;

use crate::{
    client::{
        Deleting, TestClient, any, code_and_trailer, event, none, of_stream, success, types, wrong,
    },
    test_server::TestServer,
};

#[tokio::test]
async fn a_deletion_that_expects_something_else_says_where_the_stream_is() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let refused = client
        .delete("a", Deleting::Any(Empty {}))
        .await
        .unwrap_err();
    assert_eq!(
        code_and_trailer(&refused, "exception"),
        (Code::FailedPrecondition, Some("wrong-expected-version"))
    );
    assert_eq!(code_and_trailer(&refused, "actual-version").1, Some("-1"));
    client.put("a", &["One", "Two"]).await;
    let refused = client.delete("a", Deleting::Revision(0)).await.unwrap_err();
    assert_eq!(code_and_trailer(&refused, "expected-version").1, Some("0"));
    assert_eq!(code_and_trailer(&refused, "actual-version").1, Some("1"));
    assert_eq!(
        refused.message(),
        "Delete failed due to WrongExpectedVersion. Stream: a, Expected version: 0, Actual version: 1"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_stream_is_not_found_and_comes_back_with_its_revisions_going_on() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One", "Two"]).await;
    client.delete("a", Deleting::Revision(1)).await.unwrap();
    let answers = client.all(of_stream("a")).await;
    assert!(
        matches!(answers[..], [Content::StreamNotFound(_)]),
        "{answers:?}"
    );
    client.delete("a", Deleting::Any(Empty {})).await.unwrap();
    success(
        client
            .append("a", none(), vec![event("Three")])
            .await
            .unwrap(),
    );
    let answers = client.all(of_stream("a")).await;
    assert_eq!(types(&answers), ["Three"]);
    assert!(
        matches!(answers[0], Content::FirstStreamPosition(2)),
        "{answers:?}"
    );
    assert!(
        matches!(answers[2], Content::LastStreamPosition(2)),
        "{answers:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_stream_deleted_for_good_is_an_error_before_any_message() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One"]).await;
    client.tombstone("a").await.unwrap();
    let gone = (Code::FailedPrecondition, Some("stream-deleted"));
    // Trailers only: the call itself fails, not its first message.
    let refused = client.read(of_stream("a")).await.unwrap_err();
    assert_eq!(code_and_trailer(&refused, "exception"), gone);
    assert_eq!(code_and_trailer(&refused, "stream-name").1, Some("a"));
    assert_eq!(refused.message(), "Event stream 'a' is deleted.");
    let refused = client
        .append("a", any(), vec![event("Two")])
        .await
        .unwrap_err();
    assert_eq!(code_and_trailer(&refused, "exception"), gone);
    let refused = client
        .delete("a", Deleting::Any(Empty {}))
        .await
        .unwrap_err();
    assert_eq!(code_and_trailer(&refused, "exception"), gone);
    // Its metadata can be set nevertheless.
    client.put("$$a", &["$metadata"]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stream_with_metadata_alone_can_be_deleted_as_none() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    for (stream, expected) in [
        ("none", Deleting::NoStream(Empty {})),
        ("any", Deleting::Any(Empty {})),
    ] {
        client.put(&format!("$${stream}"), &["$metadata"]).await;
        client.delete(stream, expected).await.unwrap();
    }
    let refused = client.delete("missing", Deleting::NoStream(Empty {})).await;
    assert_eq!(
        code_and_trailer(&refused.unwrap_err(), "actual-version").1,
        Some("-1")
    );
    server.stop().await;
}

#[tokio::test]
async fn a_tombstone_takes_no_revision_of_the_metadata_that_clients_count() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("a", &["One"]).await;
    client.put("$$a", &["$metadata"]).await;
    client.put("b", &["One"]).await;
    client.tombstone("a").await.unwrap();
    client.tombstone("b").await.unwrap();
    // The version that was read before is still the one to expect.
    let revision = |at| Expected::Revision(at);
    let set = |at| client.append("$$a", revision(at), vec![event("$metadata")]);
    success(set(0).await.unwrap());
    success(
        client
            .append("$$b", none(), vec![event("$metadata")])
            .await
            .unwrap(),
    );
    // And not twice.
    wrong(set(0).await.unwrap());
    let refused = client.read(of_stream("a")).await.unwrap_err();
    assert_eq!(
        code_and_trailer(&refused, "exception").1,
        Some("stream-deleted")
    );
    server.stop().await;
}
