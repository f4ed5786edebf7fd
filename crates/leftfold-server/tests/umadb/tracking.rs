//! Progress: noted with events or not at all, and never going back.
//!
//! **Owns:** tests. **Does not know:** how progress is stored.

use std::sync::Arc;

use leftfold_model::{Append, EventType, ExpectedRevision, NewEvent, StreamName};
use leftfold_proto::umadb::v1::{
    AppendRequest, Event, ReadRequest, TrackingRequest, error_response::ErrorType,
};
use leftfold_store::{Delete, EmbeddedStore, EventStore, LogOptions};
use tonic::Code;

use crate::{
    client::{
        TestClient, assert_is, assert_is_integrity_error, event, of, progress, query, under,
        with_id,
    },
    test_server::TestServer,
};

fn tracked(events: impl IntoIterator<Item = Event>, source: &str, position: u64) -> AppendRequest {
    AppendRequest {
        tracking_info: progress(source, position),
        ..of(events)
    }
}

#[tokio::test]
async fn progress_is_noted_with_the_events_and_shown_with_each_of_them() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.tracked("upstream").await, None);
    let request = tracked([event("A", &[]), event("B", &[])], "upstream", 5);
    let position = client.append(request).await.unwrap();
    // The position of its last event, with nothing in front of the first.
    assert_eq!(position, 2);
    assert_eq!(client.head().await, Some(position));
    assert_eq!(client.tracked("upstream").await, Some(5));
    assert_eq!(client.tracked("other").await, None);
    client
        .append(tracked([event("C", &[])], "other", 1))
        .await
        .unwrap();
    client.put(&[("D", &[])]).await;

    let events = client.read(ReadRequest::default()).await;
    let tracked: Vec<_> = events.iter().map(|e| e.tracking_info.clone()).collect();
    let upstream = progress("upstream", 5);
    assert_eq!(
        tracked,
        [upstream.clone(), upstream, progress("other", 1), None]
    );
    assert_eq!(events[1].position, position);
    assert!(
        events
            .iter()
            .all(|e| e.event.as_ref().unwrap().metadata.is_empty())
    );
    server.stop().await;
}

#[tokio::test]
async fn progress_that_does_not_advance_is_an_integrity_error_and_nothing_is_written() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client
        .append(tracked([event("A", &[])], "s", 5))
        .await
        .unwrap();
    let head = client.head().await;
    for position in [5, 4, 0] {
        let refused = client
            .append(tracked([event("A", &[])], "s", position))
            .await;
        assert_is(
            &refused.unwrap_err(),
            Code::FailedPrecondition,
            ErrorType::Integrity,
            "does not advance",
        );
    }
    assert_eq!(client.head().await, head);
    client
        .append(tracked([event("A", &[])], "s", 6))
        .await
        .unwrap();
    client
        .append(tracked([event("A", &[])], "s", u64::MAX))
        .await
        .unwrap();
    assert_eq!(client.tracked("s").await, Some(u64::MAX));
    server.stop().await;
}

#[tokio::test]
async fn a_failed_condition_leaves_progress_where_it_was() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client
        .append(tracked([event("A", &["x"])], "s", 1))
        .await
        .unwrap();
    let request = AppendRequest {
        tracking_info: progress("s", 2),
        ..under([event("A", &["x"])], query(&[(&[], &["x"])]), None)
    };
    assert_is_integrity_error(&client.append(request).await.unwrap_err());
    assert_eq!(client.tracked("s").await, Some(1));
    server.stop().await;
}

#[tokio::test]
async fn a_repeated_append_with_progress_gets_the_first_answer() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let events = || [1, 2].map(|id| with_id(event("A", &["x"]), id));
    let first = client.append(tracked(events(), "s", 1)).await.unwrap();
    assert_eq!(
        client.append(tracked(events(), "s", 1)).await.unwrap(),
        first
    );
    client
        .append(tracked([event("B", &[])], "s", 2))
        .await
        .unwrap();
    let head = client.head().await;
    // Later it is only told by its condition.
    let conditional = AppendRequest {
        tracking_info: progress("s", 1),
        ..under(events(), query(&[(&[], &["x"])]), None)
    };
    assert_eq!(client.append(conditional).await.unwrap(), first);
    assert_is_integrity_error(&client.append(tracked(events(), "s", 1)).await.unwrap_err());
    assert_eq!(client.head().await, head);
    assert_eq!(client.tracked("s").await, Some(2));
    server.stop().await;
}

#[tokio::test]
async fn what_notes_progress_is_not_seen_by_conditions() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let everything = |after| {
        let request = under([event("A", &[])], query(&[]), after);
        AppendRequest {
            tracking_info: progress("s", after.unwrap_or(0) + 1),
            ..request
        }
    };
    let mut last = None;
    for _ in 0..3 {
        last = Some(client.append(everything(last)).await.unwrap());
        assert_eq!(client.head().await, last);
    }
    assert_is_integrity_error(&client.append(everything(Some(1))).await.unwrap_err());
    let types = under([event("B", &[])], query(&[(&["$tracking"], &[])]), None);
    client.append(types).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn progress_may_be_noted_without_events() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.append(tracked([], "s", 3)).await.unwrap(), 0);
    assert_eq!(client.tracked("s").await, Some(3));
    assert!(client.read(ReadRequest::default()).await.is_empty());
    assert_is_integrity_error(&client.append(tracked([], "s", 3)).await.unwrap_err());
    server.stop().await;
}

#[tokio::test]
async fn a_source_is_any_text_up_to_its_limit() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    for source in ["", "a b/\u{fc}-$$", &"s".repeat(255)] {
        client
            .append(tracked([event("A", &[])], source, 1))
            .await
            .unwrap();
        assert_eq!(client.tracked(source).await, Some(1));
    }
    let source = "s".repeat(256);
    let refused = client.append(tracked([event("A", &[])], &source, 1)).await;
    let asked = client.client.get_tracking_info(TrackingRequest { source });
    for refused in [refused.unwrap_err(), asked.await.unwrap_err()] {
        assert_is(
            &refused,
            Code::InvalidArgument,
            ErrorType::InvalidArgument,
            "256 bytes",
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn of_many_who_track_the_same_source_each_advances_it_or_is_refused() {
    let server = TestServer::start().await;
    let attempts = (1..=24).map(|position| {
        let server = &server;
        async move {
            let mut client = TestClient::new(server).await;
            let request = tracked([event("A", &[])], "s", position);
            client.append(request).await
        }
    });
    let outcomes = futures_util::future::join_all(attempts).await;
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.tracked("s").await, Some(24));
    let events = client.read(ReadRequest::default()).await;
    let tracked: Vec<_> = events
        .iter()
        .map(|event| event.tracking_info.as_ref().unwrap().position)
        .collect();
    assert!(tracked.is_sorted_by(|a, b| a < b), "{tracked:?}");
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(tracked.len(), won);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert_is_integrity_error(&refused);
    }
    server.stop().await;
}

#[tokio::test]
async fn progress_and_repetitions_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let open = || async {
        let store = EmbeddedStore::open(directory.path(), LogOptions::default()).await;
        Arc::new(store.unwrap()) as Arc<dyn EventStore>
    };
    let request = || tracked([with_id(event("A", &["x"]), 1)], "s", 7);
    let server = TestServer::new(open().await, &[]).await;
    let mut client = TestClient::new(&server).await;
    let first = client.append(request()).await.unwrap();
    drop(client);
    server.stop().await;

    let server = TestServer::new(open().await, &[]).await;
    let mut client = TestClient::new(&server).await;
    assert_eq!(client.tracked("s").await, Some(7));
    assert_eq!(client.append(request()).await.unwrap(), first);
    assert_eq!(client.head().await, Some(first));
    let events = client.read(ReadRequest::default()).await;
    assert_eq!(events[0].tracking_info, progress("s", 7));
    server.stop().await;
}

#[tokio::test]
async fn progress_of_a_tombstoned_source_is_an_error_that_no_retry_can_help() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    client
        .append(tracked([event("A", &[])], "s", 1))
        .await
        .unwrap();
    let stream = StreamName::new("$tracking-s").unwrap();
    let delete = Delete::tombstone(stream, ExpectedRevision::Any);
    server.store.delete(delete).await.unwrap();
    let source = "s".to_owned();
    let asked = client.client.get_tracking_info(TrackingRequest { source });
    let asked = asked.await.unwrap_err();
    let noted = client.append(tracked([event("A", &[])], "s", 2)).await;
    for refused in [asked, noted.unwrap_err()] {
        assert_is(&refused, Code::FailedPrecondition, ErrorType::Io, "deleted");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_source_whose_progress_was_deleted_begins_again_with_what_it_began_with() {
    let server = TestServer::start().await;
    let mut client = TestClient::new(&server).await;
    let first = || tracked([with_id(event("A", &[]), 1)], "s", 5);
    assert_eq!(client.append(first()).await.unwrap(), 1);
    // Twice, because the second deletion meets what the first recreation stored.
    for _ in 0..2 {
        let progress = StreamName::new("$tracking-s").unwrap();
        let delete = Delete::stream(progress, ExpectedRevision::Any);
        server.store.delete(delete).await.unwrap();
        assert_eq!(client.tracked("s").await, None);
        client.append(first()).await.unwrap();
        assert_eq!(client.tracked("s").await, Some(5));
    }
    assert_eq!(client.read(ReadRequest::default()).await.len(), 3);
    server.stop().await;
}

/// The stream of a source may be truncated or appended to by others, as any stream may.
#[tokio::test]
async fn a_source_whose_newest_progress_is_not_its_newest_event_goes_on() {
    for (stream, kind, data) in [
        ("$$$tracking-s", "$metadata", r#"{"$tb":1000}"#),
        ("$tracking-s", "Noted", "{}"),
    ] {
        let server = TestServer::start().await;
        let mut client = TestClient::new(&server).await;
        let mut note = async |id: u32, position: u64| {
            let noted = tracked([with_id(event("A", &[]), id)], "s", position);
            client.append(noted).await
        };
        note(1, 5).await.unwrap();
        let beside = NewEvent::json(EventType::new(kind).unwrap(), data);
        let stream = StreamName::new(stream).unwrap();
        let beside = Append::to(stream, ExpectedRevision::Any, vec![beside]).unwrap();
        server.store.append(beside).await.unwrap();
        for (id, position) in [(2, 6), (3, 7)] {
            note(id, position).await.unwrap();
        }
        server.stop().await;
    }
}
