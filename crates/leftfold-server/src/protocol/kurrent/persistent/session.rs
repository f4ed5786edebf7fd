//! The call of one consumer: events on their way out, acknowledgements on their way in.
//!
//! **Owns:** [`answers`]. **Does not know:** who else is in the group.
//! **Invariants:** a consumer leaves its group when its call ends, however that is; the ids of events that it has in flight
//! differ.

use std::collections::HashMap;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_model::EventId;
use leftfold_proto::event_store::client::{
    Uuid,
    persistent_subscriptions::{
        ReadReq, ReadResp,
        read_req::{Content, Nack, Options, nack::Action, options::uuid_option},
        read_resp::{self, SubscriptionConfirmation},
    },
};
use tokio::time::timeout_at;
use tonic::{Request, Status, Streaming};

use super::{
    super::{
        encode::{EventEncoder, ShownIds},
        event::{self, UuidFormat},
        status,
    },
    request,
};
use crate::{
    call,
    connection::Peer,
    groups::{Connection, ConnectionInput, DeliveredMessage, LinkTarget, NackAction},
    protocol::group_access::{ConsumerAccess, consumer_info, group_to_consume},
    state::ServerState,
};

/// Events that a consumer may have in flight, at most.
const WINDOW_MAX: i32 = 10_000;
/// Ids that are remembered of events in flight, at most. Beyond them events have the ids that they are stored under.
const SHOWN_MAX: usize = 20_000;

type Answer = Result<ReadResp, Status>;

/// What a consumer gets.
pub(super) async fn answers(
    shared: &ServerState,
    request: Request<Streaming<ReadReq>>,
) -> Result<BoxStream<'static, Answer>, Status> {
    let name = request.metadata().get("connection-name");
    let name = name.and_then(|value| value.to_str().ok());
    let info = consumer_info(request.extensions().get::<Peer>(), name);
    let mut requests = request.into_inner();
    // From then on the call may be silent for as long as its consumer has nothing to say.
    let first = timeout_at(call::deadline(shared), requests.message());
    let first = first.await.map_err(|_| {
        Status::deadline_exceeded("the options of the consumer did not come in time")
    })??;
    let first = first.and_then(|first| first.content);
    let Some(Content::Options(options)) = first else {
        return Err(Status::invalid_argument(
            "first message is not the options of a consumer; expected options",
        ));
    };
    let window = window(&options)?;
    let ids = match options.uuid_option.and_then(|option| option.content) {
        Some(uuid_option::Content::Structured(_)) => UuidFormat::Structured,
        Some(uuid_option::Content::String(_)) | None => UuidFormat::Text,
    };
    let source = request::source_to_read(options.stream_option)?;
    let id = request::id(source, options.group_name)?;
    let definition = group_to_consume(shared, &id).await;
    let (definition, access) = definition.map_err(status::of_group)?;
    let input = ConnectionInput { info, window };
    let joined = shared.groups.connect(&definition, input).await;
    let session = Session {
        requests,
        access,
        connection: joined.map_err(status::of_group)?,
        encoder: EventEncoder::new(ids),
        shown: HashMap::new(),
    };
    let confirmed = SubscriptionConfirmation {
        subscription_id: id.to_string(),
    };
    let confirmed = ReadResp {
        content: Some(read_resp::Content::SubscriptionConfirmation(confirmed)),
    };
    let events = stream::unfold(Some(session), |session| async move {
        let mut session = session?;
        let answer = session.next().await?;
        let goes_on = answer.is_ok();
        Some((answer, goes_on.then_some(session)))
    });
    Ok(stream::iter([Ok(confirmed)]).chain(events).boxed())
}

fn window(options: &Options) -> Result<usize, Status> {
    let size = options.buffer_size;
    match usize::try_from(size) {
        Ok(window) if (1..=WINDOW_MAX).contains(&size) => Ok(window),
        _ => Err(Status::invalid_argument(format!(
            "buffer_size is not valid: {size}; expected 1 to {WINDOW_MAX}"
        ))),
    }
}

/// A consumer on its call.
struct Session {
    requests: Streaming<ReadReq>,
    access: ConsumerAccess,
    connection: Connection,
    encoder: EventEncoder,
    /// The stored ids of events in flight, by the ids that the client knows.
    shown: HashMap<EventId, EventId>,
}

impl Session {
    /// The next answer; `None` when the client has no more to say, and so cannot acknowledge anything.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            tokio::select! {
                biased;
                request = self.requests.message() => match request {
                    Ok(None) => return None,
                    Err(ended) => return Some(Err(ended)),
                    Ok(Some(request)) => {
                        if let Err(refused) = self.obey(request).await {
                            return Some(Err(refused));
                        }
                    }
                },
                ended = self.access.ended() => return Some(Err(status::of_group(ended))),
                delivery = self.connection.deliveries.recv() => return Some(match delivery {
                    Some(Ok(message)) => match self.access.admit(message) {
                        Ok(message) => Ok(self.show(&message)),
                        Err(denied) => Err(status::of_group(denied)),
                    },
                    Some(Err(ended)) => Err(status::of_group(ended)),
                    None => Err(status::stopping()),
                }),
            }
        }
    }

    async fn obey(&mut self, request: ReadReq) -> Result<(), Status> {
        match request.content {
            Some(Content::Ack(ack)) => {
                let ids = self.stored(&ack.ids)?;
                self.connection.membership.ack(ids).await;
                Ok(())
            }
            Some(Content::Nack(nack)) => {
                let ids = self.stored(&nack.ids)?;
                let action = action(&nack);
                let membership = &self.connection.membership;
                membership.nack(ids, action, nack.reason).await;
                Ok(())
            }
            Some(Content::Options(_)) => Err(Status::invalid_argument(
                "options come twice; expected acks and nacks behind the first message",
            )),
            None => Err(status::missing("content")),
        }
    }

    /// The ids under which events are stored that the client names.
    fn stored(&mut self, ids: &[Uuid]) -> Result<Vec<EventId>, Status> {
        let stored = ids.iter().map(|id| {
            let shown = event::id_from_wire(Some(id))?;
            Ok(self.shown.remove(&shown).unwrap_or(shown))
        });
        stored.collect()
    }

    fn show(&mut self, delivered: &DeliveredMessage) -> ReadResp {
        let original = &delivered.message.original;
        let shown = EventEncoder::client_id(original);
        let ids = match self.shown.get(&shown) {
            Some(stored) if *stored != original.id => ShownIds::Stored,
            Some(_) => ShownIds::Clients,
            None if self.shown.len() >= SHOWN_MAX => ShownIds::Stored,
            None => {
                self.shown.insert(shown, original.id);
                ShownIds::Clients
            }
        };
        let (event, link) = match &delivered.message.target {
            LinkTarget::NoLink => (Some(original), None),
            LinkTarget::Missing => (None, Some(original)),
            LinkTarget::Event(target) => (Some(target), Some(original)),
        };
        let bytes = self
            .encoder
            .group_event(event, link, (ids, delivered.retries));
        ReadResp {
            content: Some(read_resp::Content::Event(bytes)),
        }
    }
}

fn action(nack: &Nack) -> NackAction {
    match nack.action() {
        Action::Unknown | Action::Retry => NackAction::Retry,
        Action::Park => NackAction::Park,
        Action::Skip => NackAction::Skip,
        Action::Stop => NackAction::Stop,
    }
}
