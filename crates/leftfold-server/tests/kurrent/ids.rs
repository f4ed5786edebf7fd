//! Event ids: unique in a stream, not in the log.
//!
//! **Owns:** tests. **Does not know:** how another id is found for the store.

use leftfold_proto::event_store::client::{
    Uuid,
    streams::{append_req::ProposedMessage, read_resp::Content},
    uuid::{Structured, Value},
};
use tonic::Code;

use crate::{
    client::{TestClient, any, event, id, none, of_stream, read, success, wrong},
    test_server::TestServer,
};

fn copy(original: &ProposedMessage, metadata: &'static [u8]) -> ProposedMessage {
    ProposedMessage {
        custom_metadata: bytes::Bytes::from_static(metadata),
        ..original.clone()
    }
}

/// Id and metadata of each event of a stream.
async fn shown(client: &TestClient, stream: &str) -> Vec<(Option<Uuid>, bytes::Bytes)> {
    let answers = client.all(of_stream(stream)).await;
    let events = answers.iter().filter_map(|answer| match answer {
        Content::Event(event) => read(event).event,
        _ => None,
    });
    events
        .map(|event| (event.id, event.custom_metadata))
        .collect()
}

#[tokio::test]
async fn an_event_id_in_two_streams_is_two_events() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let original = event("Placed");
    let first = client.append("a", none(), vec![original.clone()]).await;
    success(first.unwrap());
    let metadata: [&'static [u8]; 6] = [
        b"",
        b"{}",
        br#"{"k": 1.50 , "big":12345678901234567890123}"#,
        b"{\"k\":1} ",
        b"\xff\x00 no text",
        br#"{"$id":"00000000-0000-4000-8000-000000000001"}"#,
    ];
    for (nth, metadata) in metadata.into_iter().enumerate() {
        let stream = format!("b-{nth}");
        let copied = copy(&original, metadata);
        let placed = success(
            client
                .append(&stream, none(), vec![copied.clone()])
                .await
                .unwrap(),
        );
        // It is unique there: the append again gets the first answer.
        for expected in [none(), any()] {
            let again = client.append(&stream, expected, vec![copied.clone()]).await;
            assert_eq!(success(again.unwrap()), placed, "{metadata:?}");
        }
        let expected = (original.id.clone(), bytes::Bytes::from_static(metadata));
        assert_eq!(shown(&client, &stream).await, [expected]);
    }
    assert_eq!(shown(&client, "a").await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn some_ids_that_stand_elsewhere_do_not_hold_up_the_others() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let events: Vec<_> = ["One", "Two", "Three"].map(event).into();
    success(
        client
            .append("a", any(), events[1..2].to_vec())
            .await
            .unwrap(),
    );
    let placed = success(client.append("b", none(), events.clone()).await.unwrap());
    let again = client.append("b", none(), events.clone()).await;
    assert_eq!(success(again.unwrap()), placed);
    let ids: Vec<_> = shown(&client, "b")
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert!(ids.iter().eq(events.iter().map(|event| &event.id)));
    // Stored in part in this very stream, it is no repetition.
    let mut part = events[..2].to_vec();
    part.push(event("Four"));
    wrong(client.append("b", none(), part).await.unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_part_of_what_was_appended_is_a_repetition_though_other_ids_stand_elsewhere() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let kinds = ["One", "Two", "Three", "Four", "Five"];
    let events: Vec<_> = kinds.map(event).into();
    for (stream, some) in [("a", &events[1..2]), ("c", &events[3..])] {
        success(client.append(stream, any(), some.to_vec()).await.unwrap());
    }
    let placed = success(client.append("b", any(), events.clone()).await.unwrap());
    for expected in [any(), none()] {
        let again = client.append("b", expected, events.clone()).await;
        assert_eq!(success(again.unwrap()), placed);
    }
    for part in [0..1, 1..2, 2..3, 3..5, 0..2, 2..5] {
        let again = client.append("b", any(), events[part].to_vec()).await;
        success(again.unwrap());
    }
    let ids = shown(&client, "b").await.into_iter().map(|(id, _)| id);
    assert!(ids.eq(events.iter().map(|event| event.id.clone())));
    // What goes on behind a part that is stored is no repetition.
    let mut on = events[2..].to_vec();
    on.push(event("Six"));
    wrong(client.append("b", any(), on).await.unwrap());
    server.stop().await;
}

#[tokio::test]
async fn a_nil_id_is_no_id_and_these_clients_have_to_send_one() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let text = Value::String(uuid::Uuid::nil().to_string());
    let halves = Value::Structured(Structured {
        most_significant_bits: 0,
        least_significant_bits: 0,
    });
    for value in [text, halves] {
        let mut nil = event("A");
        nil.id = Some(Uuid { value: Some(value) });
        let refused = client.append("a", any(), vec![nil]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("id"), "{refused:?}");
    }
    let mut other = event("A");
    other.id = Some(id());
    success(client.append("a", none(), vec![other]).await.unwrap());
    server.stop().await;
}
