//! Appends of sessions and batches, which outlive a request, on a server with users.
//!
//! **Owns:** who may append in a session. **Does not know:** how a session answers.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_proto::{
    event_store::client::{
        StreamIdentifier, Uuid,
        streams::{
            BatchAppendReq, MetadataEntry,
            batch_append_req::{
                Options, ProposedMessage,
                options::{DeadlineOption, ExpectedStreamPosition},
            },
            batch_append_resp::Result as Answer,
            streams_client::StreamsClient,
        },
        uuid::Value,
    },
    leftfold::v1::{
        AppendRequest, AppendsRequest, AppendsResponse, ContentType, NewEvent, NumberedAppend,
        Write, append_result::Outcome, store_client::StoreClient,
    },
    prost_types,
};
use leftfold_store::{
    AppendError, Capabilities, Delete, Delivery, EventStore, ListStreams, MemoryStore, ReadBatch,
    ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState,
    Subscription,
};
use tokio::sync::Semaphore;
use tonic::Request;

use crate::{certificates::Authority, tls::TlsTestServer};

fn append(number: u64, stream: &str) -> NumberedAppend {
    let event = NewEvent {
        id_high: number,
        id_low: 7,
        r#type: "Noted".into(),
        content_type: ContentType::Json.into(),
        data: "{}".into(),
        ..NewEvent::default()
    };
    let write = Write {
        stream: stream.into(),
        expected: None,
        events: vec![event],
    };
    NumberedAppend {
        number,
        append: Some(AppendRequest {
            writes: vec![write],
            ..AppendRequest::default()
        }),
    }
}

fn by_admin<T>(password: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Basic {}", STANDARD.encode(format!("admin:{password}")));
    let metadata = request.metadata_mut();
    metadata.insert("authorization", value.parse().unwrap());
    request
}

#[tokio::test]
async fn appends_of_a_session_have_the_rights_of_the_user_who_began_it() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let server = TlsTestServer::start(Arc::new(MemoryStore::new()), &authority, &[]).await;
    let password = server.first_password.clone().unwrap();
    let channel = server.connect(&authority, None).await.unwrap();
    let appends = vec![append(1, "orders-1"), append(2, "orders-2")];
    let request = by_admin(&password, stream::iter([AppendsRequest { appends }]));
    let answers = StoreClient::new(channel).appends(request).await.unwrap();
    let answers: Vec<AppendsResponse> = answers.into_inner().try_collect().await.unwrap();
    let mut answers: Vec<_> = answers.into_iter().flat_map(|all| all.answers).collect();
    answers.sort_by_key(|answer| answer.number);
    let appended = |answer: usize| matches!(answers[answer].outcome, Some(Outcome::Appended(_)));
    assert!(appended(0) && appended(1), "{answers:?}");
}

/// A store that tells the state of a stream only when it may.
#[derive(Debug)]
struct Slow {
    inner: MemoryStore,
    states: Arc<Semaphore>,
}

impl EventStore for Slow {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.inner.append(append)
    }
    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        self.inner.read(read)
    }
    fn subscribe(&self, from: Subscription) -> BoxStream<'static, Result<Delivery, ReadError>> {
        self.inner.subscribe(from)
    }
    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        self.inner.head()
    }
    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        Box::pin(async move {
            let _permit = self.states.acquire().await;
            self.inner.stream_state(stream).await
        })
    }
    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        self.inner.delete(delete)
    }
    fn scavenge(&self, run: Scavenge) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        self.inner.scavenge(run)
    }
    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        self.inner.streams(list)
    }
    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        self.inner.stats()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        self.inner.snapshots()
    }
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        self.inner.close()
    }
}

#[tokio::test]
async fn a_batch_that_goes_on_after_its_deadline_keeps_the_rights_of_its_user() {
    let authority = Authority::new();
    authority.issue("server", "leftfold");
    let states = Arc::new(Semaphore::new(0));
    let store: Arc<dyn EventStore> = Arc::new(Slow {
        inner: MemoryStore::new(),
        states: Arc::clone(&states),
    });
    let server = TlsTestServer::start(Arc::clone(&store), &authority, &[]).await;
    let password = server.first_password.clone().unwrap();
    let channel = server.connect(&authority, None).await.unwrap();
    let entry = |key: &'static str, value: &'static str| MetadataEntry {
        key: Bytes::from(key),
        value: Bytes::from(value),
    };
    let id = |text: &str| Uuid {
        value: Some(Value::String(text.to_owned())),
    };
    let within = prost_types::Duration {
        seconds: 0,
        nanos: 50_000_000,
    };
    let batch = BatchAppendReq {
        correlation_id: Some(id("1")),
        options: Some(Options {
            // One whose state is looked up before it is written.
            stream_identifier: Some(StreamIdentifier {
                stream_name: Bytes::from("$$orders-1"),
            }),
            deadline_option: Some(DeadlineOption::Deadline(within)),
            expected_stream_position: Some(ExpectedStreamPosition::Any(())),
        }),
        proposed_messages: vec![ProposedMessage {
            id: Some(id("00000000-0000-4000-8000-000000000001")),
            metadata: vec![
                entry("type", "$metadata"),
                entry("content-type", "application/json"),
            ],
            data: Bytes::from("{}"),
            ..ProposedMessage::default()
        }],
        is_final: true,
    };
    let request = by_admin(&password, stream::iter([batch]).chain(stream::pending()));
    let answers = StreamsClient::new(channel)
        .batch_append(request)
        .await
        .unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(Answer::Error(late)) = answer.result else {
        panic!("{answer:?}")
    };
    assert_eq!(late.message, "Timeout");
    states.add_permits(100);
    let metadata = StreamName::new("$$orders-1").unwrap();
    let written = async {
        while store
            .read(Read::stream(metadata.clone()))
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .iter()
            .all(|batch| batch.events.is_empty())
        {
            tokio::task::yield_now().await;
        }
    };
    let written = tokio::time::timeout(Duration::from_secs(10), written).await;
    written.expect("what was begun is finished");
}
