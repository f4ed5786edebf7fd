//! Short ways to ask a server what a client asks.
//!
//! **Owns:** [`TestClient`] and values of the wire. **Does not know:** what is right.

use futures_util::{StreamExt, stream};
use leftfold_proto::event_store::client::{
    Empty, StreamIdentifier, Uuid,
    streams::{
        AppendReq, AppendResp, DeleteReq, MetadataEntry, ReadReq, ReadResp, TombstoneReq,
        append_req::{self, ProposedMessage, options::ExpectedStreamRevision as Expected},
        append_resp, delete_req,
        read_req::{
            Options,
            options::{
                AllOptions, ControlOption, CountOption, FilterOption, FilterOptions, ReadDirection,
                StreamOption, StreamOptions, SubscriptionOptions, UuidOption,
                all_options::AllOption, filter_options, stream_options::RevisionOption,
                uuid_option,
            },
        },
        read_resp::{Content, ReadEvent},
        streams_client::StreamsClient,
        tombstone_req,
    },
    uuid::Value,
};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::test_server::TestServer;

/// A client.
pub(crate) struct TestClient {
    pub(crate) client: StreamsClient<Channel>,
}

impl TestClient {
    pub(crate) async fn new(server: &TestServer) -> Self {
        let client = StreamsClient::new(server.connect().await).max_encoding_message_size(1 << 30);
        Self { client }
    }

    /// Appends, in a message each.
    pub(crate) async fn append(
        &self,
        stream: &str,
        expected: Expected,
        events: Vec<ProposedMessage>,
    ) -> Result<AppendResp, Status> {
        let options = append_req::Options {
            stream_identifier: Some(name(stream)),
            expected_stream_revision: Some(expected),
        };
        let events = events.into_iter().map(append_req::Content::ProposedMessage);
        let contents = [append_req::Content::Options(options)]
            .into_iter()
            .chain(events);
        let requests: Vec<_> = contents
            .map(|content| AppendReq {
                content: Some(content),
            })
            .collect();
        let answer = self.client.clone().append(stream::iter(requests)).await?;
        Ok(answer.into_inner())
    }

    /// Appends events of these types to a stream, whatever is in it.
    pub(crate) async fn put(&self, stream: &str, types: &[&str]) -> append_resp::Success {
        let events = types.iter().map(|kind| event(kind)).collect();
        success(self.append(stream, any(), events).await.unwrap())
    }

    pub(crate) async fn read(&self, options: Options) -> Result<Streaming<ReadResp>, Status> {
        let request = ReadReq {
            options: Some(options),
        };
        Ok(self.client.clone().read(request).await?.into_inner())
    }

    /// Everything that a read answers.
    pub(crate) async fn all(&self, options: Options) -> Vec<Content> {
        let answers = self.read(options).await.unwrap();
        let contents = answers.map(|answer| answer.unwrap().content.unwrap());
        contents.collect().await
    }

    pub(crate) async fn delete(&self, stream: &str, expected: Deleting) -> Result<(), Status> {
        let request = DeleteReq {
            options: Some(delete_req::Options {
                stream_identifier: Some(name(stream)),
                expected_stream_revision: Some(expected),
            }),
        };
        self.client.clone().delete(request).await.map(drop)
    }

    pub(crate) async fn tombstone(&self, stream: &str) -> Result<(), Status> {
        use tombstone_req::options::ExpectedStreamRevision;
        let request = TombstoneReq {
            options: Some(tombstone_req::Options {
                stream_identifier: Some(name(stream)),
                expected_stream_revision: Some(ExpectedStreamRevision::Any(Empty {})),
            }),
        };
        self.client.clone().tombstone(request).await.map(drop)
    }
}

pub(crate) type Deleting = delete_req::options::ExpectedStreamRevision;

pub(crate) fn any() -> Expected {
    Expected::Any(Empty {})
}

pub(crate) fn none() -> Expected {
    Expected::NoStream(Empty {})
}

pub(crate) fn exists() -> Expected {
    Expected::StreamExists(Empty {})
}

pub(crate) fn name(stream: &str) -> StreamIdentifier {
    StreamIdentifier {
        stream_name: stream.to_owned().into(),
    }
}

pub(crate) fn id() -> Uuid {
    Uuid {
        value: Some(Value::String(uuid::Uuid::new_v4().to_string())),
    }
}

pub(crate) fn entry(key: &str, value: &str) -> MetadataEntry {
    MetadataEntry {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
    }
}

/// An event of this type.
pub(crate) fn event(kind: &str) -> ProposedMessage {
    ProposedMessage {
        id: Some(id()),
        metadata: vec![
            entry("type", kind),
            entry("content-type", "application/json"),
        ],
        custom_metadata: bytes::Bytes::new(),
        data: bytes::Bytes::from_static(br#"{"a":1}"#),
    }
}

#[track_caller]
pub(crate) fn success(answer: AppendResp) -> append_resp::Success {
    match answer.result.unwrap() {
        append_resp::Result::Success(success) => success,
        append_resp::Result::WrongExpectedVersion(wrong) => panic!("{wrong:?}"),
    }
}

#[track_caller]
pub(crate) fn wrong(answer: AppendResp) -> append_resp::WrongExpectedVersion {
    match answer.result.unwrap() {
        append_resp::Result::WrongExpectedVersion(wrong) => wrong,
        append_resp::Result::Success(success) => panic!("{success:?}"),
    }
}

/// The code of an error, and one of its trailers.
pub(crate) fn code_and_trailer<'a>(status: &'a Status, trailer: &str) -> (Code, Option<&'a str>) {
    let value = status.metadata().get(trailer);
    (status.code(), value.map(|value| value.to_str().unwrap()))
}

/// A read of a stream from its beginning.
pub(crate) fn of_stream(stream: &str) -> Options {
    Options {
        stream_option: Some(StreamOption::Stream(StreamOptions {
            stream_identifier: Some(name(stream)),
            revision_option: Some(RevisionOption::Start(Empty {})),
        })),
        ..of_all()
    }
}

/// A read of everything from its beginning.
pub(crate) fn of_all() -> Options {
    Options {
        stream_option: Some(StreamOption::All(AllOptions {
            all_option: Some(AllOption::Start(Empty {})),
        })),
        read_direction: ReadDirection::Forwards.into(),
        resolve_links: false,
        count_option: Some(CountOption::Count(u64::MAX)),
        filter_option: Some(FilterOption::NoFilter(Empty {})),
        uuid_option: Some(UuidOption {
            content: Some(uuid_option::Content::String(Empty {})),
        }),
        control_option: Some(ControlOption { compatibility: 1 }),
    }
}

pub(crate) fn backwards(options: Options) -> Options {
    let end = Empty {};
    let stream_option = match options.stream_option {
        Some(StreamOption::Stream(stream)) => StreamOption::Stream(StreamOptions {
            revision_option: Some(RevisionOption::End(end)),
            ..stream
        }),
        _ => StreamOption::All(AllOptions {
            all_option: Some(AllOption::End(end)),
        }),
    };
    Options {
        stream_option: Some(stream_option),
        read_direction: ReadDirection::Backwards.into(),
        ..options
    }
}

pub(crate) fn subscribed(options: Options) -> Options {
    Options {
        count_option: Some(CountOption::Subscription(SubscriptionOptions {})),
        ..options
    }
}

/// Only events whose stream matches.
pub(crate) fn filtered(options: Options, regex: &str, window: u32) -> Options {
    let expression = filter_options::Expression {
        regex: regex.to_owned(),
        prefix: Vec::new(),
    };
    let filter = FilterOptions {
        filter: Some(filter_options::Filter::StreamIdentifier(expression)),
        window: Some(filter_options::Window::Max(window)),
        checkpoint_interval_multiplier: 1,
    };
    Options {
        filter_option: Some(FilterOption::Filter(filter)),
        ..options
    }
}

/// An event as it was read.
pub(crate) fn read(event: &bytes::Bytes) -> ReadEvent {
    leftfold_proto::prost::Message::decode(event.clone()).unwrap()
}

/// The type of an event that was read.
pub(crate) fn type_of(event: &ReadEvent) -> String {
    let shown = event.event.as_ref().or(event.link.as_ref()).unwrap();
    let entry = shown.metadata.iter().find(|entry| entry.key == "type");
    String::from_utf8(entry.unwrap().value.to_vec()).unwrap()
}

/// The types of the events among these answers.
pub(crate) fn types(answers: &[Content]) -> Vec<String> {
    let events = answers.iter().filter_map(|content| match content {
        Content::Event(event) => Some(type_of(&read(event))),
        _ => None,
    });
    events.collect()
}
