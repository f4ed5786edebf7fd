//! Requests that no careful client sends, by the bare protocol.
//!
//! **Owns:** what the server answers to them. **Does not know:** the client of this crate.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use leftfold_model::Position;
use leftfold_proto::{
    leftfold::v1::{
        self as wire, append_result::Outcome, error_detail::Kind, store_client::StoreClient,
    },
    prost::Message,
};
use leftfold_store::{EventStore, MemoryStore};
use tonic::{Code, Status, transport::Channel};

use crate::running::{in_time, serve};

async fn bare(settings: &[(&str, &str)]) -> (Arc<MemoryStore>, StoreClient<Channel>) {
    let store = Arc::new(MemoryStore::new());
    let shared: Arc<dyn EventStore> = store.clone();
    let address = serve(shared, settings).await.replace("leftfold", "http");
    (store, StoreClient::connect(address).await.unwrap())
}

fn event(bytes: usize) -> wire::NewEvent {
    wire::NewEvent {
        r#type: "Noted".into(),
        content_type: 1,
        data: vec![b'1'; bytes].into(),
        id_low: rand_low(),
        ..wire::NewEvent::default()
    }
}

fn rand_low() -> u64 {
    uuid::Uuid::from(leftfold_model::EventId::fresh())
        .as_u64_pair()
        .1
}

fn append(stream: &str, event: wire::NewEvent) -> wire::AppendRequest {
    wire::AppendRequest {
        writes: vec![wire::Write {
            stream: stream.into(),
            expected: None,
            events: vec![event],
        }],
        ..wire::AppendRequest::default()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, words: &[&str]) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    for word in words {
        assert!(status.message().contains(word), "{status:?}");
    }
}

#[tokio::test]
async fn a_single_append_needs_no_session() {
    let (store, mut calls) = bare(&[]).await;
    let answer = calls.append(append("a", event(2))).await.unwrap();
    let appended = answer.into_inner();
    assert_eq!((appended.first, appended.last), (1, 1));
    assert_eq!(appended.revisions, [0]);
    assert_eq!(store.head().await.unwrap(), Position::FIRST);
}

#[tokio::test]
async fn what_is_not_an_append_is_refused_with_its_reason_and_writes_nothing() {
    let (store, mut calls) = bare(&[]).await;
    let nothing = wire::AppendRequest::default();
    refused(
        calls.append(nothing).await,
        &["0 events", "APPEND_EVENTS_MAX"],
    );
    let long = "x".repeat(1_025);
    let named = append(&long, event(2));
    refused(
        calls.append(named).await,
        &["1025 bytes", "STREAM_NAME_BYTES_MAX"],
    );
    let unknown = wire::NewEvent {
        content_type: 99,
        ..event(2)
    };
    refused(
        calls.append(append("a", unknown)).await,
        &["content type 99"],
    );
    let tags = (0..65).map(|n| n.to_string()).collect();
    let tagged = wire::NewEvent { tags, ..event(2) };
    refused(calls.append(append("a", tagged)).await, &["65 tags"]);
    let empty_item = wire::Query {
        items: vec![wire::QueryItem::default()],
    };
    let mut conditioned = append("a", event(2));
    conditioned.conditions = vec![wire::Condition {
        fail_if_match: Some(empty_item),
        token: 0,
    }];
    refused(
        calls.append(conditioned).await,
        &["neither a type nor a tag"],
    );
    assert_eq!(store.head().await.unwrap(), Position::START);
}

#[tokio::test]
async fn reads_and_snapshots_that_make_no_sense_are_refused() {
    let (_store, mut calls) = bare(&[]).await;
    let from = Some(wire::read_request::From::Revision(3));
    let read = wire::ReadRequest {
        from,
        ..wire::ReadRequest::default()
    };
    let mut batches = calls.read(read).await.unwrap().into_inner();
    refused(batches.message().await, &["revision"]);
    let state = wire::StateRequest::default();
    refused(calls.state(state).await, &["stream name", "0 bytes"]);
    let save = |fingerprint: &'static [u8]| wire::SaveSnapshotRequest {
        stream: "a".into(),
        snapshot: Some(wire::Snapshot {
            fingerprint: Bytes::from_static(fingerprint),
            ..wire::Snapshot::default()
        }),
    };
    refused(
        calls.save_snapshot(save(b"short")).await,
        &["5 bytes", "16"],
    );
    let none = wire::SaveSnapshotRequest {
        stream: "a".into(),
        snapshot: None,
    };
    refused(calls.save_snapshot(none).await, &["snapshot is missing"]);
}

fn numbered(number: u64, append: Option<wire::AppendRequest>) -> wire::NumberedAppend {
    wire::NumberedAppend { number, append }
}

#[tokio::test]
async fn one_bad_append_of_a_session_does_not_harm_the_others() {
    let (store, mut calls) = bare(&[]).await;
    let message = wire::AppendsRequest {
        appends: vec![
            numbered(1, Some(append("a", event(2)))),
            numbered(2, None),
            numbered(3, Some(append("b", event(2)))),
        ],
    };
    let answers = calls.appends(stream::iter([message])).await.unwrap();
    let mut answers = answers.into_inner();
    let mut outcomes = Vec::new();
    while let Some(message) = in_time(answers.message()).await.unwrap() {
        outcomes.extend(message.answers);
    }
    outcomes.sort_by_key(|answer| answer.number);
    let is_written: Vec<_> = outcomes
        .iter()
        .map(|answer| matches!(answer.outcome, Some(Outcome::Appended(_))))
        .collect();
    assert_eq!(is_written, [true, false, true]);
    assert_eq!(store.head().await.unwrap(), Position::new(2));
}

#[tokio::test]
async fn a_session_with_a_wrong_number_ends_and_what_was_begun_is_answered() {
    let (store, mut calls) = bare(&[]).await;
    let message = wire::AppendsRequest {
        appends: vec![
            numbered(1, Some(append("a", event(2)))),
            numbered(7, Some(append("a", event(2)))),
        ],
    };
    let answers = calls.appends(stream::iter([message])).await.unwrap();
    let mut answers = answers.into_inner();
    let mut answers_seen = Vec::new();
    let status = loop {
        match in_time(answers.message()).await {
            Ok(message) => answers_seen.extend(message.unwrap().answers),
            Err(status) => break status,
        }
    };
    assert_eq!(answers_seen.len(), 1);
    refused::<()>(Err(status), &["number 7", "number 2"]);
    assert_eq!(store.head().await.unwrap(), Position::FIRST);
}

fn part(bytes: Bytes, total: usize) -> wire::AppendChunk {
    wire::AppendChunk {
        bytes,
        total_bytes: total as u64,
    }
}

#[tokio::test]
async fn an_append_in_parts_is_written_when_all_are_there_and_not_before() {
    let (store, mut calls) = bare(&[("message_bytes_max", "64KiB")]).await;
    let whole = Bytes::from(append("a", event(300_000)).encode_to_vec());
    let total = whole.len();
    let parts: Vec<_> = whole.chunks(50_000).map(Bytes::copy_from_slice).collect();
    let parts: Vec<_> = parts.into_iter().map(|bytes| part(bytes, total)).collect();
    let cut = parts[..parts.len() - 1].to_vec();
    let answer = calls.append_chunked(stream::iter(cut)).await;
    refused(answer, &["nothing was written", &total.to_string()]);
    assert_eq!(store.head().await.unwrap(), Position::START);
    let answer = calls.append_chunked(stream::iter(parts)).await.unwrap();
    assert_eq!(answer.into_inner().first, 1);
}

#[tokio::test]
async fn parts_of_no_append_are_refused() {
    let (store, mut calls) = bare(&[]).await;
    let none = stream::iter(Vec::new());
    refused(calls.append_chunked(none).await, &["without chunks"]);
    let huge = vec![part(Bytes::new(), usize::MAX)];
    let answer = calls.append_chunked(stream::iter(huge)).await;
    refused(answer, &["expected at most"]);
    let more = vec![part(Bytes::from_static(&[1; 20]), 10)];
    let answer = calls.append_chunked(stream::iter(more)).await;
    refused(answer, &["more than the 10 bytes"]);
    let garbage = vec![part(Bytes::from_static(&[0xff; 10]), 10)];
    refused(calls.append_chunked(stream::iter(garbage)).await, &[]);
    assert_eq!(store.head().await.unwrap(), Position::START);
}

#[tokio::test]
async fn a_failure_in_a_session_is_the_one_of_a_single_append() {
    let (_store, mut calls) = bare(&[]).await;
    let message = wire::AppendsRequest {
        appends: vec![numbered(1, Some(wire::AppendRequest::default()))],
    };
    let answers = calls.appends(stream::iter([message])).await.unwrap();
    let answers_seen = in_time(answers.into_inner().message())
        .await
        .unwrap()
        .unwrap();
    let Some(Outcome::Error(failure)) = &answers_seen.answers[0].outcome else {
        panic!("{answers_seen:?}");
    };
    let Some(Kind::Invalid(invalid)) = &failure.kind else {
        panic!("{failure:?}");
    };
    let single = calls.append(wire::AppendRequest::default()).await;
    assert_eq!(single.unwrap_err().message(), invalid.reason);
}

fn claim(consumer: &str, term: u64) -> Option<wire::Claim> {
    Some(wire::Claim {
        consumer: consumer.into(),
        holder: "h".into(),
        term,
        position: 0,
    })
}

fn advance(changes: Vec<wire::ConsumerChange>) -> wire::AdvanceConsumerRequest {
    wire::AdvanceConsumerRequest {
        claim: claim("c", 1),
        to: 1,
        changes,
    }
}

#[tokio::test]
async fn calls_about_consumers_that_make_no_sense_are_refused_and_change_nothing() {
    let (store, mut calls) = bare(&[]).await;
    let request = |consumer: &str, holder: &str, ttl| wire::ClaimConsumerRequest {
        consumer: consumer.into(),
        holder: holder.into(),
        ttl,
        start: 0,
    };
    let answer = calls.claim_consumer(request("a\nb", "h", 1)).await;
    refused(answer, &["consumer name is not valid"]);
    let answer = calls
        .claim_consumer(request(&"n".repeat(256), "h", 1))
        .await;
    refused(answer, &["256 bytes"]);
    refused(
        calls.claim_consumer(request("c", "", 1)).await,
        &["holder", "0 bytes"],
    );
    refused(
        calls.claim_consumer(request("c", "h", u64::MAX)).await,
        &["duration of a claim"],
    );
    calls
        .claim_consumer(request("c", "h", 1 << 30))
        .await
        .unwrap();

    refused(
        calls
            .advance_consumer(wire::AdvanceConsumerRequest::default())
            .await,
        &["claim is missing"],
    );
    let resolve = |resolution| wire::ResolveParkedRequest {
        consumer: "c".into(),
        position: 1,
        resolution,
    };
    refused(
        calls.resolve_parked(resolve(0)).await,
        &["resolution is missing"],
    );
    refused(
        calls.resolve_parked(resolve(7)).await,
        &["resolution is not valid: 7"],
    );
    let absent = calls.resolve_parked(resolve(1)).await.unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);

    let name = leftfold_store::consumers::ConsumerName::new("c").unwrap();
    let status = store.consumers().status(&name).await.unwrap().unwrap();
    assert_eq!(
        (status.position, status.term, status.timers),
        (Position::START, 1, 0)
    );
}

#[tokio::test]
async fn answers_about_timers_and_parked_events_are_bounded() {
    let (_store, mut calls) = bare(&[]).await;
    let request = wire::ClaimConsumerRequest {
        consumer: "c".into(),
        holder: "h".into(),
        ttl: 1 << 30,
        start: 0,
    };
    calls.claim_consumer(request).await.unwrap();
    let timers = (0..200).map(|nth| wire::ConsumerChange {
        kind: Some(wire::consumer_change::Kind::SetTimer(wire::Timer {
            id: format!("t{nth:03}"),
            due: nth,
            data: Bytes::new(),
        })),
    });
    let mut request = advance(timers.collect());
    request.to = 0;
    calls.advance_consumer(request).await.unwrap();
    let due = |limit| wire::DueTimersRequest {
        consumer: "c".into(),
        now: u64::MAX,
        limit,
    };
    let all = calls.due_timers(due(u64::MAX)).await.unwrap().into_inner();
    assert_eq!(all.timers.len(), 64);
    assert_eq!(all.timers[63].id, "t063");
    let two = calls.due_timers(due(2)).await.unwrap().into_inner();
    assert_eq!(two.timers.len(), 2);
}

#[tokio::test]
async fn changes_of_consumers_beyond_their_limits_are_refused_by_name() {
    let (_store, mut calls) = bare(&[]).await;
    let change = |kind| wire::ConsumerChange { kind };
    let no_kind = calls.advance_consumer(advance(vec![change(None)])).await;
    refused(no_kind, &["no kind"]);
    let timer = |id: &str, bytes| {
        change(Some(wire::consumer_change::Kind::SetTimer(wire::Timer {
            id: id.into(),
            due: 0,
            data: vec![0; bytes].into(),
        })))
    };
    let nameless = calls.advance_consumer(advance(vec![timer("", 1)])).await;
    refused(nameless, &["id of a timer"]);
    let wide = calls
        .advance_consumer(advance(vec![timer("t", 64 * 1024 + 1)]))
        .await;
    refused(wide, &["data of a timer", "65537 bytes"]);
    let large = (0..129).map(|nth| timer(&nth.to_string(), 64 * 1024));
    let large = calls.advance_consumer(advance(large.collect())).await;
    refused(large, &["size of the changes", "8388608 bytes at most"]);
    // Several times the limit is refused before it is decoded, for no change has a kind.
    let many = advance(vec![change(None); 100_001]);
    refused(calls.advance_consumer(many).await, &["CHANGES_MAX"]);
}
