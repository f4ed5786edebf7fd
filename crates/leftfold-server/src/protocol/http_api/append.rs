//! Appending: to one stream, or to several under conditions.
//!
//! **Owns:** the bodies of appends and their responses. **Does not know:** how an append is decided.
//! **Invariants:** an append that began finishes; events without ids get ids derived from the request's idempotency key, if it
//! has one, so that a repetition appends nothing; of a request that is too large, no more is held than of the largest allowed.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::sync::Arc;

use axum::{Json, extract::State, http::HeaderMap};
use leftfold_model::{
    Append, AppendCondition, Appended, EventId, ModelError, NewEvent, Position, StreamCheck,
    StreamWrite,
    limits::{
        APPEND_CHECKS_MAX, APPEND_CONDITION_TERMS_MAX, APPEND_CONDITIONS_MAX, APPEND_EVENTS_MAX,
    },
};
use leftfold_store::{AppendError, EventStore};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    cloud_events::{self, Attributes, CloudEvent},
    events_body::{EventsBody, EventsForm},
    extract::{
        self, Expected, ExpectedRevisionParam, Items, NoParams, QueryItemBody, QueryParams,
        RequestBody, StreamPath,
    },
    problem::{Details, Problem},
};
use crate::{
    call::{self, QueryError},
    json::{Bounded, EventInput},
    protocol::decoded_append,
    state::ServerState,
};

/// The header of the idempotency key.
const KEY: &str = "idempotency-key";
/// Maximum bytes of the key.
const KEY_BYTES_MAX: usize = 255;
/// The namespace of ids that are derived from it.
const KEY_NAMESPACE: EventId = EventId::from_bytes(*b"leftfold-http-id");

/// An append: events for streams, together or not at all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendRequest<'a> {
    #[serde(borrow)]
    #[schema(value_type = Vec<Write<'_>>, max_items = 10_000)]
    writes: Bounded<Write<'a>, APPEND_EVENTS_MAX>,
    /// Expectations of streams that are not written to.
    #[serde(default)]
    #[schema(value_type = Vec<Check>, max_items = 20_000)]
    checks: Bounded<Check, APPEND_CHECKS_MAX>,
    /// Conditions: queries that no event after `after` may match.
    #[serde(default)]
    #[schema(value_type = Vec<Condition<'_>>, max_items = 64)]
    #[serde(borrow)]
    conditions: Bounded<Condition<'a>, APPEND_CONDITIONS_MAX>,
}

/// Events for one stream.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Write<'a> {
    stream: String,
    #[serde(default)]
    #[schema(value_type = ExpectedRevisionParam, required = false)]
    expected: Expected,
    /// At least one, and at most 10,000 in the whole append.
    // Read write by write, so that no more events are held than one append may have.
    #[serde(borrow)]
    #[schema(value_type = Vec<EventInput<'_>>)]
    events: &'a RawValue,
}

/// An expectation of a stream.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Check {
    stream: String,
    #[schema(value_type = ExpectedRevisionParam)]
    expected: Expected,
}

/// A condition: the append fails if an event after `after` matches.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Condition<'a> {
    /// The query; without it, all events. At most 65,536 types and tags in all conditions.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<QueryItemBody>>, max_items = 4_096)]
    items: Option<Items<'a>>,
    /// The `token` of the read that the decision is based on; 0: nothing was seen.
    #[serde(default)]
    after: u64,
}

/// The positions of the appended events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AppendResponse {
    /// The position of the first event; the others follow without a gap.
    first: u64,
    /// The position of the last event.
    last: u64,
    /// Each stream that was written to, with the revision of its last event.
    streams: Vec<Written>,
    /// Whether the append was stored before, so that nothing was appended now.
    repeated: bool,
}

/// The new end of a stream.
#[derive(Debug, Serialize, ToSchema)]
struct Written {
    stream: String,
    revision: u64,
}

impl From<Appended> for AppendResponse {
    fn from(appended: Appended) -> Self {
        let written =
            |(stream, revision): (leftfold_model::StreamName, leftfold_model::Revision)| Written {
                stream: stream.to_string(),
                revision: revision.get(),
            };
        Self {
            first: appended.first.get(),
            last: appended.last.get(),
            streams: appended.streams.into_iter().map(written).collect(),
            repeated: appended.repeated,
        }
    }
}

/// Appends to several streams, under checks and conditions, together or not at all.
#[utoipa::path(
    post, path = "/append", tag = "events",
    params(("idempotency-key" = Option<String>, Header, description = "makes the ids of events without one")),
    request_body = AppendRequest<'_>,
    responses(
        (status = OK, body = AppendResponse),
        (status = CONFLICT, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn append(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
    sent: RequestBody,
) -> Result<Json<AppendResponse>, Problem> {
    let append = sent.decode(&shared, asked_append).await?;
    execute_append(&shared, append).await
}

fn asked_append(sent: &RequestBody) -> Result<Append, Problem> {
    let request: AppendRequest<'_> = sent.read()?;
    let mut ids = EventIdGenerator::of(&sent.headers)?;
    let writes = writes(request.writes, &mut ids)?;
    let conditions = conditions(request.conditions)?;
    let checks = request.checks.all("append", "checks", "APPEND_CHECKS_MAX");
    let checks = checks.map_err(of("checks"))?.into_iter().enumerate();
    let checks = checks.map(|(index, check)| {
        Ok(StreamCheck {
            stream: extract::stream(&format!("checks[{index}].stream"), check.stream)?,
            expected: check.expected.0,
        })
    });
    let checks = checks.collect::<Result<Vec<_>, Problem>>()?;
    Append::new(writes, conditions)
        .and_then(|append| append.with_checks(checks))
        .map_err(of("request"))
}

/// Decodes conditions one by one, so that no more names are held than all of them may have.
fn conditions(
    given: Bounded<Condition<'_>, APPEND_CONDITIONS_MAX>,
) -> Result<Vec<AppendCondition>, Problem> {
    let given = given.all("append", "conditions", "APPEND_CONDITIONS_MAX");
    let given = given.map_err(of("conditions"))?;
    let (mut conditions, mut terms) = (Vec::with_capacity(given.len()), 0);
    for (index, condition) in given.into_iter().enumerate() {
        let at = format!("conditions[{index}]");
        let query = extract::query(condition.items, &format!("{at}.items"))?;
        terms += query.term_count();
        if terms > APPEND_CONDITION_TERMS_MAX {
            let through = format!("append, up to {at},");
            let limit = (APPEND_CONDITION_TERMS_MAX, "APPEND_CONDITION_TERMS_MAX");
            let exceeded = extract::too_many_terms(through, terms, limit);
            return Err(Problem::of_model(at, &exceeded));
        }
        conditions.push(AppendCondition::new(query, Position::new(condition.after)));
    }
    Ok(conditions)
}

/// The problem with this field, which breaks a rule of the model.
fn of(field: &'static str) -> impl Fn(ModelError) -> Problem {
    move |error| Problem::of_model(field, &error)
}

fn writes(
    given: Bounded<Write<'_>, APPEND_EVENTS_MAX>,
    ids: &mut EventIdGenerator,
) -> Result<Vec<StreamWrite>, Problem> {
    let given = given.all("append", "writes", "APPEND_EVENTS_MAX");
    let given = given.map_err(of("writes"))?;
    let mut writes = Vec::with_capacity(given.len());
    let mut count = 0;
    for (index, write) in given.into_iter().enumerate() {
        let at = format!("writes[{index}]");
        let field = format!("{at}.events");
        let given = extract::part(write.events, &field)?;
        let events = events(given, &write.stream, &field, ids)?;
        count += events.len();
        if count > APPEND_EVENTS_MAX {
            let far = format!("append, up to {at},");
            return Err(Problem::of_model(field, &too_many(far, count)));
        }
        writes.push(StreamWrite {
            stream: extract::stream(&format!("{at}.stream"), write.stream)?,
            expected: write.expected.0,
            events,
        });
    }
    Ok(writes)
}

fn too_many(thing: String, got: usize) -> ModelError {
    ModelError::OutOfRange {
        thing,
        unit: "events",
        got,
        min: 1,
        max: APPEND_EVENTS_MAX,
        limit: "APPEND_EVENTS_MAX",
    }
}

/// Parameters of an append to one stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AppendParams {
    /// The expected revision: any, none, exists, or a number.
    #[serde(default)]
    #[param(value_type = Option<ExpectedRevisionParam>)]
    pub(super) expected: Expected,
}

/// Events for a stream: one, or a list of them.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only for the description")]
enum OneOrMore<'a> {
    One(Box<EventInput<'a>>),
    More(Vec<EventInput<'a>>),
}

/// Appends to one stream: an event or a list of them, also as `CloudEvents`; with `ce-` headers, the body is one's data.
#[utoipa::path(
    post, path = "/streams/{stream}/events", tag = "events",
    params(
        ("stream" = String, Path), AppendParams,
        ("idempotency-key" = Option<String>, Header, description = "makes the ids of events without one"),
    ),
    request_body(content(
        (OneOrMore<'_> = "application/json"),
        (CloudEvent<'_> = "application/cloudevents+json"),
        (Vec<CloudEvent<'_>> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = OK, body = AppendResponse),
        (status = CONFLICT, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn append_to(
    State(shared): State<Arc<ServerState>>,
    StreamPath(stream): StreamPath,
    QueryParams(AppendParams { expected }): QueryParams<AppendParams>,
    EventsBody { body: sent, form }: EventsBody,
) -> Result<Json<AppendResponse>, Problem> {
    let decode = move |sent: &RequestBody| {
        let events = sent_events(sent, form, stream.as_str())?;
        Append::to(stream, expected.0, events).map_err(of("events"))
    };
    let append = sent.decode(&shared, decode).await?;
    execute_append(&shared, append).await
}

fn sent_events(
    sent: &RequestBody,
    form: EventsForm,
    stream: &str,
) -> Result<Vec<NewEvent>, Problem> {
    match form {
        EventsForm::Plain => {
            let mut ids = EventIdGenerator::of(&sent.headers)?;
            events(sent.one_or_more()?, stream, "events", &mut ids)
        }
        EventsForm::CloudEvent => {
            let one: Attributes<'_> = sent.read()?;
            cloud_events::events(vec![one].into(), stream)
        }
        EventsForm::CloudEvents => cloud_events::events(sent.read()?, stream),
        EventsForm::Binary => Ok(vec![cloud_events::binary_event(
            &sent.headers,
            sent.bytes(),
            stream,
        )?]),
    }
}

/// Appends, and adds a hint to the problem of an unknown outcome.
pub(super) async fn execute_append(
    shared: &ServerState,
    append: Append,
) -> Result<Json<AppendResponse>, Problem> {
    let memory = decoded_append::memory(&append);
    call::charge(memory).map_err(|exhausted| Problem::overloaded(exhausted, "request"))?;
    let appended = execute_write(shared, |store| async move { store.append(append).await }).await;
    appended.map_err(|problem| problem.with_hint("repeat it with the same ids or key"))
}

/// Runs a change to completion.
pub(super) async fn execute_write<F>(
    shared: &ServerState,
    change: impl FnOnce(Arc<dyn EventStore>) -> F,
) -> Result<Json<AppendResponse>, Problem>
where
    F: Future<Output = Result<Appended, AppendError>> + Send + 'static,
{
    if shared.stopping.is_cancelled() {
        return Err(QueryError::ShuttingDown.into());
    }
    let deadline = call::deadline(shared);
    let changed = call::run_to_completion(shared, deadline, change(shared.store()));
    Ok(Json(changed.await??.into()))
}

/// The events of a request.
type Events<'a> = Bounded<EventInput<'a>, APPEND_EVENTS_MAX>;

/// Converts the events of a request for a stream.
fn events(
    given: Events<'_>,
    stream: &str,
    field: &str,
    ids: &mut EventIdGenerator,
) -> Result<Vec<NewEvent>, Problem> {
    let given = given.all("append", "events", "APPEND_EVENTS_MAX");
    let given = given.map_err(|error| Problem::of_model(field, &error))?;
    let mut events = Vec::with_capacity(given.len());
    for (index, event) in given.into_iter().enumerate() {
        let field = format!("{field}[{index}]");
        if let Some(other) = event.stream.as_deref().filter(|other| *other != stream) {
            return Err(Problem::stream_mismatch(&field, other, stream));
        }
        let id = ids.next();
        let event = event
            .into_event(|| id)
            .map_err(|error| Problem::of_event(&field, error))?;
        events.push(event);
    }
    Ok(events)
}

/// The generator of ids for events without one.
pub(super) struct EventIdGenerator {
    key: Option<String>,
    given: u64,
}

impl EventIdGenerator {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let key = headers.get(KEY).map(|value| {
            let text = value
                .to_str()
                .ok()
                .filter(|text| !text.is_empty() && text.len() <= KEY_BYTES_MAX);
            text.map(str::to_owned).ok_or_else(|| {
                let limit = format!("1 to {KEY_BYTES_MAX} visible characters");
                Problem::invalid(KEY, format!("expected {limit}"))
                    .with_value_and_limit(format!("{value:?}"), limit)
            })
        });
        Ok(Self {
            key: key.transpose()?,
            given: 0,
        })
    }

    fn next(&mut self) -> EventId {
        self.given += 1;
        match &self.key {
            None => EventId::fresh(),
            Some(key) => {
                EventId::derived(KEY_NAMESPACE, format!("{}:{key}", self.given).as_bytes())
            }
        }
    }

    /// Gives every event of an append the next id of this generator.
    pub(super) fn assign(mut self, append: Append) -> Result<Append, ModelError> {
        let (mut writes, checks, conditions) = append.into_parts();
        for write in &mut writes {
            let events = std::mem::take(&mut write.events).into_iter();
            write.events = events.map(|event| event.with_id(self.next())).collect();
        }
        Append::new(writes, conditions)?.with_checks(checks)
    }
}
