//! Groups of competing consumers on KurrentDB's wire, by the generated client.
//!
//! **Owns:** [`Groups`], [`Consumer`]. **Does not know:** what is measured.
//! **Invariants:** a consumer acknowledges each event it took; the acknowledgements of events that came at once go in one
//! message.

use anyhow::Context;
use futures_util::stream;
use leftfold_proto::{
    event_store::client::{
        Empty, Uuid as WireUuid,
        persistent_subscriptions::{
            CreateReq, GetInfoReq, ReadReq, ReadResp, Settings, StreamOptions, create_req,
            get_info_req,
            persistent_subscriptions_client::PersistentSubscriptionsClient,
            read_req::{self, Ack},
            read_resp::{Content, ReadEvent},
            settings, stream_options,
        },
    },
    prost::Message,
};
use tokio::sync::mpsc;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

use super::generated::identifier;
use crate::event::moment_of;

/// Acknowledgements in one message, at most.
const ACKNOWLEDGED_AT_ONCE: usize = 64;

/// A connection for groups and consumers.
#[derive(Clone, Debug)]
pub(crate) struct Groups(PersistentSubscriptionsClient<Channel>);

impl Groups {
    pub(crate) async fn connect(port: u16) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        let channel = endpoint.connect().await?;
        Ok(Self(PersistentSubscriptionsClient::new(channel)))
    }

    /// Creates a group of a stream that begins at its start, with what clients give by default.
    pub(crate) async fn create(&mut self, stream: &str, name: &str) -> anyhow::Result<()> {
        let source = StreamOptions {
            stream_identifier: Some(identifier(stream.to_owned())),
            revision_option: Some(stream_options::RevisionOption::Start(Empty {})),
        };
        let options = create_req::Options {
            stream_option: Some(create_req::options::StreamOption::Stream(source)),
            group_name: name.to_owned(),
            settings: Some(Settings {
                max_retry_count: 10,
                min_checkpoint_count: 10,
                max_checkpoint_count: 1_000,
                live_buffer_size: 500,
                read_batch_size: 20,
                history_buffer_size: 500,
                message_timeout: Some(settings::MessageTimeout::MessageTimeoutMs(30_000)),
                checkpoint_after: Some(settings::CheckpointAfter::CheckpointAfterMs(2_000)),
                consumer_strategy: "RoundRobin".to_owned(),
                ..Settings::default()
            }),
            ..create_req::Options::default()
        };
        let request = CreateReq {
            options: Some(options),
        };
        self.0.create(request).await?;
        Ok(())
    }

    /// How many events of a group are parked.
    pub(crate) async fn parked(&mut self, stream: &str, name: &str) -> anyhow::Result<i64> {
        use get_info_req::options::StreamOption;
        let options = get_info_req::Options {
            stream_option: Some(StreamOption::StreamIdentifier(identifier(
                stream.to_owned(),
            ))),
            group_name: name.to_owned(),
        };
        let request = GetInfoReq {
            options: Some(options),
        };
        let answer = self.0.get_info(request).await?.into_inner();
        let info = answer.subscription_info.context("a group without info")?;
        Ok(info.parked_message_count)
    }

    /// Joins a group with so many events in flight.
    pub(crate) async fn join(
        &mut self,
        stream: &str,
        name: &str,
        window: i32,
    ) -> anyhow::Result<Consumer> {
        use read_req::options::StreamOption;
        let options = read_req::Options {
            stream_option: Some(StreamOption::StreamIdentifier(identifier(
                stream.to_owned(),
            ))),
            group_name: name.to_owned(),
            buffer_size: window,
            uuid_option: None,
        };
        let (requests, queue) = mpsc::channel(256);
        let first = ReadReq {
            content: Some(read_req::Content::Options(options)),
        };
        requests.send(first).await?;
        let queue = stream::unfold(queue, |mut queue| async {
            queue.recv().await.map(|request| (request, queue))
        });
        let mut answers = self.0.read(queue).await?.into_inner();
        let first = answers.message().await?.and_then(|first| first.content);
        anyhow::ensure!(
            matches!(first, Some(Content::SubscriptionConfirmation(_))),
            "a consumer's call begins with {first:?}"
        );
        Ok(Consumer {
            requests,
            answers,
            taken: Vec::with_capacity(ACKNOWLEDGED_AT_ONCE),
        })
    }
}

/// A consumer that has joined its group.
#[derive(Debug)]
pub(crate) struct Consumer {
    requests: mpsc::Sender<ReadReq>,
    answers: Streaming<ReadResp>,
    /// Events that are not acknowledged yet.
    taken: Vec<WireUuid>,
}

impl Consumer {
    /// Takes the next event, and returns the moment that stands in it. Acknowledges what it took before it waits.
    ///
    /// # Cancel safety
    /// Loses no event.
    pub(crate) async fn next(&mut self) -> anyhow::Result<u64> {
        let message = if self.taken.len() < ACKNOWLEDGED_AT_ONCE {
            tokio::select! {
                biased;
                message = self.answers.message() => Some(message?),
                () = std::future::ready(()) => None,
            }
        } else {
            None
        };
        let message = match message {
            Some(message) => message,
            None => {
                self.acknowledge().await?;
                self.answers.message().await?
            }
        };
        let Some(Content::Event(bytes)) = message.context("the call ended")?.content else {
            anyhow::bail!("what came is no event");
        };
        let event = ReadEvent::decode(bytes)?.event;
        let event = event.context("an event without an event")?;
        self.taken.extend(event.id);
        moment_of(&event.data)
    }

    /// Acknowledges what it took.
    pub(crate) async fn acknowledge(&mut self) -> anyhow::Result<()> {
        if self.taken.is_empty() {
            return Ok(());
        }
        let room = self.requests.reserve().await?;
        let ack = Ack {
            ids: std::mem::take(&mut self.taken),
            ..Ack::default()
        };
        let content = Some(read_req::Content::Ack(ack));
        room.send(ReadReq { content });
        Ok(())
    }
}
