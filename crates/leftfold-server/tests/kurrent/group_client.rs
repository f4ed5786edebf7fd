//! Short ways to ask for groups what a client asks.
//!
//! **Owns:** [`Groups`], [`Consumer`]. **Does not know:** what is right.

use leftfold_proto::{
    event_store::client::{
        Empty, Uuid,
        persistent_subscriptions::{
            AllOptions, CreateReq, DeleteReq, GetInfoReq, ListReq, ReadReq, ReadResp,
            ReplayParkedReq, Settings, StreamOptions, SubscriptionInfo, UpdateReq,
            all_options::{AllOption, FilterOption},
            create_req, delete_req, get_info_req, list_req,
            persistent_subscriptions_client::PersistentSubscriptionsClient,
            read_req::{self, Ack, Nack, nack::Action},
            read_resp::{Content, ReadEvent, read_event},
            replay_parked_req, settings, stream_options, update_req,
        },
    },
    prost::Message,
};
use tokio::sync::mpsc;
use tonic::{Status, Streaming, transport::Channel};

use crate::{client::name, test_server::TestServer};

/// A client of groups.
pub(crate) struct Groups(pub(crate) PersistentSubscriptionsClient<Channel>);

pub(crate) fn defaults() -> Settings {
    Settings {
        max_retry_count: 2,
        min_checkpoint_count: 1,
        max_checkpoint_count: 1_000,
        live_buffer_size: 500,
        read_batch_size: 20,
        history_buffer_size: 500,
        message_timeout: Some(settings::MessageTimeout::MessageTimeoutMs(30_000)),
        checkpoint_after: Some(settings::CheckpointAfter::CheckpointAfterMs(10)),
        consumer_strategy: "RoundRobin".into(),
        ..Settings::default()
    }
}

fn from_start(stream: &str) -> StreamOptions {
    StreamOptions {
        stream_identifier: Some(name(stream)),
        revision_option: Some(stream_options::RevisionOption::Start(Empty {})),
    }
}

impl Groups {
    pub(crate) async fn new(server: &TestServer) -> Self {
        Self(PersistentSubscriptionsClient::new(server.connect().await))
    }

    pub(crate) async fn create(
        &self,
        stream: &str,
        group: &str,
        settings: Settings,
    ) -> Result<(), Status> {
        let request = CreateReq {
            options: Some(create_req::Options {
                stream_option: Some(create_req::options::StreamOption::Stream(from_start(
                    stream,
                ))),
                group_name: group.into(),
                settings: Some(settings),
                ..create_req::Options::default()
            }),
        };
        self.0.clone().create(request).await.map(drop)
    }

    pub(crate) async fn create_of_all(
        &self,
        group: &str,
        filter: FilterOption,
    ) -> Result<(), Status> {
        let all = AllOptions {
            all_option: Some(AllOption::Start(Empty {})),
            filter_option: Some(filter),
        };
        let request = CreateReq {
            options: Some(create_req::Options {
                stream_option: Some(create_req::options::StreamOption::All(all)),
                group_name: group.into(),
                settings: Some(defaults()),
                ..create_req::Options::default()
            }),
        };
        self.0.clone().create(request).await.map(drop)
    }

    pub(crate) async fn update(
        &self,
        stream: &str,
        group: &str,
        settings: Settings,
    ) -> Result<(), Status> {
        let request = UpdateReq {
            options: Some(update_req::Options {
                stream_option: Some(update_req::options::StreamOption::Stream(from_start(
                    stream,
                ))),
                group_name: group.into(),
                settings: Some(settings),
                ..update_req::Options::default()
            }),
        };
        self.0.clone().update(request).await.map(drop)
    }

    pub(crate) async fn delete(&self, stream: &str, group: &str) -> Result<(), Status> {
        let request = DeleteReq {
            options: Some(delete_req::Options {
                stream_option: Some(delete_req::options::StreamOption::StreamIdentifier(name(
                    stream,
                ))),
                group_name: group.into(),
            }),
        };
        self.0.clone().delete(request).await.map(drop)
    }

    pub(crate) async fn info(&self, stream: &str, group: &str) -> Result<SubscriptionInfo, Status> {
        let request = GetInfoReq {
            options: Some(get_info_req::Options {
                stream_option: Some(get_info_req::options::StreamOption::StreamIdentifier(name(
                    stream,
                ))),
                group_name: group.into(),
            }),
        };
        let answer = self.0.clone().get_info(request).await?.into_inner();
        Ok(answer.subscription_info.unwrap())
    }

    /// Asks for a group as a client that wants the server that acts for it.
    pub(crate) async fn info_of_leader(
        &self,
        stream: &str,
        group: &str,
    ) -> Result<SubscriptionInfo, Status> {
        let options = get_info_req::Options {
            stream_option: Some(get_info_req::options::StreamOption::StreamIdentifier(name(
                stream,
            ))),
            group_name: group.into(),
        };
        let mut request = tonic::Request::new(GetInfoReq {
            options: Some(options),
        });
        let metadata = request.metadata_mut();
        metadata.insert("requires-leader", "true".parse().unwrap());
        let answer = self.0.clone().get_info(request).await?.into_inner();
        Ok(answer.subscription_info.unwrap())
    }

    /// Asks until the group is as it should be: what consumers say takes a moment to be written down.
    pub(crate) async fn info_when(
        &self,
        (stream, group): (&str, &str),
        is_so: impl Fn(&SubscriptionInfo) -> bool,
    ) -> SubscriptionInfo {
        loop {
            let info = self.info(stream, group).await.unwrap();
            if is_so(&info) {
                return info;
            }
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn list(&self, stream: Option<&str>) -> Result<Vec<String>, Status> {
        use list_req::{StreamOption, options::ListOption, stream_option::StreamOption as Of};
        let option = match stream {
            None => ListOption::ListAllSubscriptions(Empty {}),
            Some(stream) => ListOption::ListForStream(StreamOption {
                stream_option: Some(Of::Stream(name(stream))),
            }),
        };
        let request = ListReq {
            options: Some(list_req::Options {
                list_option: Some(option),
            }),
        };
        let answer = self.0.clone().list(request).await?.into_inner();
        let groups = answer.subscriptions.into_iter();
        Ok(groups
            .map(|info| format!("{}::{}", info.event_source, info.group_name))
            .collect())
    }

    pub(crate) async fn replay(
        &self,
        stream: &str,
        group: &str,
        stop_at: Option<i64>,
    ) -> Result<(), Status> {
        use replay_parked_req::options::{StopAtOption, StreamOption};
        let request = ReplayParkedReq {
            options: Some(replay_parked_req::Options {
                group_name: group.into(),
                stream_option: Some(StreamOption::StreamIdentifier(name(stream))),
                stop_at_option: Some(match stop_at {
                    Some(at) => StopAtOption::StopAt(at),
                    None => StopAtOption::NoLimit(Empty {}),
                }),
            }),
        };
        self.0.clone().replay_parked(request).await.map(drop)
    }

    pub(crate) async fn join(
        &self,
        stream: Option<&str>,
        group: &str,
        window: i32,
    ) -> Result<Consumer, Status> {
        use read_req::options::StreamOption;
        let (say, said) = mpsc::unbounded_channel();
        let options = read_req::Options {
            stream_option: Some(match stream {
                Some(stream) => StreamOption::StreamIdentifier(name(stream)),
                None => StreamOption::All(Empty {}),
            }),
            group_name: group.into(),
            buffer_size: window,
            uuid_option: None,
        };
        say.send(ReadReq {
            content: Some(read_req::Content::Options(options)),
        })
        .unwrap();
        let said = futures_util::stream::unfold(said, |mut said| async move {
            said.recv().await.map(|request| (request, said))
        });
        let answers = self.0.clone().read(said).await?.into_inner();
        let mut consumer = Consumer { say, answers };
        match consumer.answers.message().await?.unwrap().content.unwrap() {
            Content::SubscriptionConfirmation(confirmed) => {
                let source = stream.unwrap_or("$all");
                assert_eq!(confirmed.subscription_id, format!("{source}::{group}"));
            }
            Content::Event(_) => panic!("an event before the confirmation"),
        }
        Ok(consumer)
    }
}

/// A member of a group.
pub(crate) struct Consumer {
    pub(crate) say: mpsc::UnboundedSender<ReadReq>,
    pub(crate) answers: Streaming<ReadResp>,
}

/// An event as a consumer got it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) id: Uuid,
    pub(crate) revision: u64,
    pub(crate) stream: String,
    pub(crate) retries: i32,
}

impl Consumer {
    pub(crate) async fn next(&mut self) -> Result<Got, Status> {
        let answer = self
            .answers
            .message()
            .await?
            .expect("an end without a word");
        let Some(Content::Event(bytes)) = answer.content else {
            panic!("{answer:?}")
        };
        let event = ReadEvent::decode(bytes).unwrap();
        let retries = match event.count {
            Some(read_event::Count::RetryCount(count)) => count,
            other => panic!("{other:?}"),
        };
        let shown = event.link.or(event.event).unwrap();
        Ok(Got {
            id: shown.id.unwrap(),
            revision: shown.stream_revision,
            stream: String::from_utf8(shown.stream_identifier.unwrap().stream_name.to_vec())
                .unwrap(),
            retries,
        })
    }

    pub(crate) fn ack(&self, event: &Got) {
        let ack = Ack {
            ids: vec![event.id.clone()],
            ..Ack::default()
        };
        self.send(read_req::Content::Ack(ack));
    }

    pub(crate) fn nack(&self, event: &Got, action: Action, reason: &str) {
        let nack = Nack {
            ids: vec![event.id.clone()],
            action: action.into(),
            reason: reason.into(),
            ..Nack::default()
        };
        self.send(read_req::Content::Nack(nack));
    }

    fn send(&self, content: read_req::Content) {
        let request = ReadReq {
            content: Some(content),
        };
        self.say.send(request).unwrap();
    }

    /// The error that ends the call, behind whatever was on its way.
    pub(crate) async fn end(mut self) -> Status {
        loop {
            if let Err(end) = self.next().await {
                return end;
            }
        }
    }
}
