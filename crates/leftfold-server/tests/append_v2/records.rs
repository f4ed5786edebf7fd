//! `AppendRecords`: the order of records, and repetitions.
//!
//! **Owns:** tests. **Does not know:** what each kind of check asks for.

use leftfold_proto::kurrentdb::protocol::v2::streams::errors::AppendConsistencyViolationErrorDetails;
use tonic::Code;

use crate::{
    client::{TestClient, all, detail, fill, record, to, with_id},
    test_server::TestServer,
};

#[tokio::test]
async fn records_of_several_streams_keep_their_order() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    fill(&*server.store, "b", 2).await;
    let records = ["a", "b", "a", "a", "b"].map(|stream| to(stream, record(stream)));
    let answer = client.records(records, &[]).await.unwrap();
    let reported: Vec<_> = answer
        .revisions
        .iter()
        .map(|reported| (reported.stream.as_str(), reported.revision))
        .collect();
    assert_eq!(reported, [("a", 2), ("b", 3)]);
    assert_eq!(answer.position, 7);
    let events = all(&*server.store).await;
    let order: Vec<_> = events.iter().skip(2).map(|e| e.stream.as_str()).collect();
    assert_eq!(order, ["a", "b", "a", "a", "b"]);
    server.stop().await;
}

#[tokio::test]
async fn records_that_are_repeated_get_the_first_answer_though_their_checks_fail_by_now() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let records = || {
        [
            to("a", with_id(record("One"), 1)),
            to("b", with_id(record("Two"), 2)),
        ]
    };
    let checks: &[(&str, i64)] = &[("a", -1), ("seat", -1)];
    let first = client.records(records(), checks).await.unwrap();
    fill(&*server.store, "a", 1).await;
    assert_eq!(client.records(records(), checks).await.unwrap(), first);
    assert_eq!(client.records(records(), &[]).await.unwrap(), first);
    // Without ids, or with others, it is another append, and its checks count.
    for ids in [None, Some(3)] {
        let record = ids.map_or_else(|| record("One"), |id| with_id(record("One"), id));
        let refused = client.records([to("a", record)], checks).await.unwrap_err();
        let reported: AppendConsistencyViolationErrorDetails = detail(
            &refused,
            Code::FailedPrecondition,
            "AppendConsistencyViolationErrorDetails",
        );
        assert_eq!(reported.violations.len(), 1);
    }
    assert_eq!(all(&*server.store).await.len(), 3);
    server.stop().await;
}

#[tokio::test]
async fn records_without_a_stream_or_none_at_all_are_refused() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let many = (0..10_001).map(|_| to("a", record("One"))).collect();
    let cases = [
        (vec![], "0 events"),
        (vec![record("One")], "STREAM_NAME_BYTES_MAX"),
        (vec![to("$$", record("One"))], "\"$$\""),
        (many, "APPEND_EVENTS_MAX"),
    ];
    for (records, says) in cases {
        let refused = client.records(records, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(says), "{refused:?}");
    }
    assert!(all(&*server.store).await.is_empty());
    server.stop().await;
}
