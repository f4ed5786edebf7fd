//! Event ids: what they are to these clients, and when an append is taken for a retry.
//!
//! **Owns:** tests. **Does not know:** conditions without ids; see `appending`.

use leftfold_model::{
    Append, EventId, EventType, ExpectedRevision, NewEvent, Read, RecordedEvent, StreamName,
};
use leftfold_proto::umadb::v1::{Event, ReadRequest};
use leftfold_store::EventStore;

use crate::{
    client::{
        Item, TestClient, assert_is_integrity_error, entry, event, of, progress, query, reading,
        under, with_id,
    },
    test_server::TestServer,
};

const NIL: &str = "00000000-0000-0000-0000-000000000000";
const COURSE: &[Item<'_>] = &[(&[], &["course:c1"])];

fn with_uuid(uuid: &str) -> Event {
    Event {
        uuid: uuid.into(),
        ..event("Seat", &["course:c1"])
    }
}

async fn uuids(client: &mut TestClient) -> Vec<String> {
    let events = client.read(ReadRequest::default()).await;
    let uuids = events.into_iter().map(|event| event.event.unwrap().uuid);
    uuids.collect()
}

async fn stored(store: &dyn EventStore) -> Vec<RecordedEvent> {
    let batches: Vec<_> = futures_util::TryStreamExt::try_collect(store.read(Read::all()))
        .await
        .unwrap();
    batches.into_iter().flat_map(|batch| batch.events).collect()
}

#[tokio::test]
async fn events_with_the_nil_id_are_stored_each_and_come_back_as_they_were() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let append = |count: usize| of((0..count).map(|_| with_uuid(NIL)));
    assert_eq!(client.append(append(1)).await.unwrap(), 1);
    assert_eq!(client.append(append(1)).await.unwrap(), 2);
    assert_eq!(client.append(append(2)).await.unwrap(), 4);
    assert_eq!(uuids(&mut client).await, [NIL; 4]);
    // Elsewhere each has an id of its own.
    let mut ids: Vec<_> = stored(&*server.store)
        .await
        .iter()
        .map(|event| event.id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    assert!(!ids.contains(&EventId::from_bytes([0; 16])));
    server.stop().await;
}

#[tokio::test]
async fn an_event_without_an_id_comes_back_without_one_and_with_its_metadata() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let mut noted = with_uuid("");
    noted.metadata = vec![entry("$id", "mine"), entry("k", "v")];
    client.append(of([with_uuid(""), noted])).await.unwrap();
    let events = client.read(ReadRequest::default()).await;
    let events: Vec<_> = events
        .into_iter()
        .map(|event| event.event.unwrap())
        .collect();
    assert_eq!(events[0].uuid, "");
    assert!(events[0].metadata.is_empty());
    assert_eq!(events[1].uuid, "");
    assert_eq!(events[1].metadata, [entry("$id", "mine"), entry("k", "v")]);
    server.stop().await;
}

#[tokio::test]
async fn an_unconditional_append_is_never_taken_for_a_retry() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let events = || [1, 2].map(|id| with_id(event("Seat", &["course:c1"]), id));
    assert_eq!(client.append(of(events())).await.unwrap(), 2);
    assert_eq!(client.append(of(events())).await.unwrap(), 4);
    // Some of the ids, and others beside them.
    let some = [2, 3].map(|id| with_id(event("Seat", &["course:c1"]), id));
    assert_eq!(client.append(of(some)).await.unwrap(), 6);
    let numbers: Vec<_> = uuids(&mut client).await;
    let numbers: Vec<_> = numbers.iter().map(|id| &id[id.len() - 1..]).collect();
    assert_eq!(numbers, ["1", "2", "1", "2", "2", "3"]);
    server.stop().await;
}

#[tokio::test]
async fn ids_are_looked_at_only_after_the_condition_has_failed() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let events = || [1, 2].map(|id| with_id(event("Seat", &["course:c1"]), id));
    assert_eq!(client.append(of(events())).await.unwrap(), 2);
    // The condition holds: these are other events, whatever ids they have.
    let holds = under(events(), query(COURSE), Some(2));
    assert_eq!(client.append(holds).await.unwrap(), 4);
    // It fails, and what it finds is what is submitted.
    let first = under(events(), query(COURSE), None);
    assert_eq!(client.append(first).await.unwrap(), 2);
    let second = under(events(), query(COURSE), Some(2));
    assert_eq!(client.append(second).await.unwrap(), 4);
    // It fails, and what it finds has other ids, or another order.
    let other = under(
        [with_id(event("Seat", &["course:c1"]), 9)],
        query(COURSE),
        None,
    );
    assert_is_integrity_error(&client.append(other).await.unwrap_err());
    let reversed = under(events().into_iter().rev(), query(COURSE), None);
    assert_is_integrity_error(&client.append(reversed).await.unwrap_err());
    // Nil ids tell no more than none.
    let nil = || under([with_uuid(NIL)], query(&[(&["Other"], &[])]), None);
    let other_type = |mut request: leftfold_proto::umadb::v1::AppendRequest| {
        request.events[0].event_type = "Other".into();
        request
    };
    assert_eq!(client.append(other_type(nil())).await.unwrap(), 5);
    assert_is_integrity_error(&client.append(other_type(nil())).await.unwrap_err());
    assert_eq!(client.head().await, Some(5));
    server.stop().await;
}

#[tokio::test]
async fn one_id_twice_in_an_append_is_two_events() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let twice = || [7, 7].map(|id| with_id(event("Seat", &["course:c1"]), id));
    assert_eq!(client.append(of(twice())).await.unwrap(), 2);
    assert_eq!(
        client
            .append(under(twice(), query(COURSE), None))
            .await
            .unwrap(),
        2
    );
    assert_eq!(client.append(of(twice())).await.unwrap(), 4);
    let shown = uuids(&mut client).await;
    assert!(shown.iter().all(|id| id.ends_with("000007")), "{shown:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_id_that_stands_in_another_stream_is_no_obstacle() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let kind = EventType::new("Copied").unwrap();
    let id: EventId = with_id(event("Seat", &[]), 3).uuid.parse().unwrap();
    let original = NewEvent::json(kind, "{}").with_id(id);
    let elsewhere = StreamName::new("orders-1").unwrap();
    let append = Append::to(elsewhere, ExpectedRevision::Any, vec![original]);
    server.store.append(append.unwrap()).await.unwrap();
    let copied = with_id(event("Seat", &["course:c1"]), 3);
    assert_eq!(client.append(of([copied])).await.unwrap(), 2);
    let shown = client.read(reading(COURSE)).await;
    assert!(shown[0].event.as_ref().unwrap().uuid.ends_with("000003"));
    server.stop().await;
}

#[tokio::test]
async fn progress_with_ids_that_are_stored_is_noted_with_new_events() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let tracked = |position| {
        let mut request = of([with_id(event("A", &["x"]), 1)]);
        request.tracking_info = progress("s", position);
        request
    };
    let first = client.append(tracked(1)).await.unwrap();
    assert_eq!(first, 1);
    let second = client.append(tracked(2)).await.unwrap();
    assert!(second > first);
    assert_eq!(client.tracked("s").await, Some(2));
    assert_eq!(client.append(tracked(2)).await.unwrap(), second);
    assert_is_integrity_error(&client.append(tracked(1)).await.unwrap_err());
    assert_eq!(uuids(&mut client).await.len(), 2);
    server.stop().await;
}
