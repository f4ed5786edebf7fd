//! Reads: queries, directions, limits, messages and heads.
//!
//! **Owns:** tests. **Does not know:** how events came to be there.

use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName, StreamWrite, Tag};
use leftfold_proto::umadb::v1::{ReadRequest, error_response::ErrorType};
use leftfold_store::StreamMetadata;
use tonic::Code;

use crate::{
    client::{Item, TestClient, assert_is, entry, event, of, reading, with_id},
    test_server::TestServer,
};

#[tokio::test]
async fn an_event_is_read_as_it_was_appended() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let mut given = with_id(event("Seat", &["student:s1", "course:c1", "student:s1"]), 9);
    given.data = vec![0, 255, 7].into();
    given.metadata = vec![entry("b", "1"), entry("a", "\u{fc}\"")];
    client.append(of([given.clone()])).await.unwrap();
    client.append(of([event("Seat", &[])])).await.unwrap();

    let events = client.read(ReadRequest::default()).await;
    assert_eq!(events[0].event, Some(given));
    assert_eq!(events[0].tracking_info, None);
    let second = events[1].event.clone().unwrap();
    assert!(second.metadata.is_empty());
    assert_eq!(second.uuid, "", "an event without an id has none");
    server.stop().await;
}

#[tokio::test]
async fn an_item_needs_one_of_its_types_and_all_of_its_tags() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client
        .put(&[("A", &["x", "y"]), ("B", &["x"]), ("A", &[]), ("C", &["y"])])
        .await;
    let cases: &[(&[Item<'_>], &[u64])] = &[
        (&[], &[1, 2, 3, 4]),
        (&[(&[], &[])], &[1, 2, 3, 4]),
        (&[(&["D"], &[]), (&[], &[])], &[1, 2, 3, 4]),
        (&[(&["A"], &[])], &[1, 3]),
        (&[(&["A", "B"], &[])], &[1, 2, 3]),
        (&[(&[], &["x"])], &[1, 2]),
        (&[(&[], &["x", "y"])], &[1]),
        (&[(&["A"], &["x"])], &[1]),
        (&[(&["B"], &[]), (&[], &["y"])], &[1, 2, 4]),
        (&[(&["D"], &["x"])], &[]),
    ];
    for (items, expected) in cases {
        assert_eq!(
            client.positions(reading(items)).await,
            *expected,
            "{items:?}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_read_starts_at_its_start_and_goes_either_way() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &["x"] as &[&str]); 5]).await;
    let cases: &[(Option<u64>, bool, &[u64])] = &[
        (None, false, &[1, 2, 3, 4, 5]),
        (Some(0), false, &[1, 2, 3, 4, 5]),
        (Some(4), false, &[4, 5]),
        (Some(6), false, &[]),
        (Some(u64::MAX), false, &[]),
        (None, true, &[5, 4, 3, 2, 1]),
        (Some(2), true, &[2, 1]),
        (Some(99), true, &[5, 4, 3, 2, 1]),
        (Some(u64::MAX), true, &[5, 4, 3, 2, 1]),
        (Some(0), true, &[]),
    ];
    for &(start, backwards, expected) in cases {
        for query in [None, reading(&[(&["A"], &["x"])]).query] {
            let request = ReadRequest {
                query,
                start,
                backwards: Some(backwards),
                ..ReadRequest::default()
            };
            let positions = client.positions(request).await;
            assert_eq!(positions, expected, "{start:?} {backwards}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_head_is_that_of_the_store_or_of_what_a_limit_left() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let heads = |messages: Vec<leftfold_proto::umadb::v1::ReadResponse>| {
        let heads = messages.iter().map(|message| message.head);
        heads.collect::<Vec<_>>()
    };
    assert_eq!(heads(client.messages(ReadRequest::default()).await), [None]);
    client.put(&[("A", &[]), ("A", &[]), ("B", &[])]).await;
    // What does not match is part of what was seen.
    assert_eq!(
        heads(client.messages(reading(&[(&["A"], &[])])).await),
        [Some(3)]
    );
    assert_eq!(
        heads(client.messages(reading(&[(&["C"], &[])])).await),
        [Some(3)]
    );
    for (limit, head) in [(2, Some(2)), (9, Some(3)), (0, None)] {
        let limit = Some(limit);
        let request = ReadRequest {
            limit,
            ..ReadRequest::default()
        };
        assert_eq!(heads(client.messages(request).await), [head], "{limit:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_limit_counts_in_both_directions() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[] as &[&str]); 300]).await;
    let cases: &[(Option<u64>, bool, u32, Vec<u64>)] = &[
        (None, false, 2, vec![1, 2]),
        (None, true, 2, vec![300, 299]),
        (Some(150), false, 140, (150..290).collect()),
        (Some(150), true, 1, vec![150]),
        (None, false, 0, vec![]),
        (None, false, u32::MAX, (1..=300).collect()),
    ];
    for (start, backwards, limit, expected) in cases {
        let request = ReadRequest {
            start: *start,
            backwards: Some(*backwards),
            limit: Some(*limit),
            ..ReadRequest::default()
        };
        assert_eq!(client.positions(request).await, *expected, "{start:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_have_as_many_events_as_were_asked_for_until_the_last() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client.put(&[("A", &[] as &[&str]); 2500]).await;
    let cases: &[(Option<u32>, &[usize])] = &[
        (Some(1000), &[1000, 1000, 500]),
        (None, &[1024, 1024, 452]),
        (Some(9999), &[2500]),
    ];
    for &(batch_size, expected) in cases {
        let request = ReadRequest {
            batch_size,
            ..ReadRequest::default()
        };
        let messages = client.messages(request).await;
        let sizes: Vec<_> = messages.iter().map(|m| m.events.len()).collect();
        assert_eq!(sizes, expected);
        assert!(messages.iter().all(|m| m.head == Some(2500)));
    }
    server.stop().await;
}

#[tokio::test]
async fn messages_fit_what_clients_take_unless_one_event_does_not() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    for mib in [2, 2, 1, 5, 1] {
        let mut large = event("A", &[]);
        large.data = vec![b'x'; mib << 20].into();
        client.append(of([large])).await.unwrap();
    }
    let messages = client.messages(ReadRequest::default()).await;
    let sizes: Vec<_> = messages.iter().map(|m| m.events.len()).collect();
    assert_eq!(sizes, [1, 2, 1, 1]);
    server.stop().await;
}

#[tokio::test]
async fn events_of_others_are_shown_but_not_those_of_system_streams() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let name = |text: &str| StreamName::new(text).unwrap();
    let of_type = |kind: &str| NewEvent::json(EventType::new(kind).unwrap(), "{\"n\":1}");
    let tagged = of_type("Deposit")
        .with_tags([Tag::new("account:7").unwrap()])
        .unwrap()
        .with_metadata("{\"$correlationId\":\"c1\",\"depth\":2}");
    let write = |stream, event| StreamWrite {
        stream,
        expected: ExpectedRevision::Any,
        events: vec![event],
    };
    // 1 is shown, 2 to 4 are not, 5 is, 6 is not.
    let mixed = vec![
        write(name("account-7"), tagged),
        write(name("$internal"), of_type("Deposit")),
        write(name("$internal"), of_type("Deposit")),
    ];
    let store = &server.store;
    store
        .append(Append::new(mixed, vec![]).unwrap())
        .await
        .unwrap();
    let metadata = StreamMetadata::default().with_max_count(9);
    let set = |stream| metadata.append_for(&stream, ExpectedRevision::Any).unwrap();
    store.append(set(name("account-7"))).await.unwrap();
    client.put(&[("Deposit", &[])]).await;
    store.append(set(name("account-8"))).await.unwrap();

    assert_eq!(client.positions(ReadRequest::default()).await, [1, 5]);
    assert_eq!(
        client.positions(reading(&[(&["Deposit"], &[])])).await,
        [1, 5]
    );
    let events = client.read(reading(&[(&[], &["account:7"])])).await;
    let shown = events[0].event.clone().unwrap();
    assert_eq!(
        (shown.event_type.as_str(), &shown.data[..]),
        ("Deposit", &b"{\"n\":1}"[..])
    );
    assert_eq!(
        shown.metadata,
        [entry("$correlationId", "c1"), entry("depth", "2")]
    );

    // What is not shown uses no limit up.
    for (limit, backwards, expected) in [
        (1, false, vec![1]),
        (2, false, vec![1, 5]),
        (9, false, vec![1, 5]),
        (1, true, vec![5]),
        (2, true, vec![5, 1]),
        (3, true, vec![5, 1]),
    ] {
        let request = ReadRequest {
            limit: Some(limit),
            backwards: Some(backwards),
            ..ReadRequest::default()
        };
        assert_eq!(
            client.positions(request).await,
            expected,
            "{limit} {backwards}"
        );
    }
    // The newest event is not shown.
    assert_eq!(client.head().await, Some(5));
    server.stop().await;
}

#[tokio::test]
async fn a_read_that_wants_to_subscribe_is_told_how() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    #[expect(deprecated, reason = "that is what is tested")]
    let request = ReadRequest {
        subscribe: Some(true),
        ..ReadRequest::default()
    };
    let refused = client.client.read(request).await.unwrap_err();
    assert_is(
        &refused,
        Code::InvalidArgument,
        ErrorType::InvalidArgument,
        "Subscribe",
    );
    let refused = client.client.read(reading(&[(&[""], &[])])).await;
    assert_is(
        &refused.unwrap_err(),
        Code::InvalidArgument,
        ErrorType::InvalidArgument,
        "EVENT_TYPE_BYTES_MAX",
    );
    server.stop().await;
}
