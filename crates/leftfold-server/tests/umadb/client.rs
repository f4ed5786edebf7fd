//! Short ways to ask a server what a client asks.
//!
//! **Owns:** [`TestClient`] and values of the wire. **Does not know:** what is right.

use leftfold_model::Bytes;
use leftfold_proto::{
    prost::Message,
    umadb::v1::{
        AppendCondition, AppendRequest, ErrorResponse, Event, HeadRequest, MetadataEntry, Query,
        QueryItem, ReadRequest, ReadResponse, SequencedEvent, TrackingInfo, TrackingRequest,
        dcb_client::DcbClient, error_response::ErrorType,
    },
};
use tonic::{Code, Status, transport::Channel};

use crate::test_server::TestServer;

/// A client.
pub(crate) struct TestClient {
    pub(crate) client: DcbClient<Channel>,
}

impl TestClient {
    pub(crate) async fn new(server: &TestServer) -> Self {
        let client = DcbClient::new(server.connect().await);
        Self {
            client: client.max_decoding_message_size(32 << 20),
        }
    }

    pub(crate) async fn append(&mut self, request: AppendRequest) -> Result<u64, Status> {
        let answer = self.client.append(request).await?;
        Ok(answer.into_inner().position)
    }

    /// Appends events of these types with these tags.
    pub(crate) async fn put(&mut self, events: &[(&str, &[&str])]) -> u64 {
        let events = events.iter().map(|(kind, tags)| event(kind, tags));
        self.append(of(events)).await.unwrap()
    }

    pub(crate) async fn head(&mut self) -> Option<u64> {
        let answer = self.client.head(HeadRequest {}).await.unwrap();
        answer.into_inner().position
    }

    pub(crate) async fn tracked(&mut self, source: &str) -> Option<u64> {
        let source = source.to_owned();
        let answer = self.client.get_tracking_info(TrackingRequest { source });
        answer.await.unwrap().into_inner().position
    }

    pub(crate) async fn messages(&mut self, request: ReadRequest) -> Vec<ReadResponse> {
        let mut answers = self.client.read(request).await.unwrap().into_inner();
        let mut messages = Vec::new();
        while let Some(message) = answers.message().await.unwrap() {
            messages.push(message);
        }
        messages
    }

    pub(crate) async fn read(&mut self, request: ReadRequest) -> Vec<SequencedEvent> {
        let messages = self.messages(request).await;
        messages.iter().flat_map(|m| events(&m.events)).collect()
    }

    pub(crate) async fn positions(&mut self, request: ReadRequest) -> Vec<u64> {
        let events = self.read(request).await;
        events.iter().map(|event| event.position).collect()
    }
}

/// The events of a message, which come as their bytes.
pub(crate) fn events(message: &[Bytes]) -> Vec<SequencedEvent> {
    let read = |event: &Bytes| SequencedEvent::decode(event.clone()).unwrap();
    message.iter().map(read).collect()
}

pub(crate) fn event(kind: &str, tags: &[&str]) -> Event {
    Event {
        event_type: kind.into(),
        tags: tags.iter().map(|&tag| tag.into()).collect(),
        data: "{}".into(),
        uuid: String::new(),
        metadata: Vec::new(),
    }
}

/// Gives an event the id that follows from a number.
pub(crate) fn with_id(mut event: Event, id: u32) -> Event {
    event.uuid = format!("00000000-0000-4000-8000-{id:012}");
    event
}

pub(crate) fn entry(key: &str, value: &str) -> MetadataEntry {
    MetadataEntry {
        key: key.into(),
        value: value.into(),
    }
}

pub(crate) fn of(events: impl IntoIterator<Item = Event>) -> AppendRequest {
    AppendRequest {
        events: events.into_iter().collect(),
        condition: None,
        tracking_info: None,
    }
}

pub(crate) fn under(
    events: impl IntoIterator<Item = Event>,
    query: Query,
    after: Option<u64>,
) -> AppendRequest {
    AppendRequest {
        condition: Some(AppendCondition {
            fail_if_events_match: Some(query),
            after,
        }),
        ..of(events)
    }
}

pub(crate) fn progress(source: &str, position: u64) -> Option<TrackingInfo> {
    let source = source.into();
    Some(TrackingInfo { source, position })
}

/// The types and the tags of an item.
pub(crate) type Item<'a> = (&'a [&'a str], &'a [&'a str]);

/// A query of items.
pub(crate) fn query(items: &[Item<'_>]) -> Query {
    let texts = |list: &[&str]| list.iter().map(|&text| text.into()).collect();
    let items = items.iter().map(|(types, tags)| QueryItem {
        types: texts(types),
        tags: texts(tags),
    });
    Query {
        items: items.collect(),
    }
}

pub(crate) fn reading(items: &[Item<'_>]) -> ReadRequest {
    ReadRequest {
        query: Some(query(items)),
        ..ReadRequest::default()
    }
}

/// Fails unless the status is what clients take for this kind of error.
pub(crate) fn assert_is(status: &Status, code: Code, kind: ErrorType, says: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    let response = ErrorResponse::decode(status.details()).unwrap();
    assert_eq!(response.error_type(), kind, "{response:?}");
    assert!(response.message.contains(says), "{response:?}");
}

pub(crate) fn assert_is_integrity_error(status: &Status) {
    assert_is(status, Code::FailedPrecondition, ErrorType::Integrity, "");
}
