//! The lives of streams that several processes share, and in transactions of an application's own.
//!
//! **Owns:** these tests. **Does not know:** the rules one store alone keeps; the conformance suite has them.

use futures_util::TryStreamExt;
use leftfold_model::{
    Conflict,
    ExpectedRevision::{self, Any, Exact, NoStream, StreamExists},
    Revision,
};
use leftfold_postgres::PostgresStore;
use leftfold_store::{
    AppendError, Delete, EventStore, ListStreams, ReadError, StreamMetadata, StreamStatus,
};

use crate::{
    fixtures::{revisions, stream, to, until},
    server::fresh,
    stalled_writers::an_append_waits,
};

/// Two stores of one database, as two processes have them, and three events in `a-1` that both have written to.
async fn two() -> (PostgresStore, PostgresStore) {
    let options = fresh();
    let one = PostgresStore::open_with(options.clone()).await.unwrap();
    let two = PostgresStore::open_with(options).await.unwrap();
    for store in [&one, &two, &one] {
        store.append(to("a-1", Any, "Old")).await.unwrap();
    }
    (one, two)
}

async fn describe(store: &PostgresStore, metadata: StreamMetadata) {
    let append = metadata.append_for(&stream("a-1"), Any).unwrap();
    store.append(append).await.unwrap();
}

async fn delete(store: &PostgresStore) {
    let delete = Delete::stream(stream("a-1"), Any);
    store.delete(delete).await.unwrap();
}

fn is_deleted(error: &AppendError) -> bool {
    matches!(error, AppendError::Conflict(Conflict::StreamDeleted { .. }))
}

#[tokio::test]
async fn metadata_that_one_process_sets_holds_for_the_reads_of_another() {
    let (one, two) = two().await;
    assert_eq!(revisions(&two, "a-1").await, [0, 1, 2]);
    describe(&one, StreamMetadata::default().with_max_count(1)).await;
    assert_eq!(revisions(&two, "a-1").await, [2]);
    two.append(to("a-1", Exact(Revision::new(2)), "New"))
        .await
        .unwrap();
    assert_eq!(revisions(&one, "a-1").await, [3]);
    describe(&two, StreamMetadata::default()).await;
    assert_eq!(revisions(&one, "a-1").await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn a_stream_that_another_process_deleted_is_brought_back_whatever_was_remembered_of_it() {
    for expected in [Any, NoStream, Exact(Revision::new(2))] {
        let (one, two) = two().await;
        delete(&one).await;
        let append = to("a-1", expected, "New");
        let appended = two.append(append.clone()).await.unwrap();
        assert_eq!(appended.streams, [(stream("a-1"), Revision::new(3))]);
        for store in [&one, &two] {
            assert_eq!(revisions(store, "a-1").await, [3], "{expected}");
        }
        let again = one.append(append).await.unwrap();
        assert!(again.repeated, "{expected}");
        assert_eq!(again.first, appended.first);
    }
}

#[tokio::test]
async fn a_stream_that_another_process_deleted_does_not_exist_until_a_third_brings_it_back() {
    let (one, two) = two().await;
    delete(&one).await;
    let refused = two
        .append(to("a-1", StreamExists, "New"))
        .await
        .unwrap_err();
    assert!(is_deleted(&refused), "{refused}");
    one.append(to("a-1", NoStream, "New")).await.unwrap();
    two.append(to("a-1", StreamExists, "New")).await.unwrap();
    assert_eq!(revisions(&two, "a-1").await, [3, 4]);
}

#[tokio::test]
async fn a_stream_that_another_process_deleted_for_good_takes_and_gives_nothing() {
    let (one, two) = two().await;
    one.delete(Delete::tombstone(stream("a-1"), Any))
        .await
        .unwrap();
    for expected in [Any, NoStream, StreamExists, Exact(Revision::new(2))] {
        let refused = two.append(to("a-1", expected, "Never")).await.unwrap_err();
        assert!(is_deleted(&refused), "{expected}: {refused}");
    }
    let state = two.stream_state(stream("a-1")).await.unwrap();
    assert_eq!(state.status, StreamStatus::Tombstoned);
    let read = crate::fixtures::try_revisions(&two, "a-1")
        .await
        .unwrap_err();
    assert!(matches!(read, ReadError::StreamDeleted { .. }), "{read}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_appends_that_race_deletions_of_another_process_none_is_accepted_and_hidden() {
    let (one, two) = two().await;
    let deleting = tokio::spawn(async move {
        for _ in 0..25 {
            delete(&one).await;
        }
        one.append(to("end", Any, "Deleted")).await.unwrap().first
    });
    let mut last = None;
    for _ in 0..50 {
        last = Some(two.append(to("a-1", Any, "New")).await.unwrap());
    }
    let deleted = deleting.await.unwrap();
    let last = last.unwrap();
    let shown = revisions(&two, "a-1").await;
    if last.first > deleted {
        assert_eq!(shown.last(), Some(&last.streams[0].1.get()));
    }
    let state = two.stream_state(stream("a-1")).await.unwrap();
    let status = if shown.is_empty() {
        StreamStatus::Deleted
    } else {
        StreamStatus::Present
    };
    assert_eq!(state.status, status);
    assert!(two.verify().await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn an_append_in_a_transaction_to_a_stream_deleted_for_good_is_refused_and_the_transaction_goes_on()
 {
    let (one, two) = two().await;
    one.delete(Delete::tombstone(stream("a-1"), Any))
        .await
        .unwrap();
    let mut client = two.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let refused = two
        .append_in(&transaction, to("a-1", Any, "Never"))
        .await
        .unwrap_err();
    assert!(is_deleted(&refused), "{refused}");
    two.append_in(&transaction, to("b-1", Any, "Written"))
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(revisions(&one, "b-1").await, [0]);
}

#[tokio::test]
async fn an_append_in_a_transaction_brings_a_deleted_stream_back_with_the_commit() {
    for expected in [Any, NoStream, Exact(Revision::new(2))] {
        let (one, two) = two().await;
        delete(&one).await;
        let mut client = two.connection().await.unwrap();
        for committed in [false, true] {
            let transaction = client.transaction().await.unwrap();
            let first = two
                .append_in(&transaction, to("a-1", expected, "New"))
                .await
                .unwrap();
            assert_eq!(first.streams, [(stream("a-1"), Revision::new(3))]);
            // The transaction sees what it wrote itself: the stream is there again.
            two.append_in(&transaction, to("a-1", StreamExists, "New"))
                .await
                .unwrap();
            let shown: [u64; 2] = if committed {
                transaction.commit().await.unwrap();
                [3, 4]
            } else {
                transaction.rollback().await.unwrap();
                assert!(revisions(&one, "a-1").await.is_empty());
                continue;
            };
            assert_eq!(revisions(&one, "a-1").await, shown, "{expected}");
        }
    }
}

#[tokio::test]
async fn a_repetition_in_a_transaction_of_what_brought_a_stream_back_is_recognised() {
    let (one, two) = two().await;
    delete(&one).await;
    let append = to("a-1", NoStream, "New");
    let first = two.append(append.clone()).await.unwrap();
    let mut client = two.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    let again = two.append_in(&transaction, append).await.unwrap();
    assert_eq!((again.repeated, again.first), (true, first.first));
    let refused = two
        .append_in(&transaction, to("a-1", NoStream, "Never"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            AppendError::Conflict(Conflict::WrongRevision { .. })
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn metadata_in_a_transaction_holds_with_the_commit() {
    let (one, two) = two().await;
    let metadata = StreamMetadata::default().with_max_count(1);
    let append = metadata.append_for(&stream("a-1"), NoStream).unwrap();
    let mut client = two.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    two.append_in(&transaction, append).await.unwrap();
    assert_eq!(revisions(&one, "a-1").await, [0, 1, 2]);
    transaction.commit().await.unwrap();
    assert_eq!(revisions(&one, "a-1").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_of_one_group_meet_the_checks_of_one_another() {
    let store = PostgresStore::open_with(fresh()).await.unwrap();
    let mut client = store.connection().await.unwrap();
    let transaction = client.transaction().await.unwrap();
    store
        .append_in(&transaction, to("first", Any, "Held"))
        .await
        .unwrap();
    // While the lock is held, these gather: each writes to one stream only if another one is empty.
    let pair = |write: &str, check: &str| {
        let append = to(write, NoStream, "Won");
        let append = append.with_check(stream(check), NoStream).unwrap();
        let store = store.clone();
        tokio::spawn(async move { store.append(append).await })
    };
    let contenders = [
        pair("a", "b"),
        pair("b", "a"),
        pair("a", "c"),
        pair("b", "d"),
    ];
    until(|| an_append_waits(&store)).await;
    transaction.commit().await.unwrap();
    let mut won = Vec::new();
    for contender in contenders {
        match contender.await.unwrap() {
            Ok(appended) => won.push(appended.streams[0].0.to_string()),
            Err(AppendError::Conflict(Conflict::WrongRevision { .. })) => {}
            Err(error) => panic!("{error}"),
        }
    }
    // Whichever append wins, no two of them succeed if the check of one forbids the write of the other.
    let counts = [
        revisions(&store, "a").await.len(),
        revisions(&store, "b").await.len(),
    ];
    assert!(counts.iter().all(|&count| count <= 1), "{counts:?}");
    assert_eq!(won.len(), counts.iter().sum::<usize>());
    assert!(!won.is_empty());
    assert!(store.verify().await.unwrap().findings.is_empty());
}

#[tokio::test]
async fn a_listing_leaves_out_what_any_process_deleted() {
    let (one, two) = two().await;
    for n in 0..10 {
        let name = format!("b-{n}");
        one.append(to(&name, Any, "Old")).await.unwrap();
        // The first, the last, two in between, and one that comes back.
        if [0, 3, 4, 7, 9].contains(&n) {
            let delete = Delete::stream(stream(&name), Any);
            one.delete(delete).await.unwrap();
        }
    }
    two.append(to("b-7", Any, "New")).await.unwrap();
    let list = ListStreams {
        prefix: "b".into(),
        ..ListStreams::default()
    };
    let listed: Vec<_> = two.streams(list).try_concat().await.unwrap();
    let names: Vec<_> = listed.iter().map(|info| info.stream.as_str()).collect();
    assert_eq!(names, ["b-1", "b-2", "b-5", "b-6", "b-7", "b-8"]);
}

#[tokio::test]
async fn a_broken_check_is_told_with_its_stream_behind_wrong_revisions_and_before_conditions() {
    let (one, _) = two().await;
    let everything = leftfold_model::AppendCondition {
        fail_if_match: leftfold_model::Query::All,
        after: leftfold_model::Position::START.into(),
    };
    let broken = |expected: ExpectedRevision| {
        let append = to("b-1", expected, "Never").with_condition(everything.clone());
        let append = append.unwrap().with_check(stream("a-1"), NoStream);
        let store = one.clone();
        async move { store.append(append.unwrap()).await.unwrap_err() }
    };
    for (expected, reported) in [(Any, "a-1"), (StreamExists, "b-1")] {
        let refused = broken(expected).await;
        let AppendError::Conflict(Conflict::WrongRevision { stream: named, .. }) = refused else {
            panic!("{refused}");
        };
        assert_eq!(named, stream(reported));
    }
}
