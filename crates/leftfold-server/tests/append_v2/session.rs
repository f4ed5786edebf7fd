//! `AppendSession`: all streams or none.
//!
//! **Owns:** tests. **Does not know:** checks of streams that are not written.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use leftfold_model::{ExpectedRevision, Position};
use leftfold_proto::kurrentdb::protocol::v2::streams::errors::{
    AppendConsistencyViolationErrorDetails, StreamAlreadyInAppendSessionErrorDetails,
    StreamDeletedErrorDetails, StreamRevisionConflictErrorDetails, StreamTombstonedErrorDetails,
    consistency_violation,
};
use leftfold_store::{Delete, MemoryStore};
use tonic::Code;

use crate::{
    client::{TestClient, all, detail, fill, name, record, request, to, with_id},
    test_server::TestServer,
};

#[tokio::test]
async fn a_session_appends_to_all_its_streams_and_tells_where() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    fill(&*server.store, "b", 3).await;
    let answer = client
        .session([
            request("a", Some(-1), [record("One"), record("Two")]),
            request("b", Some(2), [record("Three")]),
            request("c", None, [record("Four")]),
        ])
        .await
        .unwrap();
    let reported: Vec<_> = answer
        .output
        .iter()
        .map(|reported| {
            (
                reported.stream.as_str(),
                reported.stream_revision,
                reported.position,
            )
        })
        .collect();
    let expected = [("a", 1, Some(5)), ("b", 3, Some(6)), ("c", 0, Some(7))];
    assert_eq!(reported, expected);
    assert_eq!(answer.position, 7);
    let events = all(&*server.store).await;
    let types: Vec<_> = events
        .iter()
        .skip(3)
        .map(|e| e.event_type.as_str())
        .collect();
    assert_eq!(types, ["One", "Two", "Three", "Four"]);
    server.stop().await;
}

#[tokio::test]
async fn one_stream_that_is_elsewhere_keeps_all_from_being_written() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    fill(&*server.store, "b", 3).await;
    for (expected, stream, actual) in [
        (-1, "b", 2),
        (1, "b", 2),
        (7, "b", 2),
        (-4, "c", -1),
        (0, "c", -1),
    ] {
        let refused = client
            .session([
                request("a", Some(-2), [record("One")]),
                request(stream, Some(expected), [record("Two")]),
            ])
            .await
            .unwrap_err();
        let reported: StreamRevisionConflictErrorDetails = detail(
            &refused,
            Code::FailedPrecondition,
            "StreamRevisionConflictErrorDetails",
        );
        assert_eq!(reported.stream, stream);
        assert_eq!(
            (reported.expected_revision, reported.actual_revision),
            (expected, actual)
        );
    }
    assert_eq!(server.store.head().await.unwrap(), Position::new(3));
    server.stop().await;
}

#[tokio::test]
async fn a_stream_comes_once_in_a_session() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let requests = ["a", "b", "a"].map(|stream| request(stream, None, [record("One")]));
    let refused = client.session(requests).await.unwrap_err();
    let reported: StreamAlreadyInAppendSessionErrorDetails = detail(
        &refused,
        Code::Aborted,
        "StreamAlreadyInAppendSessionErrorDetails",
    );
    assert_eq!(reported.stream, "a");
    assert!(all(&*server.store).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn deleted_streams_are_told_by_how_they_were_deleted() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let store = &server.store;
    for stream in ["soft", "hard"] {
        fill(&**store, stream, 2).await;
    }
    let soft = Delete::stream(name("soft"), ExpectedRevision::Any);
    store.delete(soft).await.unwrap();
    let hard = Delete::tombstone(name("hard"), ExpectedRevision::Any);
    store.delete(hard).await.unwrap();

    let refused = client
        .session([request("hard", Some(-1), [record("One")])])
        .await;
    let reported: StreamTombstonedErrorDetails = detail(
        &refused.unwrap_err(),
        Code::FailedPrecondition,
        "StreamTombstonedErrorDetails",
    );
    assert_eq!(reported.stream, "hard");
    let refused = client
        .session([request("soft", Some(-4), [record("One")])])
        .await;
    let reported: StreamDeletedErrorDetails = detail(
        &refused.unwrap_err(),
        Code::FailedPrecondition,
        "StreamDeletedErrorDetails",
    );
    assert_eq!(reported.stream, "soft");
    // Revisions go on behind those that were deleted.
    let answer = client
        .session([request("soft", Some(-1), [record("One")])])
        .await;
    assert_eq!(answer.unwrap().output[0].stream_revision, 2);
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_is_repeated_gets_the_first_answer() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let requests = |second| {
        [
            request("a", Some(-1), [with_id(record("One"), 1)]),
            request("b", Some(-1), [with_id(record("Two"), second)]),
        ]
    };
    let first = client.session(requests(2)).await.unwrap();
    fill(&*server.store, "a", 1).await;
    assert_eq!(client.session(requests(2)).await.unwrap(), first);
    let refused = client.session(requests(3)).await.unwrap_err();
    let reported: StreamRevisionConflictErrorDetails = detail(
        &refused,
        Code::FailedPrecondition,
        "StreamRevisionConflictErrorDetails",
    );
    assert_eq!(
        (reported.stream.as_str(), reported.actual_revision),
        ("a", 1)
    );
    assert_eq!(all(&*server.store).await.len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_by_name_and_value() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let one = || [record("One")];
    let cases = [
        (vec![], "0 events"),
        (vec![request("a", None, [])], "has no records"),
        (vec![request("", None, one())], "STREAM_NAME_BYTES_MAX"),
        (vec![request("$$", None, one())], "\"$$\""),
        (vec![request("a", Some(-3), one())], "-3 of stream a"),
        (
            vec![request("a", Some(i64::MIN), one())],
            "-9223372036854775808",
        ),
        (
            vec![request(
                "a",
                None,
                [1, 1].map(|id| with_id(record("One"), id)),
            )],
            "twice",
        ),
        (
            vec![request("a", None, (0..10_001).map(|_| record("One")))],
            "APPEND_EVENTS_MAX",
        ),
    ];
    for (requests, says) in cases {
        let refused = client.session(requests).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(says), "{refused:?}");
    }
    assert!(all(&*server.store).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_session_that_is_not_ended_in_time_writes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let server = TestServer::new(store, &[("request_timeout", "50ms")]).await;
    let mut client = TestClient::new(&server).await;
    let begun = stream::iter([request("a", None, [record("One")])]);
    let refused = client
        .client
        .append_session(begun.chain(stream::pending()))
        .await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    assert!(
        refused.message().contains("nothing was written"),
        "{refused:?}"
    );
    assert!(all(&*server.store).await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn a_session_whose_client_hangs_up_writes_nothing() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let (sent, was_sent) = tokio::sync::oneshot::channel();
    let begun = stream::iter([request("a", None, [record("One")])]);
    let then = stream::once(async move {
        sent.send(()).unwrap();
        std::future::pending().await
    });
    let session = client.client.append_session(begun.chain(then));
    tokio::select! {
        ended = session => panic!("{ended:?}"),
        sent = was_sent => sent.unwrap(),
    }
    drop(client);
    // The server ends without waiting for the session, so it has let it go.
    let store = Arc::clone(&server.store);
    tokio::time::timeout(Duration::from_secs(60), server.stop())
        .await
        .unwrap();
    assert_eq!(store.head().await.unwrap(), Position::START);
}

#[tokio::test]
async fn a_request_without_records_ends_the_session_before_more_is_read() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let requests = stream::iter([request("a", None, [])]).chain(stream::pending());
    let answer = client.client.append_session(requests);
    let refused = tokio::time::timeout(Duration::from_secs(10), answer);
    let refused = refused.await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("no records"), "{refused:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_tombstone_takes_no_revision_of_the_metadata_that_clients_count() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let store = &server.store;
    fill(&**store, "a", 1).await;
    let set = |expected| request("$$a", Some(expected), [record("$metadata")]);
    client.session([set(-1)]).await.unwrap();
    let tombstone = Delete::tombstone(name("a"), ExpectedRevision::Any);
    store.delete(tombstone).await.unwrap();
    // The revision that was read before is still the one to expect.
    let answer = client.session([set(0)]).await.unwrap();
    assert_eq!(answer.output[0].stream_revision, 1);
    let refused = client.session([set(0)]).await.unwrap_err();
    let reported: StreamRevisionConflictErrorDetails = detail(
        &refused,
        Code::FailedPrecondition,
        "StreamRevisionConflictErrorDetails",
    );
    assert_eq!(
        (reported.expected_revision, reported.actual_revision),
        (0, 1)
    );
    let record = || to("$$a", record("$metadata"));
    let answer = client.records([record()], &[("$$a", 1)]).await.unwrap();
    assert_eq!(answer.revisions[0].revision, 2);
    let refused = client.records([record()], &[("$$a", 1)]).await.unwrap_err();
    let reported: AppendConsistencyViolationErrorDetails = detail(
        &refused,
        Code::FailedPrecondition,
        "AppendConsistencyViolationErrorDetails",
    );
    let Some(consistency_violation::Type::StreamState(state)) = &reported.violations[0].r#type
    else {
        panic!("{reported:?}")
    };
    assert_eq!((state.expected_state, state.actual_state), (1, 2));
    server.stop().await;
}
