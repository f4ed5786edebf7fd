//! Subscriptions by server-sent events.
//!
//! **Owns:** the messages, and where a reconnecting client resumes. **Does not know:** how the store follows the log.
//! **Invariants:**
//! - The id of each message is the position through which everything was sent, and of the first one the position it starts
//!   after. So a reconnection neither misses nor repeats an event.
//! - A slow client holds one delivery in memory.
//! - Before a stream ends, it sends the reason.
//! - An error that a reconnection cannot mend is the response to the request, because a browser would reconnect endlessly.
//!
//! Source: the HTML standard, section 9.2, server-sent events.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_model::{EventId, Position, Scope};
use leftfold_store::{Delivery, ReadError, Subscription};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::{
    extract::{self, QueryParams},
    problem::{Details, Problem, ProblemKind},
};
use crate::{
    call::{self, QueryError},
    json::EventOutput,
    state::ServerState,
    unsupported_stream,
};

/// The header with the last id that a browser received.
const LAST_EVENT_ID: &str = "last-event-id";
/// Minimum delay before a client reconnects.
const COME_BACK_AFTER: Duration = Duration::from_secs(1);
/// Random part of that delay, so that the clients of a server that ended do not all reconnect at one moment.
const COME_BACK_SPREAD: Duration = Duration::from_secs(2);
/// Timeout for the store's first delivery before the response starts. Only a long search takes longer, and no
/// error does.
const FIRST_WORD_WITHIN: Duration = Duration::from_secs(1);

/// Parameters of a subscription.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SubscribeParams {
    /// The position to start after, or `end` for new events only; without it everything. `Last-Event-ID` has
    /// precedence.
    after: Option<String>,
    /// Only events of this stream.
    stream: Option<String>,
    /// Only events of streams of this category.
    category: Option<String>,
    /// Only events of this type; several: of one of them.
    #[serde(default, rename = "type")]
    types: Vec<String>,
    /// Only events with this tag; several: with all of them.
    #[serde(default, rename = "tag")]
    tags: Vec<String>,
}

/// Subscribes to the log: stored events, then new ones, until the client disconnects.
///
/// The first message has an id and no data: where the subscription starts. Each further one has an event as its data and the
/// position as its id. An id without data says how far the log was searched. After `caught-up`, all events are new.
/// `problem` says why the stream ends.
#[utoipa::path(
    get, path = "/subscribe", tag = "events",
    params(
        SubscribeParams,
        ("ticket" = Option<String>, Query, description = "a ticket of `POST /api/v1/tickets`, instead of a header"),
        ("last-event-id" = Option<u64>, Header, description = "the position after which to go on"),
    ),
    responses(
        (status = OK, content_type = "text/event-stream", body = String),
        (status = GONE, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn subscribe(
    State(shared): State<Arc<ServerState>>,
    headers: HeaderMap,
    QueryParams(params): QueryParams<SubscribeParams>,
) -> Result<Response, Problem> {
    let selected = Subscription::default()
        .scope(extract::scope(params.stream, params.category)?)
        .matching(extract::filter(params.types, params.tags)?);
    refuse_unsupported(&shared, &selected.scope).await?;
    let (field, after) = match (headers.get(LAST_EVENT_ID), params.after.as_deref()) {
        (Some(id), _) => {
            let text = id.to_str().unwrap_or_default();
            (LAST_EVENT_ID, position(LAST_EVENT_ID, text)?)
        }
        (None, Some("end")) => match end(&shared).await {
            Ok(head) => ("after", head),
            Err(problem) => return Ok(SseStream::of(&shared).ended(&problem).answer(&shared)),
        },
        (None, Some(text)) => ("after", position("after", text)?),
        (None, None) => ("after", Position::default()),
    };
    let subscription = Subscription { after, ..selected };
    let mut following = SseStream::of(&shared);
    following.deliveries = shared.store().subscribe(subscription);
    let begin = Event::default()
        .id(after.to_string())
        .retry(come_back_after());
    following.ready.push_back(begin);
    match timeout(FIRST_WORD_WITHIN, following.deliveries.next()).await {
        Ok(Some(Err(ReadError::Invalid { reason }))) => {
            return Err(Problem::invalid(field, reason).with_value(after.get()));
        }
        Ok(Some(Err(
            error @ (ReadError::StreamDeleted { .. }
            | ReadError::Corrupt { .. }
            | ReadError::AccessDenied { .. }),
        ))) => {
            return Err(error.into());
        }
        Ok(next) => following.take(next),
        Err(_) => {}
    }
    Ok(following.answer(&shared))
}

/// Returns the delay before one client reconnects.
fn come_back_after() -> Duration {
    // Any source of chance will do; the random part of a fresh id is one.
    let [.., low, high] = *EventId::fresh().as_bytes();
    COME_BACK_AFTER + COME_BACK_SPREAD * u32::from(u16::from_le_bytes([low, high])) / (1 << 16)
}

/// Refuses a stream that this server does not keep: nothing would ever come.
async fn refuse_unsupported(shared: &ServerState, scope: &Scope) -> Result<(), Problem> {
    let store = shared.store();
    let asking = unsupported_stream::refuse_scope(&*store, scope);
    match call::with_timeout(shared, FIRST_WORD_WITHIN, asking).await {
        Ok(Err(ReadError::Invalid { reason })) => Err(Problem::invalid("stream", reason)),
        // Whatever else is wrong, the subscription itself says so.
        _ => Ok(()),
    }
}

/// Returns the head of the log.
async fn end(shared: &ServerState) -> Result<Position, Problem> {
    let store = shared.store();
    let asking = store.head();
    Ok(call::with_timeout(shared, shared.settings.request_timeout, asking).await??)
}

fn position(field: &str, text: &str) -> Result<Position, Problem> {
    text.parse().map(Position::new).map_err(|_| {
        Problem::invalid(field, "not a position")
            .with_value_and_limit(text, "a whole number from 0 on")
    })
}

/// A subscription in progress.
struct SseStream {
    deliveries: BoxStream<'static, Result<Delivery, ReadError>>,
    stopping: CancellationToken,
    /// Messages to send before the next delivery is read.
    ready: VecDeque<Event>,
    was_caught_up: bool,
    ended: bool,
}

impl SseStream {
    /// Creates a stream without a subscription.
    fn of(shared: &ServerState) -> Self {
        Self {
            deliveries: stream::empty().boxed(),
            stopping: shared.stopping.clone(),
            ready: VecDeque::new(),
            was_caught_up: false,
            ended: false,
        }
    }

    fn answer(self, shared: &ServerState) -> Response {
        let messages = Sse::new(stream::unfold(self, Self::step));
        let keep_alive = KeepAlive::new().interval(shared.settings.keepalive_interval);
        // Proxies that gather answers would keep messages back.
        let headers = [("x-accel-buffering", "no")];
        (headers, messages.keep_alive(keep_alive)).into_response()
    }

    async fn step(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        loop {
            if self.stopping.is_cancelled() && !self.ended {
                // What is not sent yet is sent to the client that comes back.
                self.ready.clear();
                self = self.ended(&QueryError::ShuttingDown.into());
            }
            if let Some(event) = self.ready.pop_front() {
                return Some((Ok(event), self));
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stopping.cancelled() => {}
                next = self.deliveries.next() => self.take(next),
            }
        }
    }

    /// Converts a delivery of the store into messages.
    fn take(&mut self, next: Option<Result<Delivery, ReadError>>) {
        let taken = match next {
            Some(Ok(delivery)) => self.deliver(&delivery),
            Some(Err(error)) => Err(error.into()),
            None => Err(Problem::new(
                ProblemKind::UNAVAILABLE,
                "the store was closed",
            )),
        };
        if let Err(problem) = taken {
            self.end(&problem);
        }
    }

    fn deliver(&mut self, delivery: &Delivery) -> Result<(), Problem> {
        let through = delivery.through;
        let mut sent = None;
        for event in &delivery.events {
            let position = event.position;
            let shown =
                serde_json::to_string(&EventOutput::with_position(event)).map_err(|error| {
                    let detail =
                        format!("the event at position {position} cannot be shown: {error}");
                    Problem::new(ProblemKind::CORRUPT, detail)
                })?;
            sent = Some(position);
            // In JSON it is white space. It would be a line's end of its own, which not every client knows.
            let shown = shown.replace('\r', " ");
            let message = Event::default().id(position.to_string());
            self.ready.push_back(message.data(shown));
        }
        let became_current = delivery.caught_up && !self.was_caught_up;
        self.was_caught_up = delivery.caught_up;
        if became_current {
            let message = Event::default().event("caught-up").id(through.to_string());
            self.ready
                .push_back(message.data(format!("{{\"position\":{through}}}")));
        } else if sent < Some(through) {
            self.ready
                .push_back(Event::default().id(through.to_string()));
        }
        Ok(())
    }

    fn end(&mut self, problem: &Problem) {
        self.ended = true;
        // A client that reconnects gets this problem again, as the response to its request.
        let text = serde_json::to_string(problem.details()).unwrap_or_default();
        self.ready
            .push_back(Event::default().event("problem").data(text));
    }

    /// Ends the stream with this problem and returns it.
    fn ended(mut self, problem: &Problem) -> Self {
        self.end(problem);
        self
    }
}
