//! Groups of competing consumers: what they are, how far they are, what they parked.
//!
//! **Owns:** the bodies of these routes. **Does not know:** how events are shared; `consume` is a consumer's own call.
//! **Invariants:** a change that was begun is finished, also when its client is gone.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{StatusCode, request::Parts},
};
use leftfold_model::{Position, StreamName};
use leftfold_store::consumers::{LIST_MAX, ParkedEvent};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{NoParams, QueryParams, RequestBody},
    problem::{Details, Problem},
};
use crate::{
    call,
    groups::{
        FilterSpec, GroupCatalog, GroupDefinition, GroupError, GroupId, GroupName, GroupSettings,
        GroupSource, ParkedMessages, Settled,
    },
    json,
    state::ServerState,
};

/// What stands for the whole log where a stream is expected.
const ALL: &str = "$all";

/// The group that an address names.
#[derive(Debug)]
pub(super) struct GroupPath(pub(super) GroupId);

impl FromRequestParts<Arc<ServerState>> for GroupPath {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ServerState>,
    ) -> Result<Self, Problem> {
        let named = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let axum::extract::Path((stream, group)) =
            named.map_err(|error| Problem::invalid("group", error.body_text()))?;
        let source = match stream.as_str() {
            ALL => GroupSource::All,
            _ => {
                let stream = StreamName::new(stream);
                let stream = stream.map_err(|error| Problem::of_model("stream", &error))?;
                GroupSource::Stream(stream)
            }
        };
        let name = GroupName::new(group.as_str());
        let name = name.map_err(|error| {
            Problem::invalid("group", error.to_string()).with_value(group.as_str())
        })?;
        Ok(Self(GroupId { source, name }))
    }
}

/// A group and how far it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GroupResponse {
    /// What its events are taken from: a stream, or `$all`.
    stream: String,
    group: String,
    /// The position through which every event is acknowledged or parked.
    position: u64,
    /// Positions between that and the newest event of its source.
    lag: u64,
    /// How many events are parked.
    parked: u64,
    /// The server that acts for it, while it has consumers.
    owner: Option<String>,
    /// How many consumers are connected to this server.
    consumers: usize,
    /// Events in flight with them.
    in_flight: usize,
    settings: Value,
    filter: Option<Value>,
}

/// Settings of a group. What is not given is as it was, or the default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupSettings)]
pub(super) struct GroupInput {
    /// `start`, `end`, `{"revision": 7}` or `{"position": 7}`.
    start: Option<Value>,
    resolve_links: Option<bool>,
    extra_statistics: Option<bool>,
    /// Milliseconds that a consumer has for an event; 0: as long as it is connected.
    message_timeout_ms: Option<u32>,
    /// How often an event is retried before it is parked.
    max_retry_count: Option<u32>,
    checkpoint_after_ms: Option<u32>,
    min_checkpoint_count: Option<u32>,
    max_checkpoint_count: Option<u32>,
    /// How many consumers may be connected; 0: any number.
    max_subscriber_count: Option<u32>,
    live_buffer_size: Option<u32>,
    read_batch_size: Option<u32>,
    history_buffer_size: Option<u32>,
    /// `RoundRobin`, `DispatchToSingle`, `Pinned` or `PinnedByCorrelation`.
    consumer_strategy: Option<String>,
    /// Of a group of `$all`, when it is created: `{"on": "stream", "prefixes": ["account-"]}`, or with `regex`.
    filter: Option<Value>,
}

impl GroupInput {
    fn filter(&self) -> Result<Option<FilterSpec>, Problem> {
        let filter = self.filter.clone();
        let read = filter.map(serde_json::from_value).transpose();
        read.map_err(|error| Problem::invalid("filter", error.to_string()))
    }

    /// Changes the settings that are given.
    fn apply(self, settings: &GroupSettings) -> Result<GroupSettings, Problem> {
        let invalid = |error: serde_json::Error| Problem::invalid("settings", error.to_string());
        let mut fields: Map<String, Value> = serde_json::to_value(settings)
            .and_then(serde_json::from_value)
            .map_err(invalid)?;
        let given = [
            ("start", self.start),
            ("resolve_links", self.resolve_links.map(Value::from)),
            ("extra_statistics", self.extra_statistics.map(Value::from)),
            (
                "message_timeout_ms",
                self.message_timeout_ms.map(Value::from),
            ),
            ("max_retry_count", self.max_retry_count.map(Value::from)),
            (
                "checkpoint_after_ms",
                self.checkpoint_after_ms.map(Value::from),
            ),
            (
                "min_checkpoint_count",
                self.min_checkpoint_count.map(Value::from),
            ),
            (
                "max_checkpoint_count",
                self.max_checkpoint_count.map(Value::from),
            ),
            (
                "max_subscriber_count",
                self.max_subscriber_count.map(Value::from),
            ),
            ("live_buffer_size", self.live_buffer_size.map(Value::from)),
            ("read_batch_size", self.read_batch_size.map(Value::from)),
            (
                "history_buffer_size",
                self.history_buffer_size.map(Value::from),
            ),
            ("consumer_strategy", self.consumer_strategy.map(Value::from)),
        ];
        for (name, value) in given {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value);
            }
        }
        serde_json::from_value(Value::Object(fields)).map_err(invalid)
    }
}

/// The groups as the request at hand may see and change them.
pub(super) fn catalog(shared: &ServerState) -> GroupCatalog {
    GroupCatalog::new(shared.store())
}

/// Carries out a change to its end, also when its client is gone.
async fn change<T: Send + 'static>(
    shared: &Arc<ServerState>,
    work: impl Future<Output = Result<T, GroupError>> + Send + 'static,
) -> Result<T, Problem> {
    let finished = call::run_to_completion(shared, call::deadline(shared), work).await;
    Ok(finished??)
}

async fn ask<T>(
    shared: &ServerState,
    question: impl Future<Output = Result<T, GroupError>>,
) -> Result<T, Problem> {
    Ok(call::with_timeout(shared, shared.settings.request_timeout, question).await??)
}

async fn response(
    shared: &ServerState,
    definition: GroupDefinition,
) -> Result<GroupResponse, GroupError> {
    let groups = catalog(shared);
    let running = shared.groups.statistics(&definition.id).await;
    let running = running.unwrap_or_default();
    let overview = groups.overview(definition).await?;
    let (definition, status) = (&overview.definition, overview.status.as_ref());
    let holder = status.and_then(|status| status.holder.as_ref());
    Ok(GroupResponse {
        stream: definition.id.source.to_string(),
        group: definition.id.name.as_str().to_owned(),
        position: overview.position.get(),
        lag: overview.lag(),
        parked: status.map_or(0, |status| status.parked),
        owner: holder.and_then(|(holder, _)| holder.split(' ').next().map(str::to_owned)),
        consumers: running.consumers.len(),
        in_flight: running.in_flight,
        settings: serde_json::to_value(&definition.settings).unwrap_or_default(),
        filter: definition
            .filter
            .as_ref()
            .and_then(|filter| serde_json::to_value(filter).ok()),
    })
}

/// Lists all groups with their settings and how far they are.
#[utoipa::path(
    get, path = "/subscriptions", tag = "subscriptions",
    responses(
        (status = OK, body = Vec<GroupResponse>),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Json<Vec<GroupResponse>>, Problem> {
    let listed = async {
        let mut groups = Vec::new();
        for definition in catalog(&shared).list().await? {
            groups.push(response(&shared, definition).await?);
        }
        Ok(groups)
    };
    ask(&shared, listed).await.map(Json)
}

/// Tells what a group is and how far it is.
#[utoipa::path(
    get, path = "/subscriptions/{stream}/{group}", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path)),
    responses(
        (status = OK, body = GroupResponse),
        (status = NOT_FOUND, body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Json<GroupResponse>, Problem> {
    let shown = async {
        let definition = catalog(&shared).get(&id).await?;
        response(&shared, definition).await
    };
    ask(&shared, shown).await.map(Json)
}

/// Creates a group.
#[utoipa::path(
    put, path = "/subscriptions/{stream}/{group}", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path)), request_body = GroupInput,
    responses(
        (status = CREATED, body = GroupResponse),
        (status = CONFLICT, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn create(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
    body: RequestBody,
) -> Result<(StatusCode, Json<GroupResponse>), Problem> {
    let input: GroupInput = body.read()?;
    let filter = input.filter()?;
    let settings = input.apply(&GroupSettings::default())?;
    let groups = catalog(&shared);
    let create = async move { groups.create(&id, settings, filter).await };
    let definition = change(&shared, create).await?;
    let created = response(&shared, definition).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

/// Changes settings of a group. Consumers stay connected.
#[utoipa::path(
    post, path = "/subscriptions/{stream}/{group}", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path)), request_body = GroupInput,
    responses(
        (status = OK, body = GroupResponse),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn update(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
    body: RequestBody,
) -> Result<Json<GroupResponse>, Problem> {
    let input: GroupInput = body.read()?;
    if input.filter.is_some() {
        return Err(Problem::invalid("filter", "fixed when a group is created"));
    }
    let groups = catalog(&shared);
    let former = ask(&shared, groups.get(&id)).await?;
    let settings = input.apply(&former.settings)?;
    let update = async move { groups.update(&id, settings).await };
    let definition = change(&shared, update).await?;
    Ok(Json(response(&shared, definition).await?))
}

/// Deletes a group with its checkpoint and its parked events.
#[utoipa::path(
    delete, path = "/subscriptions/{stream}/{group}", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path)),
    responses(
        (status = NO_CONTENT),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<StatusCode, Problem> {
    let groups = catalog(&shared);
    let delete = async move { groups.delete(&id).await };
    change(&shared, delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A parked event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ParkedResponse {
    /// Where the event stands in the log.
    position: u64,
    /// The stream in which the group found it.
    stream: String,
    /// Why it was parked.
    reason: String,
    /// How often it was delivered.
    deliveries: u32,
    /// When it was parked.
    time: String,
}

impl From<&ParkedEvent> for ParkedResponse {
    fn from(event: &ParkedEvent) -> Self {
        Self {
            position: event.position.get(),
            stream: event.key.clone(),
            reason: event.reason.clone(),
            deliveries: event.attempts,
            time: json::time_text(event.time),
        }
    }
}

/// Which parked events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ParkedParams {
    /// Only those behind this position.
    after: Option<u64>,
    /// How many; 1,000 at most.
    limit: Option<usize>,
}

/// Lists the parked events of a group with their reasons, the oldest first.
#[utoipa::path(
    get, path = "/subscriptions/{stream}/{group}/parked", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path), ParkedParams),
    responses(
        (status = OK, body = Vec<ParkedResponse>),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn parked(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(params): QueryParams<ParkedParams>,
) -> Result<Json<Vec<ParkedResponse>>, Problem> {
    let after = Position::new(params.after.unwrap_or_default());
    let limit = params.limit.unwrap_or(LIST_MAX).min(LIST_MAX);
    let listed = async {
        let parked = messages(&shared, &id).await?;
        parked.list(after, limit).await
    };
    let listed = ask(&shared, listed).await?;
    Ok(Json(listed.iter().map(ParkedResponse::from).collect()))
}

async fn messages(shared: &ServerState, id: &GroupId) -> Result<ParkedMessages, GroupError> {
    let groups = catalog(shared);
    let definition = groups.get(id).await?;
    ParkedMessages::new(Arc::clone(groups.event_store()), &definition)
}

/// What became of parked events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SettledResponse {
    /// How many.
    events: u64,
    /// Whether that is done; otherwise the server that acts for the group does it.
    done: bool,
}

impl From<Settled> for SettledResponse {
    fn from(settled: Settled) -> Self {
        Self {
            events: settled.count(),
            done: matches!(settled, Settled::Done(_)),
        }
    }
}

/// How many parked events to replay.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReplayParams {
    /// How many, from the oldest; without it all.
    count: Option<u64>,
}

/// Has parked events delivered again. They stay parked until a consumer acknowledges them.
#[utoipa::path(
    post, path = "/subscriptions/{stream}/{group}/replay", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path), ReplayParams),
    responses(
        (status = OK, body = SettledResponse),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn replay(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(params): QueryParams<ReplayParams>,
) -> Result<Json<SettledResponse>, Problem> {
    let (state, groups) = (Arc::clone(&shared), Arc::clone(&shared.groups));
    let replay = async move {
        let settled = messages(&state, &id).await?.replay(params.count).await?;
        groups.look_at_parked(&id).await;
        Ok(settled)
    };
    Ok(Json(change(&shared, replay).await?.into()))
}

/// Takes all parked events of a group out, for good. The events stay in the log.
#[utoipa::path(
    delete, path = "/subscriptions/{stream}/{group}/parked", tag = "subscriptions",
    params(("stream" = String, Path), ("group" = String, Path)),
    responses(
        (status = OK, body = SettledResponse),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn truncate(
    State(shared): State<Arc<ServerState>>,
    GroupPath(id): GroupPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Json<SettledResponse>, Problem> {
    let (state, groups) = (Arc::clone(&shared), Arc::clone(&shared.groups));
    let truncate = async move {
        let settled = messages(&state, &id).await?.truncate().await?;
        groups.look_at_parked(&id).await;
        Ok(settled)
    };
    Ok(Json(change(&shared, truncate).await?.into()))
}
