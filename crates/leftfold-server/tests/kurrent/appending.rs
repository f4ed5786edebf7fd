//! Single appends: expectations, repetitions, and what is wrong with an event.
//!
//! **Owns:** the rules of `Append`. **Does not know:** batches.

use bytes::Bytes;
use leftfold_model::limits;
use leftfold_proto::event_store::client::Empty;
use leftfold_proto::event_store::client::streams::{
    append_req::options::ExpectedStreamRevision as Expected,
    append_resp::{
        success::CurrentRevisionOption as Current,
        wrong_expected_version::{
            CurrentRevisionOption, CurrentRevisionOption2060, ExpectedRevisionOption,
        },
    },
};
use tonic::Code;

use crate::{
    client::{TestClient, any, code_and_trailer, entry, event, exists, none, success, wrong},
    test_server::TestServer,
};

#[tokio::test]
async fn a_wrong_expectation_is_an_answer_in_both_of_its_forms() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let answer = client.append("a", exists(), vec![event("One")]).await;
    let refusal = wrong(answer.unwrap());
    assert_eq!(
        refusal.current_revision_option,
        Some(CurrentRevisionOption::CurrentNoStream(Empty {}))
    );
    client.put("a", &["One", "Two"]).await;
    let answer = client.append("a", none(), vec![event("Three")]).await;
    let refusal = wrong(answer.unwrap());
    assert_eq!(
        refusal.current_revision_option,
        Some(CurrentRevisionOption::CurrentRevision(1))
    );
    assert_eq!(
        refusal.current_revision_option_20_6_0,
        Some(CurrentRevisionOption2060::CurrentRevision2060(1))
    );
    assert_eq!(
        refusal.expected_revision_option,
        Some(ExpectedRevisionOption::ExpectedNoStream(Empty {}))
    );
    server.stop().await;
}

#[tokio::test]
async fn a_repetition_is_answered_as_the_first_time_and_another_append_is_wrong() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let events = vec![event("One"), event("Two")];
    let first = success(client.append("a", none(), events.clone()).await.unwrap());
    assert_eq!(
        first.current_revision_option,
        Some(Current::CurrentRevision(1))
    );
    for expected in [none(), any()] {
        let again = success(client.append("a", expected, events.clone()).await.unwrap());
        assert_eq!(again, first);
    }
    let partly = vec![events[0].clone(), event("Other")];
    wrong(client.append("a", none(), partly).await.unwrap());
    let later = Expected::Revision(0);
    wrong(
        client
            .append("a", later, vec![event("Other")])
            .await
            .unwrap(),
    );
    server.stop().await;
}

#[tokio::test]
async fn an_append_of_nothing_looks_at_the_stream() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let look = async |stream: &str, expected| client.append(stream, expected, Vec::new()).await;
    let seen = success(look("a", any()).await.unwrap());
    assert_eq!(
        seen.current_revision_option,
        Some(Current::NoStream(Empty {}))
    );
    wrong(look("a", exists()).await.unwrap());
    client.put("a", &["One"]).await;
    let seen = success(look("a", exists()).await.unwrap());
    assert_eq!(
        seen.current_revision_option,
        Some(Current::CurrentRevision(0))
    );
    client.put("$$b", &["$metadata"]).await;
    success(look("b", exists()).await.unwrap());
    let deleting = crate::client::Deleting::Any(Empty {});
    client.delete("a", deleting).await.unwrap();
    let deleted = look("a", exists()).await.unwrap_err();
    assert_eq!(
        code_and_trailer(&deleted, "exception"),
        (Code::FailedPrecondition, Some("stream-deleted"))
    );
    success(look("a", none()).await.unwrap());
    server.stop().await;
}

#[tokio::test]
async fn an_event_that_misses_something_is_refused_by_name() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut without_type = event("One");
    without_type.metadata = vec![entry("content-type", "application/json")];
    let refused = client
        .append("a", any(), vec![without_type])
        .await
        .unwrap_err();
    assert_eq!(
        code_and_trailer(&refused, "exception"),
        (
            Code::InvalidArgument,
            Some("missing-required-metadata-property")
        )
    );
    assert_eq!(
        code_and_trailer(&refused, "required-metadata-properties").1,
        Some("type,content-type")
    );
    let mut without_id = event("One");
    without_id.id = None;
    let refused = client
        .append("a", any(), vec![without_id])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    for stream in ["", "$$", &"n".repeat(1_025)] {
        let refused = client.append(stream, any(), vec![event("One")]).await;
        assert_eq!(
            refused.unwrap_err().code(),
            Code::InvalidArgument,
            "{stream}"
        );
    }
    let refused = client
        .append("a", any(), vec![event(&"t".repeat(256))])
        .await;
    let message = refused.unwrap_err().message().to_owned();
    assert!(message.contains("255"), "{message}");
    assert_eq!(
        server.store.head().await.unwrap().get(),
        0,
        "nothing was written"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_event_or_append_that_is_too_large_is_told_with_its_size() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut large = event("One");
    large.data = Bytes::from(vec![b'x'; limits::DATA_BYTES_MAX - 5]);
    let refused = client
        .append("a", any(), vec![large.clone()])
        .await
        .unwrap_err();
    assert_eq!(
        code_and_trailer(&refused, "exception"),
        (
            Code::InvalidArgument,
            Some("maximum-append-event-size-exceeded")
        )
    );
    let proposed = (limits::DATA_BYTES_MAX + 1).to_string();
    assert_eq!(
        code_and_trailer(&refused, "proposed-append-event-size").1,
        Some(proposed.as_str())
    );
    assert!(refused.metadata().contains_key("event-id"));
    large.data.truncate(limits::DATA_BYTES_MAX - 6);
    success(
        client
            .append("a", any(), vec![large.clone()])
            .await
            .unwrap(),
    );
    let many = (0..6).map(|_| {
        let mut each = event("One");
        each.data = large.data.slice(0..12 << 20);
        each
    });
    let refused = client.append("a", any(), many.collect()).await.unwrap_err();
    assert_eq!(
        code_and_trailer(&refused, "exception"),
        (Code::InvalidArgument, Some("maximum-append-size-exceeded"))
    );
    assert_eq!(server.store.head().await.unwrap().get(), 1);
    server.stop().await;
}

#[tokio::test]
async fn what_is_gathered_by_all_calls_together_has_room_for_so_much_and_no_more() {
    let store = std::sync::Arc::new(leftfold_store::MemoryStore::new());
    let server = TestServer::new(
        store,
        &[
            ("message_bytes_max", "64KiB"),
            ("in_flight_bytes_max", "128KiB"),
        ],
    )
    .await;
    let client = TestClient::new(&server).await;
    let mut each = event("One");
    each.data = Bytes::from(vec![b'x'; 30_000]);
    let many = (0..4).map(|_| event("One")).map(|mut event| {
        event.data = each.data.clone();
        event
    });
    let refused = client.append("a", any(), many.collect()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused.message().starts_with("Server Is Too Busy"),
        "{refused}"
    );
    // What the refused call held is free again.
    success(client.append("a", any(), vec![each]).await.unwrap());
    server.stop().await;
}
