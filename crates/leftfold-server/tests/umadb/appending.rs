//! Appends: conditions, repetitions, and what is refused.
//!
//! **Owns:** tests. **Does not know:** progress of clients; see `tracking`.

use leftfold_model::{
    Append, ContentType, EventType, ExpectedRevision, NewEvent, Position, Read, Revision,
    StreamName,
};
use leftfold_proto::umadb::v1::{Query, ReadRequest, error_response::ErrorType};
use leftfold_store::Delete;
use tonic::Code;

use crate::{
    client::{
        Item, TestClient, assert_is, assert_is_integrity_error, entry, event, of, query, reading,
        under, with_id,
    },
    test_server::TestServer,
};

const COURSE: &[Item<'_>] = &[(&[], &["course:c1"])];

#[tokio::test]
async fn an_empty_store_has_no_head_and_its_first_event_is_position_1() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.head().await, None);
    assert_eq!(client.put(&[("A", &[])]).await, 1);
    assert_eq!(client.put(&[("A", &[]), ("B", &[])]).await, 3);
    assert_eq!(client.head().await, Some(3));
    server.stop().await;
}

#[tokio::test]
async fn events_go_to_the_default_stream_where_others_find_them() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let mut binary = with_id(event("B", &["x"]), 7);
    binary.data = "\u{1}{}".into();
    client.append(of([event("A", &[]), binary])).await.unwrap();
    let read = Read::stream(StreamName::default_stream());
    let mut batches = server.store.read(read);
    let batch = futures_util::StreamExt::next(&mut batches).await;
    let events = batch.unwrap().unwrap().events;
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].content_type, ContentType::Json);
    assert_eq!(events[1].content_type, ContentType::Binary);
    assert_eq!(events[1].revision, Revision::new(1));
    assert!(events[1].id.to_string().ends_with("000007"));
    server.stop().await;
}

#[tokio::test]
async fn a_condition_fails_on_what_comes_behind_after_and_nothing_is_written() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client
        .put(&[("Seat", &["course:c1"]), ("Seat", &["course:c2"])])
        .await;
    for after in [None, Some(0)] {
        let refused = client
            .append(under([event("Seat", &["course:c1"])], query(COURSE), after))
            .await;
        let refused = refused.unwrap_err();
        assert_is(
            &refused,
            Code::FailedPrecondition,
            ErrorType::Integrity,
            "event 1",
        );
    }
    assert_eq!(client.head().await, Some(2));
    // The event at `after` has been seen, and so has everything if `after` is behind the end.
    for (after, position) in [(1, 3), (3, 4), (1000, 5)] {
        let appended = client.append(under(
            [event("Seat", &["course:c1"])],
            query(COURSE),
            Some(after),
        ));
        assert_eq!(appended.await.unwrap(), position);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_condition_may_ask_for_types_for_tags_for_both_or_for_everything() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &["x"]), ("B", &["y"])]).await;
    let fails: &[&[Item<'_>]] = &[
        &[(&["A"], &[])],
        &[(&["A"], &["x"])],
        &[(&["C"], &[]), (&[], &["y"])],
        &[],
        &[(&[], &[])],
    ];
    for items in fails {
        let refused = client.append(under([event("C", &[])], query(items), None));
        assert_is_integrity_error(&refused.await.unwrap_err());
    }
    let passes: &[&[Item<'_>]] = &[&[(&["C"], &[])], &[(&["A"], &["y"])], &[(&[], &["x", "y"])]];
    for items in passes {
        let event = event("D", &[]);
        client
            .append(under([event], query(items), None))
            .await
            .unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn an_append_that_is_repeated_gets_the_first_answer() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let events = || [1, 2].map(|id| with_id(event("Seat", &["course:c1"]), id));
    let request = || under(events(), query(COURSE), None);
    assert_eq!(client.append(request()).await.unwrap(), 2);
    client.put(&[("Other", &[])]).await;
    assert_eq!(client.append(request()).await.unwrap(), 2);
    assert_eq!(client.head().await, Some(3));

    // Some of the events, or others between them, are not the same append.
    let part = [1, 3].map(|id| with_id(event("Seat", &["course:c1"]), id));
    let part = under(part, query(COURSE), None);
    assert_is_integrity_error(&client.append(part).await.unwrap_err());
    // Without ids the server cannot recognise a repetition.
    let again = under([event("Seat", &["course:c1"])], query(COURSE), None);
    assert_is_integrity_error(&client.append(again).await.unwrap_err());
    assert_eq!(client.head().await, Some(3));
    server.stop().await;
}

#[tokio::test]
async fn a_repetition_is_recognised_by_its_condition_however_long_ago_the_first_was() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let events = || [1, 2].map(|id| with_id(event("Seat", &["course:c1"]), id));
    client.append(of(events())).await.unwrap();
    let stream = StreamName::new("others-1").unwrap();
    let kind = EventType::new("Other").unwrap();
    while server.store.head().await.unwrap() < Position::new(70_000) {
        let others = (0..10_000).map(|_| NewEvent::json(kind.clone(), "{}"));
        let append = Append::to(stream.clone(), ExpectedRevision::Any, others.collect());
        server.store.append(append.unwrap()).await.unwrap();
    }
    let request = |count| under(events().into_iter().take(count), query(COURSE), None);
    assert_eq!(client.append(request(2)).await.unwrap(), 2);
    // The first of two is not what was appended.
    assert_eq!(client.append(request(1)).await.unwrap(), 1);
    let reversed = under(events().into_iter().rev(), query(COURSE), None);
    assert_is_integrity_error(&client.append(reversed).await.unwrap_err());
    server.stop().await;
}

#[tokio::test]
async fn an_append_without_events_only_asks_about_its_condition() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.append(of([])).await.unwrap(), 0);
    client.put(&[("Seat", &["course:c1"])]).await;
    let asked = client.append(under([], query(COURSE), None)).await;
    assert_is_integrity_error(&asked.unwrap_err());
    let asked = client.append(under([], query(COURSE), Some(1))).await;
    assert_eq!(asked.unwrap(), 0);
    assert_eq!(client.head().await, Some(1));
    server.stop().await;
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_by_name_value_and_limit() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let mut unknown = event("A", &[]);
    unknown.uuid = "seven".into();
    let many: Vec<String> = (0..65).map(|n| format!("tag:{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let too_long = "t".repeat(256);
    let mut twice = event("A", &[]);
    twice.metadata = vec![entry("k", "1"), entry("k", "2")];
    let cases = [
        (of([twice]), "metadata contains duplicate keys: \"k\""),
        (of([unknown]), "\"seven\" is not a UUID"),
        (of([event("", &[])]), "EVENT_TYPE_BYTES_MAX"),
        (of([event(&too_long, &[])]), "256 bytes"),
        (of([event("A", &[""])]), "TAG_BYTES_MAX"),
        (of([event("A", &many)]), "65 tags"),
        (
            of((0..10_001).map(|_| event("A", &[]))),
            "APPEND_EVENTS_MAX",
        ),
        (
            under([event("A", &[])], query(&[(&[], &[&too_long])]), None),
            "TAG_BYTES_MAX",
        ),
    ];
    for (request, says) in cases {
        let refused = client.append(request).await.unwrap_err();
        assert_is(
            &refused,
            Code::InvalidArgument,
            ErrorType::InvalidArgument,
            says,
        );
    }
    assert_eq!(client.head().await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_connection_lives_on() {
    let store = std::sync::Arc::new(leftfold_store::MemoryStore::new());
    let server = TestServer::new(store, &[("message_bytes_max", "64KiB")]).await;
    let mut client = TestClient::new(&server).await;
    let mut large = event("A", &[]);
    large.data = vec![b'x'; 70_000].into();
    let refused = client.append(of([large])).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    assert_eq!(client.put(&[("A", &[])]).await, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_default_stream_that_is_deleted_for_good_takes_no_more_events() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[])]).await;
    let delete = Delete::tombstone(StreamName::default_stream(), ExpectedRevision::Any);
    server.store.delete(delete).await.unwrap();
    let refused = client.append(of([event("A", &[])])).await.unwrap_err();
    // Not an integrity error: reading and deciding again would not help.
    assert_is(
        &refused,
        Code::FailedPrecondition,
        ErrorType::Io,
        "stream default is deleted",
    );
    assert_eq!(client.positions(ReadRequest::default()).await, [1]);
    server.stop().await;
}

#[tokio::test]
async fn of_many_under_the_same_condition_one_wins() {
    let server = TestServer::start().await;
    let attempts = (0..16).map(|_| async {
        let mut client = TestClient::new(&server).await;
        let seat = event("Seat", &["course:c1"]);
        client.append(under([seat], query(COURSE), None)).await
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 15));
    lost.into_iter()
        .for_each(|refused| assert_is_integrity_error(&refused.unwrap_err()));
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.positions(reading(COURSE)).await.len(), 1);
    assert_eq!(client.head().await, Some(1));
    let everything = under([event("A", &[])], Query::default(), None);
    assert_is_integrity_error(&client.append(everything).await.unwrap_err());
    server.stop().await;
}
