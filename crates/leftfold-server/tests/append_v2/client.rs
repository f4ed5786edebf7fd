//! Short ways to ask a server what a client asks.
//!
//! **Owns:** [`TestClient`] and values of the wire. **Does not know:** what is right.

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, EventType, ExpectedRevision, NewEvent, Read, RecordedEvent, StreamName,
};
use leftfold_proto::{
    google::rpc,
    kurrentdb::protocol::v2::streams::{
        AppendRecord, AppendRecordsRequest, AppendRecordsResponse, AppendRequest,
        AppendSessionResponse, ConsistencyCheck, SchemaFormat, SchemaInfo, consistency_check,
        streams_service_client::StreamsServiceClient,
    },
    prost::Message,
};
use leftfold_store::EventStore;
use tonic::{Code, Status, transport::Channel};

use crate::test_server::TestServer;

/// A client.
pub(crate) struct TestClient {
    pub(crate) client: StreamsServiceClient<Channel>,
}

impl TestClient {
    pub(crate) async fn new(server: &TestServer) -> Self {
        let client = StreamsServiceClient::new(server.connect().await);
        Self { client }
    }

    pub(crate) async fn session(
        &mut self,
        requests: impl IntoIterator<Item = AppendRequest>,
    ) -> Result<AppendSessionResponse, Status> {
        let requests: Vec<_> = requests.into_iter().collect();
        let answer = self
            .client
            .append_session(futures_util::stream::iter(requests));
        Ok(answer.await?.into_inner())
    }

    pub(crate) async fn records(
        &mut self,
        records: impl IntoIterator<Item = AppendRecord>,
        checks: &[(&str, i64)],
    ) -> Result<AppendRecordsResponse, Status> {
        let request = AppendRecordsRequest {
            records: records.into_iter().collect(),
            checks: checks
                .iter()
                .map(|(stream, state)| check(stream, *state))
                .collect(),
        };
        Ok(self.client.append_records(request).await?.into_inner())
    }
}

pub(crate) fn request(
    stream: &str,
    expected: Option<i64>,
    records: impl IntoIterator<Item = AppendRecord>,
) -> AppendRequest {
    AppendRequest {
        stream: stream.into(),
        records: records.into_iter().collect(),
        expected_revision: expected,
    }
}

/// A record of this type.
pub(crate) fn record(kind: &str) -> AppendRecord {
    AppendRecord {
        schema: Some(SchemaInfo {
            format: SchemaFormat::Json.into(),
            name: kind.into(),
            id: None,
        }),
        data: "{}".into(),
        ..AppendRecord::default()
    }
}

/// Gives a record the id that follows from a number.
pub(crate) fn with_id(mut record: AppendRecord, id: u32) -> AppendRecord {
    record.record_id = Some(format!("00000000-0000-4000-8000-{id:012}"));
    record
}

/// Addresses a record to this stream.
pub(crate) fn to(stream: &str, mut record: AppendRecord) -> AppendRecord {
    record.stream = stream.into();
    record
}

fn check(stream: &str, expected_state: i64) -> ConsistencyCheck {
    let stream = stream.into();
    ConsistencyCheck {
        r#type: Some(consistency_check::Type::StreamState(
            consistency_check::StreamStateCheck {
                stream,
                expected_state,
            },
        )),
    }
}

pub(crate) fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

/// Puts so many events into a stream.
pub(crate) async fn fill(store: &dyn EventStore, stream: &str, count: usize) {
    let kind = EventType::new("Filled").unwrap();
    let events = (0..count).map(|_| NewEvent::json(kind.clone(), "{}"));
    let append = Append::to(name(stream), ExpectedRevision::Any, events.collect());
    store.append(append.unwrap()).await.unwrap();
}

/// All events but those of system streams.
pub(crate) async fn all(store: &dyn EventStore) -> Vec<RecordedEvent> {
    let batches: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    let events = batches.into_iter().flat_map(|batch| batch.events);
    events
        .filter(|event| !event.stream.as_str().starts_with('$'))
        .collect()
}

/// The only detail of a status, by the name clients know it by.
pub(crate) fn detail<D: Message + Default>(status: &Status, code: Code, name: &str) -> D {
    assert_eq!(status.code(), code, "{status:?}");
    let reported = rpc::Status::decode(status.details()).unwrap();
    assert_eq!(reported.code, i32::from(code));
    assert_eq!(reported.message, status.message());
    let [detail] = &reported.details[..] else {
        panic!("not one detail: {reported:?}")
    };
    let full = format!("type.googleapis.com/kurrentdb.protocol.v2.streams.errors.{name}");
    assert_eq!(detail.type_url, full);
    D::decode(&detail.value[..]).unwrap()
}
