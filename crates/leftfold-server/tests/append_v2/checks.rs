//! Consistency checks: which hold, how failed ones are reported, and that an append keeps them.
//!
//! **Owns:** tests. **Does not know:** what is appended.

use leftfold_model::ExpectedRevision;
use leftfold_proto::kurrentdb::protocol::v2::streams::{
    AppendRecordsRequest, ConsistencyCheck,
    errors::{
        AppendConsistencyViolationErrorDetails, StreamRevisionConflictErrorDetails,
        consistency_violation,
    },
};
use leftfold_store::{Delete, EventStore, StreamMetadata};
use tonic::{Code, Status};

use crate::{
    client::{TestClient, all, detail, fill, name, record, request, to},
    test_server::TestServer,
};

/// Streams in every state: `none`, `there` with 3 events, `noted` with metadata alone, `soft`, `hard`.
async fn streams(store: &dyn EventStore) {
    for stream in ["there", "soft", "hard"] {
        fill(store, stream, 3).await;
    }
    let metadata = StreamMetadata::default().with_max_count(9);
    let noted = metadata.append_for(&name("noted"), ExpectedRevision::Any);
    store.append(noted.unwrap()).await.unwrap();
    let soft = Delete::stream(name("soft"), ExpectedRevision::Any);
    store.delete(soft).await.unwrap();
    let hard = Delete::tombstone(name("hard"), ExpectedRevision::Any);
    store.delete(hard).await.unwrap();
}

/// Index, stream, expected and actual state of each violation.
fn violations(status: &Status) -> Vec<(i32, String, i64, i64)> {
    let reported: AppendConsistencyViolationErrorDetails = detail(
        status,
        Code::FailedPrecondition,
        "AppendConsistencyViolationErrorDetails",
    );
    let each = reported.violations.into_iter().map(|violation| {
        let Some(consistency_violation::Type::StreamState(state)) = violation.r#type else {
            panic!("{violation:?}")
        };
        (
            violation.check_index,
            state.stream,
            state.expected_state,
            state.actual_state,
        )
    });
    each.collect()
}

#[tokio::test]
async fn checks_that_hold_let_the_append_pass() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    streams(&*server.store).await;
    let holds: &[(&str, &[i64])] = &[
        ("none", &[-2, -1]),
        ("there", &[-2, -4, 2]),
        ("noted", &[-2, -1, -4]),
        ("soft", &[-2, -1, -5, 2]),
        ("hard", &[-2, -1, -6]),
    ];
    for (stream, states) in holds {
        for state in *states {
            let checks = [(*stream, *state)];
            let appended = client.records([to("log", record("T"))], &checks).await;
            appended.unwrap();
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn all_checks_that_fail_are_told_with_what_is_there() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    streams(&*server.store).await;
    let before = server.store.head().await.unwrap();
    let fails: &[(&str, i64, i64)] = &[
        ("none", -4, -1),
        ("none", 0, -1),
        ("none", -5, -1),
        ("there", -1, 2),
        ("there", 3, 2),
        ("there", 1, 2),
        ("there", -6, 2),
        ("noted", 0, -1),
        // What clients can read: a deleted stream is none, a tombstone has the highest revision.
        ("soft", -4, -1),
        ("soft", 1, -1),
        ("soft", -6, -1),
        ("hard", -4, i64::MAX),
        ("hard", 2, i64::MAX),
        ("hard", -5, i64::MAX),
    ];
    // Every second check holds.
    let checks: Vec<_> = fails
        .iter()
        .flat_map(|&(stream, state, _)| [(stream, state), ("there", -4)])
        .collect();
    let refused = client.records([to("log", record("T"))], &checks).await;
    let expected: Vec<_> = (0..)
        .zip(fails)
        .map(|(index, &(stream, state, actual))| (2 * index, stream.to_owned(), state, actual))
        .collect();
    assert_eq!(violations(&refused.unwrap_err()), expected);
    assert_eq!(server.store.head().await.unwrap(), before);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_written_is_checked_as_it_is_before() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    for revision in -1..3 {
        let records = ["a", "log", "a"].map(|stream| to(stream, record("T")));
        let checks = [("a", if revision < 0 { -1 } else { 2 * revision + 1 })];
        let answer = client.records(records, &checks).await.unwrap();
        assert_eq!(answer.revisions[0].revision, 2 * revision + 3);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_deleted_stream_comes_back_under_a_check_of_its_deletion() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    streams(&*server.store).await;
    let answer = client
        .records([to("soft", record("T"))], &[("soft", -5)])
        .await;
    assert_eq!(answer.unwrap().revisions[0].revision, 3);
    let refused = client
        .records([to("soft", record("T"))], &[("soft", -5)])
        .await;
    let reported = violations(&refused.unwrap_err());
    assert_eq!(reported, [(0, "soft".to_owned(), -5, 3)]);
    server.stop().await;
}

#[tokio::test]
async fn a_write_to_a_tombstoned_stream_is_a_violation_that_every_client_can_read() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    streams(&*server.store).await;
    let hard = |index, expected| (index, "hard".to_owned(), expected, i64::MAX);
    let cases: &[(&[(&str, i64)], &[(i32, String, i64, i64)])] = &[
        (&[("hard", -2)], &[hard(0, -2)]),
        (&[("hard", -1)], &[hard(0, -1)]),
        (&[("there", -4), ("hard", 7)], &[hard(1, 7)]),
        (&[("hard", -6)], &[hard(0, -6)]),
        // A write that no check speaks of has no index.
        (&[], &[hard(-1, -2)]),
        (&[("there", -4)], &[hard(-1, -2)]),
    ];
    for (checks, expected) in cases {
        let records = [to("log", record("T")), to("hard", record("T"))];
        let refused = client.records(records, checks).await.unwrap_err();
        assert_eq!(violations(&refused), *expected, "{checks:?}");
    }
    assert_eq!(all(&*server.store).await.len(), 9);
    server.stop().await;
}

/// The tombstone is an event of the metadata stream, but none that clients count.
#[tokio::test]
async fn metadata_of_a_tombstoned_stream_is_absent_until_it_is_set() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    streams(&*server.store).await;
    let log = || to("log", record("T"));
    for state in [-1, -2] {
        client.records([log()], &[("$$hard", state)]).await.unwrap();
    }
    for state in [-4, -5, -6, 0] {
        let refused = client.records([log()], &[("$$hard", state)]).await;
        let reported = violations(&refused.unwrap_err());
        assert_eq!(reported, [(0, "$$hard".to_owned(), state, -1)]);
    }
    let set = |expected| request("$$hard", Some(expected), [record("$metadata")]);
    let refused = client.session([set(-4)]).await.unwrap_err();
    let reported: StreamRevisionConflictErrorDetails = detail(
        &refused,
        Code::FailedPrecondition,
        "StreamRevisionConflictErrorDetails",
    );
    assert_eq!(
        (reported.expected_revision, reported.actual_revision),
        (-4, -1)
    );
    let metadata = || to("$$hard", record("$metadata"));
    let checks = [("$$hard", -1)];
    let answer = client.records([metadata()], &checks).await.unwrap();
    assert_eq!(answer.revisions[0].revision, 0);
    for state in [-4, 0] {
        client.records([log()], &[("$$hard", state)]).await.unwrap();
    }
    let refused = client.records([metadata()], &checks).await;
    let reported = violations(&refused.unwrap_err());
    assert_eq!(reported, [(0, "$$hard".to_owned(), -1, 0)]);
    server.stop().await;
}

#[tokio::test]
async fn details_that_many_checks_fill_stay_within_what_clients_take_and_say_so() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    for (count, length) in [(1_000, 5), (8, 1_000), (1, 1_024)] {
        let names: Vec<_> = (0..count).map(|n| format!("{n:0length$}")).collect();
        let checks: Vec<_> = names.iter().map(|name| (name.as_str(), -4)).collect();
        let refused = client.records([to("log", record("T"))], &checks).await;
        let refused = refused.unwrap_err();
        let reported = violations(&refused);
        assert!(!reported.is_empty(), "{refused:?}");
        assert!(
            refused.details().len() < 4096,
            "{}",
            refused.details().len()
        );
        let counted = format!("{count} of the consistency checks failed");
        assert!(refused.message().contains(&counted), "{refused:?}");
        let cut = format!("the first {} are named", reported.len());
        assert_eq!(
            refused.message().contains(&cut),
            reported.len() < count,
            "{refused:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn of_many_under_the_same_check_one_wins() {
    let server = TestServer::start().await;
    let attempts = (0..16).map(|_| async {
        let mut client = TestClient::new(&server).await;
        let records = [to("seat", record("Taken")), to("log", record("Taken"))];
        client.records(records, &[("seat", -1)]).await
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 15));
    for refused in lost {
        let reported = violations(&refused.unwrap_err());
        assert_eq!(reported, [(0, "seat".to_owned(), -1, 0)]);
    }
    assert_eq!(all(&*server.store).await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_check_of_existence_does_not_mind_that_the_stream_grows() {
    let server = TestServer::start().await;
    fill(&*server.store, "busy", 1).await;
    let attempts = (0..16).map(|_| async {
        let mut client = TestClient::new(&server).await;
        let answer = client
            .records([to("busy", record("T"))], &[("busy", -4)])
            .await;
        answer.unwrap()
    });
    futures_util::future::join_all(attempts).await;
    assert_eq!(all(&*server.store).await.len(), 17);
    server.stop().await;
}

#[tokio::test]
async fn a_check_that_makes_no_sense_is_refused_by_its_index() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    for (checks, says) in [
        (
            vec![("a", -1), ("a", -3)],
            "check 1 of stream a expects state -3",
        ),
        (vec![("", -1)], "STREAM_NAME_BYTES_MAX"),
        (vec![("a", -2); 1001], "1001 checks"),
    ] {
        let refused = client.records([to("a", record("T"))], &checks).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(says), "{refused:?}");
    }
    let unknown = AppendRecordsRequest {
        records: vec![to("a", record("T"))],
        checks: vec![ConsistencyCheck::default()],
    };
    let refused = client.client.append_records(unknown).await.unwrap_err();
    assert!(
        refused.message().contains("check 0 is of no kind"),
        "{refused:?}"
    );
    assert!(all(&*server.store).await.is_empty());
    server.stop().await;
}
