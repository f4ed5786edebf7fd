//! Batches: many appends on one call.
//!
//! **Owns:** the rules of `BatchAppend`. **Does not know:** single appends.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use leftfold_model::limits;
use leftfold_proto::{
    event_store::client::{
        MaximumAppendEventSizeExceeded, StreamDeleted, Timeout, Uuid, WrongExpectedVersion,
        streams::{
            BatchAppendReq, BatchAppendResp,
            batch_append_req::{
                Options, ProposedMessage,
                options::{DeadlineOption, ExpectedStreamPosition as Expected},
            },
            batch_append_resp::{
                self,
                success::{CurrentRevisionOption, PositionOption},
            },
        },
        uuid,
    },
    google::rpc,
    prost::{Message, Name},
};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::{
    client::{TestClient, event, id, name},
    test_server::TestServer,
};

/// One call.
struct Call {
    requests: mpsc::Sender<BatchAppendReq>,
    answers: Streaming<BatchAppendResp>,
}

impl Call {
    async fn on(client: &TestClient) -> Self {
        let (requests, receiver) = mpsc::channel(2_000);
        let receiver = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let next: BatchAppendReq = receiver.recv().await?;
            Some((next, receiver))
        });
        let answers = client.client.clone().batch_append(receiver).await.unwrap();
        Self {
            requests,
            answers: answers.into_inner(),
        }
    }

    async fn say(&self, request: BatchAppendReq) {
        self.requests.send(request).await.unwrap();
    }

    async fn hear(&mut self) -> BatchAppendResp {
        self.answers.message().await.unwrap().unwrap()
    }

    /// Ends its own side; then what still comes.
    async fn end(self) -> Vec<Result<BatchAppendResp, Status>> {
        drop(self.requests);
        self.answers.collect().await
    }
}

fn proposed(kind: &str) -> ProposedMessage {
    let event = event(kind);
    ProposedMessage {
        id: event.id,
        metadata: event.metadata,
        custom_metadata: event.custom_metadata,
        data: event.data,
    }
}

/// A batch of one part.
fn batch(id: &Uuid, stream: &str, expected: Expected, types: &[&str]) -> BatchAppendReq {
    BatchAppendReq {
        correlation_id: Some(id.clone()),
        options: Some(Options {
            stream_identifier: Some(name(stream)),
            deadline_option: None,
            expected_stream_position: Some(expected),
        }),
        proposed_messages: types.iter().map(|kind| proposed(kind)).collect(),
        is_final: true,
    }
}

fn within(mut request: BatchAppendReq, deadline: DeadlineOption) -> BatchAppendReq {
    request.options.as_mut().unwrap().deadline_option = Some(deadline);
    request
}

#[track_caller]
fn revision(answer: &BatchAppendResp) -> u64 {
    match answer.result.as_ref().unwrap() {
        batch_append_resp::Result::Success(success) => {
            assert!(matches!(
                success.position_option,
                Some(PositionOption::Position(_))
            ));
            match success.current_revision_option {
                Some(CurrentRevisionOption::CurrentRevision(at)) => at,
                _ => panic!("no revision"),
            }
        }
        batch_append_resp::Result::Error(error) => panic!("{error:?}"),
    }
}

#[track_caller]
fn refused(answer: &BatchAppendResp) -> &rpc::Status {
    match answer.result.as_ref().unwrap() {
        batch_append_resp::Result::Error(error) => error,
        batch_append_resp::Result::Success(success) => panic!("{success:?}"),
    }
}

/// The detail of an error, which must be of this type.
#[track_caller]
fn detail<M: Message + Name + Default>(error: &rpc::Status) -> M {
    let any = &error.details[0];
    assert!(any.type_url.ends_with(&M::full_name()), "{}", any.type_url);
    M::decode(&*any.value).unwrap()
}

#[tokio::test]
async fn appends_of_one_call_keep_their_order_also_where_streams_have_metadata() {
    let data = tempfile::tempdir().unwrap();
    let options = leftfold_store::LogOptions::default();
    let store = leftfold_store::EmbeddedStore::open(data.path(), options)
        .await
        .unwrap();
    let server = TestServer::new(std::sync::Arc::new(store), &[]).await;
    let client = TestClient::new(&server).await;
    client.put("$$other", &["$metadata"]).await;
    let mut call = Call::on(&client).await;
    for nth in 0..100 {
        let expected = match nth {
            0 => Expected::NoStream(()),
            nth => Expected::StreamPosition(nth - 1),
        };
        call.say(batch(&id(), "a", expected, &["One"])).await;
    }
    let mut revisions = Vec::new();
    for _ in 0..100 {
        revisions.push(revision(&call.hear().await));
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (0..100).collect::<Vec<_>>());
    assert!(call.end().await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn parts_of_several_batches_may_come_in_turn() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    let (a, b) = (id(), id());
    let any = || Expected::Any(());
    for (id, stream) in [(&a, "a"), (&b, "b")] {
        let first = batch(id, stream, any(), &["One"]);
        call.say(BatchAppendReq {
            is_final: false,
            ..first
        })
        .await;
    }
    for id in [&a, &b] {
        let more = batch(id, "", any(), &["Two", "Three"]);
        call.say(BatchAppendReq {
            options: None,
            ..more
        })
        .await;
    }
    let answers = [call.hear().await, call.hear().await];
    for (id, stream) in [(&a, "a"), (&b, "b")] {
        let answer = answers
            .iter()
            .find(|answer| answer.correlation_id.as_ref() == Some(id));
        let answer = answer.unwrap();
        assert_eq!(answer.stream_identifier, Some(name(stream)));
        assert_eq!(revision(answer), 2);
    }
    let stray = BatchAppendReq {
        options: None,
        ..batch(&id(), "", any(), &["One"])
    };
    call.say(stray).await;
    assert_eq!(
        refused(&call.hear().await).code,
        Code::InvalidArgument as i32
    );
    server.stop().await;
}

#[tokio::test]
async fn options_that_come_again_with_a_part_drop_no_event_of_the_parts_before() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    let part = |id: &Uuid, stream, types: &[&str], is_final| BatchAppendReq {
        is_final,
        ..batch(id, stream, Expected::Any(()), types)
    };
    let (same, other) = (id(), id());
    for is_final in [false, false, true] {
        call.say(part(&same, "a", &["One", "Two"], is_final)).await;
    }
    assert_eq!(revision(&call.hear().await), 5);
    // Other options are those of another append, and nothing is written of either.
    call.say(part(&other, "b", &["One"], false)).await;
    call.say(part(&other, "c", &["Two"], true)).await;
    let answer = call.hear().await;
    let refusal = refused(&answer);
    assert!(refusal.message.contains("options of a batch changed"));
    assert_eq!(server.store.head().await.unwrap().get(), 6);
    server.stop().await;
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "clients sender deadlines by the clock on the wall"
)]
async fn a_batch_whose_time_is_over_is_not_begun() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    let ago = SystemTime::now() - Duration::from_secs(1);
    let soon = SystemTime::now() + Duration::from_secs(60);
    let zero = leftfold_proto::prost_types::Duration {
        seconds: 0,
        nanos: 0,
    };
    let any = || Expected::Any(());
    for deadline in [
        DeadlineOption::Deadline21100(ago.into()),
        DeadlineOption::Deadline(zero),
    ] {
        call.say(within(batch(&id(), "a", any(), &["One"]), deadline))
            .await;
        let answer = call.hear().await;
        assert_eq!(refused(&answer).code, Code::DeadlineExceeded as i32);
        detail::<Timeout>(refused(&answer));
    }
    let in_time = within(
        batch(&id(), "a", any(), &["One"]),
        DeadlineOption::Deadline21100(soon.into()),
    );
    call.say(in_time).await;
    assert_eq!(revision(&call.hear().await), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_not_completed_in_time_is_given_up() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    let soon = leftfold_proto::prost_types::Duration {
        seconds: 0,
        nanos: 50_000_000,
    };
    let begun = within(
        batch(&id(), "a", Expected::Any(()), &["One"]),
        DeadlineOption::Deadline(soon),
    );
    call.say(BatchAppendReq {
        is_final: false,
        ..begun
    })
    .await;
    assert_eq!(
        refused(&call.hear().await).code,
        Code::DeadlineExceeded as i32
    );
    assert_eq!(server.store.head().await.unwrap().get(), 0);
    server.stop().await;
}

#[tokio::test]
async fn errors_are_answers_with_the_details_that_clients_know() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    client.put("gone", &["One"]).await;
    client.tombstone("gone").await.unwrap();
    let mut call = Call::on(&client).await;
    call.say(batch(&id(), "a", Expected::StreamPosition(7), &["One"]))
        .await;
    let answer = call.hear().await;
    assert_eq!(refused(&answer).code, Code::AlreadyExists as i32);
    let wrong: WrongExpectedVersion = detail(refused(&answer));
    use leftfold_proto::event_store::client::wrong_expected_version as receiver;
    assert_eq!(
        wrong.current_stream_revision_option,
        Some(receiver::CurrentStreamRevisionOption::CurrentNoStream(()))
    );
    call.say(batch(&id(), "gone", Expected::Any(()), &["One"]))
        .await;
    let answer = call.hear().await;
    assert_eq!(refused(&answer).code, Code::NotFound as i32);
    detail::<StreamDeleted>(refused(&answer));
    let mut large = batch(&id(), "a", Expected::Any(()), &["One"]);
    large.proposed_messages[0].data = vec![b'x'; limits::DATA_BYTES_MAX].into();
    call.say(large).await;
    let answer = call.hear().await;
    detail::<MaximumAppendEventSizeExceeded>(refused(&answer));
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_the_call_with_an_error_after_the_answers() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    call.say(batch(&id(), "a", Expected::Any(()), &["One"]))
        .await;
    assert_eq!(revision(&call.hear().await), 0);
    let mut enormous = batch(&id(), "a", Expected::Any(()), &["One"]);
    enormous.proposed_messages[0].data = vec![b'x'; limits::DATA_BYTES_MAX + (2 << 20)].into();
    call.say(enormous).await;
    let rest = call.end().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].as_ref().unwrap_err().code(), Code::OutOfRange);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_calls_that_stay_open() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    call.say(batch(&id(), "a", Expected::Any(()), &["One"]))
        .await;
    assert_eq!(revision(&call.hear().await), 0);
    let stopped = tokio::spawn(server.stop());
    let end = call.answers.message().await;
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_correlation_id_that_is_no_uuid_ends_the_call_and_a_name_that_is_none_is_not_repeated() {
    let server = TestServer::start().await;
    let client = TestClient::new(&server).await;
    let mut call = Call::on(&client).await;
    let (asked, long) = (id(), "x".repeat(limits::STREAM_NAME_BYTES_MAX + 1));
    call.say(batch(&asked, &long, Expected::Any(()), &["One"]))
        .await;
    let answer = call.hear().await;
    assert!(refused(&answer).message.contains("STREAM_NAME_BYTES_MAX"));
    assert_eq!(
        (answer.correlation_id, answer.stream_identifier),
        (Some(asked), None)
    );
    let long = Uuid {
        value: Some(uuid::Value::String("x".repeat(65))),
    };
    let batch = BatchAppendReq {
        is_final: false,
        ..batch(&long, "a", Expected::Any(()), &[])
    };
    call.say(batch).await;
    let ended = call.answers.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::InvalidArgument);
    assert!(ended.message().contains("65 bytes"), "{ended:?}");
    server.stop().await;
}
