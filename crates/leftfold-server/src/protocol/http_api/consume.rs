//! Consumers of a group over HTTP: server-sent events and calls that acknowledge them.
//!
//! **Owns:** the messages of such a consumer. **Does not know:** who else is in the group.
//! **Invariants:** a consumer leaves its group when its stream of events ends; who does not know a consumer's id, which cannot
//! be guessed, acknowledges nothing for it; a stream never ends without saying why.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::{convert::Infallible, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::USER_AGENT},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, stream};
use leftfold_model::EventId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    extract::{NoParams, QueryParams, RequestBody},
    groups::GroupPath,
    problem::{Details, Problem, ProblemKind},
};
use crate::{
    connection::Peer,
    groups::{ConnectionInput, DeliveredMessage, LinkTarget, Membership, NackAction},
    json::{Bounded, EventOutput},
    protocol::group_access::{consumer_info, group_to_consume},
    state::ServerState,
};

/// Events in flight with a consumer that does not say how many it takes.
const WINDOW: usize = 10;
/// Events in flight with a consumer, at most.
const WINDOW_MAX: usize = 10_000;
/// Events in one acknowledgement, at most.
const ACKNOWLEDGED_MAX: usize = 10_000;

/// How a consumer takes events.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ConsumeParams {
    /// How many events it holds without having acknowledged them, 10,000 at most; 10 unless given.
    window: Option<usize>,
}

/// An event as a consumer of a group gets it.
#[derive(Serialize)]
struct Delivered<'a> {
    /// How often it was delivered before.
    retries: u32,
    /// The event; of a link that leads nowhere, nothing.
    event: Option<EventOutput<'a>>,
    /// The link that led to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<EventOutput<'a>>,
}

/// Joins a group and gets its events until the client goes.
///
/// The first message, `joined`, has the consumer's id as its data, for acknowledgements. Each further one has an event as its
/// data and, as its id, the id by which the event is acknowledged. `problem` says why the stream ends.
#[utoipa::path(
    get, path = "/subscriptions/{stream}/{group}/events", tag = "subscriptions",
    params(
        ("stream" = String, Path), ("group" = String, Path), ConsumeParams,
        ("ticket" = Option<String>, Query, description = "a ticket of `POST /api/v1/tickets`, instead of a header"),
    ),
    responses(
        (status = OK, content_type = "text/event-stream", body = String),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn consume(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(params): QueryParams<ConsumeParams>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let window = params.window.unwrap_or(WINDOW);
    if !(1..=WINDOW_MAX).contains(&window) {
        let problem = Problem::invalid("window", "not a number of events in flight");
        return Err(problem.with_value_and_limit(window, format!("1 to {WINDOW_MAX}")));
    }
    let agent = headers.get(USER_AGENT).and_then(|it| it.to_str().ok());
    let info = consumer_info(peer.as_deref(), agent);
    let (definition, access) = group_to_consume(&shared, &id).await?;
    let input = ConnectionInput { info, window };
    let joined = shared.groups.connect(&definition, input).await?;
    let membership = Arc::new(joined.membership);
    let consumer = shared.groups.register(&membership);
    let first = Event::default()
        .event("joined")
        .data(format!("{{\"consumer\":\"{consumer}\"}}"));
    let begin = (joined.deliveries, access, membership);
    let deliveries = stream::unfold(Some(begin), |state| async move {
        let (mut deliveries, mut access, membership) = state?;
        let next = tokio::select! {
            biased;
            denied = access.ended() => Some(Err(denied)),
            next = deliveries.recv() => next,
        };
        let admitted = next.map(|next| next.and_then(|delivered| access.admit(delivered)));
        let (message, goes_on) = match admitted {
            Some(Ok(delivered)) => shown(&delivered),
            Some(Err(error)) => (ended(&error.into()), false),
            None => {
                let stopping = Problem::new(ProblemKind::UNAVAILABLE, "server is stopping");
                (ended(&stopping), false)
            }
        };
        let message = Ok::<_, Infallible>(message);
        Some((message, goes_on.then_some((deliveries, access, membership))))
    });
    let messages = Sse::new(stream::iter([Ok(first)]).chain(deliveries));
    let keep_alive = KeepAlive::new().interval(shared.settings.keepalive_interval);
    // Proxies that gather answers would keep messages back.
    let headers = [("x-accel-buffering", "no")];
    Ok((headers, messages.keep_alive(keep_alive)).into_response())
}

/// A message with an event, and whether others may follow.
fn shown(delivered: &DeliveredMessage) -> (Event, bool) {
    let original = &delivered.message.original;
    let (event, link) = match &delivered.message.target {
        LinkTarget::NoLink => (Some(original), None),
        LinkTarget::Missing => (None, Some(original)),
        LinkTarget::Event(target) => (Some(target), Some(original)),
    };
    let data = Delivered {
        retries: delivered.retries,
        event: event.map(EventOutput::with_position),
        link: link.map(EventOutput::with_position),
    };
    match serde_json::to_string(&data) {
        // In JSON it is white space. It would be a line's end of its own, which not every client knows.
        Ok(text) => {
            let message = Event::default().id(original.id.to_string());
            (message.data(text.replace('\r', " ")), true)
        }
        Err(error) => {
            let position = original.position;
            let detail = format!("the event at position {position} cannot be shown: {error}");
            (ended(&Problem::new(ProblemKind::CORRUPT, detail)), false)
        }
    }
}

fn ended(problem: &Problem) -> Event {
    let text = serde_json::to_string(problem.details()).unwrap_or_default();
    Event::default().event("problem").data(text)
}

/// The consumer that an address names, which must be connected to this server.
fn member(shared: &ServerState, text: &str) -> Result<Arc<Membership>, Problem> {
    let consumer = text.parse::<Uuid>().ok();
    let member = consumer.and_then(|consumer| shared.groups.member(consumer));
    member.ok_or_else(|| {
        let detail = format!("consumer {text} is not connected to this server");
        Problem::new(ProblemKind::NOT_FOUND, detail).of("consumer")
    })
}

/// Events that a consumer is done with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Ack)]
pub(super) struct AckInput {
    /// The ids of the messages.
    #[schema(value_type = Vec<String>)]
    ids: Bounded<String, ACKNOWLEDGED_MAX>,
}

/// Events that a consumer does not acknowledge.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Nack)]
pub(super) struct NackInput {
    /// The ids of the messages.
    #[schema(value_type = Vec<String>)]
    ids: Bounded<String, ACKNOWLEDGED_MAX>,
    action: ActionInput,
    /// Why, for people.
    #[serde(default)]
    reason: String,
}

/// What is to be done with events that are not acknowledged.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = NackAction)]
enum ActionInput {
    /// To deliver them again, and to park them after too many retries.
    Retry,
    /// To set them aside.
    Park,
    /// To pass over them.
    Skip,
    /// To deliver them to others, and to end this consumer.
    Stop,
}

fn ids(texts: Bounded<String, ACKNOWLEDGED_MAX>) -> Result<Vec<EventId>, Problem> {
    let texts = texts.all("acknowledgement", "events", "ACKNOWLEDGED_EVENTS_MAX");
    let texts = texts.map_err(|error| Problem::of_model("ids", &error))?;
    let parsed = texts.iter().enumerate().map(|(index, text)| {
        text.parse()
            .map_err(|error| Problem::of_model(format!("ids[{index}]"), &error))
    });
    parsed.collect()
}

/// Acknowledges events.
#[utoipa::path(
    post, path = "/consumers/{consumer}/ack", tag = "subscriptions",
    params(("consumer" = String, Path)), request_body = AckInput,
    responses(
        (status = NO_CONTENT),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ack(
    State(shared): State<Arc<ServerState>>,
    Path(consumer): Path<String>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
    body: RequestBody,
) -> Result<StatusCode, Problem> {
    let member = member(&shared, &consumer)?;
    let input: AckInput = body.read()?;
    member.ack(ids(input.ids)?).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses events, and says what is to be done with them.
#[utoipa::path(
    post, path = "/consumers/{consumer}/nack", tag = "subscriptions",
    params(("consumer" = String, Path)), request_body = NackInput,
    responses(
        (status = NO_CONTENT),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn nack(
    State(shared): State<Arc<ServerState>>,
    Path(consumer): Path<String>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
    body: RequestBody,
) -> Result<StatusCode, Problem> {
    let member = member(&shared, &consumer)?;
    let input: NackInput = body.read()?;
    let action = match input.action {
        ActionInput::Retry => NackAction::Retry,
        ActionInput::Park => NackAction::Park,
        ActionInput::Skip => NackAction::Skip,
        ActionInput::Stop => NackAction::Stop,
    };
    member.nack(ids(input.ids)?, action, input.reason).await;
    Ok(StatusCode::NO_CONTENT)
}
