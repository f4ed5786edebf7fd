//! The client that is generated from the contract of KurrentDB's wire, driven directly.
//!
//! **Owns:** its messages, and who waits for which answer. **Does not know:** how the published client does it.
//! **Invariants:** a response belongs to the one append that its caller has in flight; the end of the call wakes all callers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context;
use futures_util::{future::BoxFuture, stream};
use leftfold_proto::{
    event_store::client::{
        StreamIdentifier, Uuid as WireUuid,
        streams::{
            BatchAppendReq, BatchAppendResp, MetadataEntry, ReadReq, ReadResp, batch_append_req,
            batch_append_resp, read_req,
            read_resp::{self, ReadEvent},
            streams_client::StreamsClient,
        },
        uuid::{Structured, Value},
    },
    prost::Message,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

use super::Call;
use crate::event::{KIND, moment, moment_of, payload};

type Answer = oneshot::Sender<anyhow::Result<()>>;
type Waiting = Arc<Mutex<HashMap<u64, Answer>>>;
pub(crate) type Streams = StreamsClient<Channel>;

struct Generated {
    streams: Streams,
    requests: mpsc::Sender<BatchAppendReq>,
    waiting: Waiting,
}

pub(crate) async fn streams(port: u16) -> anyhow::Result<Streams> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
    Ok(StreamsClient::new(endpoint.connect().await?))
}

pub(crate) async fn connect(port: u16) -> anyhow::Result<impl Call> {
    let streams = streams(port).await?;
    let (requests, queue) = mpsc::channel::<BatchAppendReq>(256);
    let waiting = Waiting::default();
    let queue = stream::unfold(queue, |mut queue| async {
        queue.recv().await.map(|request| (request, queue))
    });
    tokio::spawn(answers(streams.clone(), queue, Arc::clone(&waiting)));
    Ok(Generated {
        streams,
        requests,
        waiting,
    })
}

/// Hands the answers of the call to those who wait, up to its end.
async fn answers(
    mut streams: Streams,
    queue: impl futures_util::Stream<Item = BatchAppendReq> + Send + 'static,
    waiting: Waiting,
) {
    let take = |caller: u64| {
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&caller)
    };
    if let Ok(call) = streams.batch_append(queue).await {
        let mut call = call.into_inner();
        while let Ok(Some(answer)) = call.message().await {
            let (caller, outcome) = decided(answer);
            if let Some(waits) = take(caller) {
                // Fails only if the caller is gone.
                let _ = waits.send(outcome);
            }
        }
    }
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

fn decided(answer: BatchAppendResp) -> (u64, anyhow::Result<()>) {
    let caller = match answer.correlation_id.and_then(|id| id.value) {
        Some(Value::Structured(halves)) => halves.least_significant_bits.cast_unsigned(),
        _ => u64::MAX,
    };
    let outcome = match answer.result {
        Some(batch_append_resp::Result::Success(_)) => Ok(()),
        Some(batch_append_resp::Result::Error(error)) => {
            Err(anyhow::anyhow!("refused: {}", error.message))
        }
        None => Err(anyhow::anyhow!("an answer without a result")),
    };
    (caller, outcome)
}

fn wire_uuid(most: u64, least: u64) -> WireUuid {
    WireUuid {
        value: Some(Value::Structured(Structured {
            most_significant_bits: most.cast_signed(),
            least_significant_bits: least.cast_signed(),
        })),
    }
}

pub(super) fn identifier(stream: String) -> StreamIdentifier {
    StreamIdentifier {
        stream_name: stream.into(),
    }
}

fn batch(caller: u64, events: usize) -> BatchAppendReq {
    use batch_append_req::{Options, ProposedMessage, options::ExpectedStreamPosition};
    let entry = |key: &'static str, value: &'static str| MetadataEntry {
        key: key.into(),
        value: value.into(),
    };
    let data = payload(moment());
    let event = || {
        let (most, least) = Uuid::new_v4().as_u64_pair();
        ProposedMessage {
            id: Some(wire_uuid(most, least)),
            metadata: vec![
                entry("type", KIND),
                entry("content-type", "application/octet-stream"),
            ],
            data: data.clone().into(),
            ..ProposedMessage::default()
        }
    };
    BatchAppendReq {
        correlation_id: Some(wire_uuid(0, caller)),
        options: Some(Options {
            stream_identifier: Some(identifier(format!("caller-{caller}"))),
            expected_stream_position: Some(ExpectedStreamPosition::Any(())),
            deadline_option: None,
        }),
        proposed_messages: (0..events).map(|_| event()).collect(),
        is_final: true,
    }
}

/// What is read or followed.
#[derive(Clone, Debug)]
pub(crate) enum From {
    StartOfAll,
    EndOfAll,
    Stream(String),
}

fn request(from: From, count: read_req::options::CountOption) -> ReadReq {
    use leftfold_proto::event_store::client::Empty;
    use read_req::{
        Options,
        options::{
            AllOptions, FilterOption, StreamOption, StreamOptions, UuidOption, all_options,
            stream_options, uuid_option,
        },
    };
    let all = |place| {
        StreamOption::All(AllOptions {
            all_option: Some(place),
        })
    };
    let source = match from {
        From::StartOfAll => all(all_options::AllOption::Start(Empty {})),
        From::EndOfAll => all(all_options::AllOption::End(Empty {})),
        From::Stream(stream) => StreamOption::Stream(StreamOptions {
            stream_identifier: Some(identifier(stream)),
            revision_option: Some(stream_options::RevisionOption::Start(Empty {})),
        }),
    };
    ReadReq {
        options: Some(Options {
            stream_option: Some(source),
            count_option: Some(count),
            filter_option: Some(FilterOption::NoFilter(Empty {})),
            uuid_option: Some(UuidOption {
                content: Some(uuid_option::Content::Structured(Empty {})),
            }),
            ..Options::default()
        }),
    }
}

/// A subscription that the server has confirmed.
#[derive(Debug)]
pub(crate) struct Followed(Streaming<ReadResp>);

pub(crate) async fn follow(streams: &mut Streams, from: From) -> anyhow::Result<Followed> {
    use read_req::options::{CountOption, SubscriptionOptions};
    let request = request(from, CountOption::Subscription(SubscriptionOptions {}));
    let mut messages = streams.read(request).await?.into_inner();
    let first = messages.message().await?.and_then(|first| first.content);
    anyhow::ensure!(
        matches!(first, Some(read_resp::Content::Confirmation(_))),
        "a subscription begins with {first:?}"
    );
    Ok(Followed(messages))
}

impl Followed {
    /// The moment that stands in the next event.
    pub(crate) async fn next(&mut self) -> anyhow::Result<u64> {
        loop {
            let message = self.0.message().await?;
            let message = message.context("the subscription ended")?;
            if let Some(read_resp::Content::Event(read)) = message.content {
                let read = ReadEvent::decode(read)?;
                let event = read.event.context("an event without an event")?;
                return moment_of(&event.data);
            }
        }
    }
}

impl Call for Generated {
    fn append(&self, caller: u64, events: usize) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(caller, answer);
            self.requests.send(batch(caller, events)).await?;
            answered.await.context("the call ended")?
        })
    }

    fn read_all(&self) -> BoxFuture<'_, anyhow::Result<u64>> {
        Box::pin(async {
            let count = read_req::options::CountOption::Count(u64::MAX);
            let mut streams = self.streams.clone();
            let read = streams.read(request(From::StartOfAll, count));
            let mut messages = read.await?.into_inner();
            let mut events = 0;
            while let Some(message) = messages.message().await? {
                if let Some(read_resp::Content::Event(read)) = message.content {
                    let read = ReadEvent::decode(read)?;
                    events += u64::from(read.event.is_some());
                }
            }
            Ok(events)
        })
    }
}
