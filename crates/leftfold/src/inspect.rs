//! Answers about a running application as JSON: states and their history, projections, consumers.
//!
//! **Owns:** [`Inspect`] and its routes. **Does not know:** who may ask: the application mounts the router behind its own
//! authentication. **Invariants:** nothing here changes anything; every answer is bounded; states are those that commands
//! decide on.

use std::{collections::BTreeMap, fmt, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream::BoxStream};
use leftfold_model::{ErrorChain, Position};
use leftfold_store::{
    ReadError,
    consumers::{ConsumerError, ConsumerName, ConsumerStatus, LIST_MAX, ListParked, ParkedEvent},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Aggregate, CausedEvent, HistoryError, ProjectionHandle, Store, View, clock::rfc3339};

/// Maximum number of steps of a history in one answer.
const STEPS_MAX: usize = 1_000;

type Steps = BoxStream<'static, Result<Value, HistoryError>>;
type History = Arc<dyn Fn(&Store, &str) -> Steps + Send + Sync>;
type Projections = Arc<dyn Fn() -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;

/// Registers the parts of an application and answers questions about them.
///
/// | route | answer |
/// |---|---|
/// | `GET /aggregates` | the categories that are registered |
/// | `GET /aggregates/{category}/{id}` | the state; `?revision=` or `?position=` for an earlier one |
/// | `GET /aggregates/{category}/{id}/history` | what each event changed: `?after=` a revision, `?limit=` 1,000 at most |
/// | `GET /causes/{correlation}` | the events of a correlation in the order of the log, each with the event that caused it |
/// | `GET /projections` | the projections that are registered: versions, positions, parked events |
/// | `GET /consumers` | listeners and processes of the store: checkpoints, holders, counts; `?after=` a name |
/// | `GET /consumers/{name}/parked` | the parked events of one, with reasons; `?after=` a position |
///
/// Errors are `{"error": "..."}`: 404 for what is not registered or not known, 400 for a parameter, 503 otherwise.
#[derive(Clone)]
pub struct Inspect {
    store: Store,
    aggregates: BTreeMap<&'static str, History>,
    projections: BTreeMap<&'static str, Projections>,
}

impl fmt::Debug for Inspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspect")
            .field("aggregates", &self.aggregates.keys())
            .field("projections", &self.projections.keys())
            .finish_non_exhaustive()
    }
}

impl Inspect {
    /// Answers about a store; nothing else is registered yet.
    #[must_use]
    pub fn new(store: &Store) -> Self {
        Self {
            store: store.clone(),
            aggregates: BTreeMap::new(),
            projections: BTreeMap::new(),
        }
    }

    /// Registers an aggregate or a process, under its category.
    #[must_use]
    pub fn aggregate<A: Aggregate + Serialize>(mut self) -> Self {
        let history: History = Arc::new(|store: &Store, id: &str| {
            let steps = store.repository::<A>().history(id);
            let steps = steps.map_ok(|step| {
                json!({
                    "revision": step.revision.get(),
                    "position": step.position.get(),
                    "id": step.id.to_string(),
                    "time": rfc3339(step.time),
                    "type": step.event_type.as_str(),
                    "metadata": step.metadata,
                    "before": step.before,
                    "after": step.after,
                    "changes": step.changes,
                })
            });
            steps.boxed()
        });
        self.aggregates.insert(A::CATEGORY, history);
        self
    }

    /// Registers a projection that runs.
    #[must_use]
    pub fn projection<V: View>(mut self, handle: &Arc<ProjectionHandle<V>>) -> Self {
        let name = handle.id().name;
        let handle = Arc::clone(handle);
        let answer: Projections = Arc::new(move || {
            let handle = Arc::clone(&handle);
            async move {
                let status = handle.status().await.map_err(|error| error.to_string())?;
                let versions = handle.versions().await.map_err(|error| error.to_string())?;
                let version = |known: &crate::VersionStatus| {
                    json!({
                        "version": known.version,
                        "position": known.position.get(),
                        "active": known.active,
                        "caught_up": known.caught_up,
                    })
                };
                let versions: Vec<_> = versions.iter().map(version).collect();
                Ok(json!({
                    "version": handle.id().version,
                    "state": format!("{:?}", status.state),
                    "position": status.position.get(),
                    "lag": status.lag,
                    "projected": status.projected,
                    "retries": status.retries,
                    "parked": status.parked,
                    "versions": versions,
                }))
            }
            .boxed()
        });
        self.projections.insert(name, answer);
        self
    }

    /// Returns the routes. Mount them behind the application's own authentication.
    pub fn router(self) -> Router {
        Router::new()
            .route("/aggregates", get(aggregates))
            .route("/aggregates/{category}/{id}", get(state))
            .route("/aggregates/{category}/{id}/history", get(history))
            .route("/causes/{correlation}", get(causes))
            .route("/projections", get(projections))
            .route("/consumers", get(consumers))
            .route("/consumers/{name}/parked", get(parked))
            .with_state(self)
    }

    fn steps(&self, category: &str, id: &str) -> Result<Steps, Failed> {
        let known = self.aggregates.get(category);
        let history = known.ok_or_else(|| {
            Failed::not_found(format!("aggregate is not registered: {category:?}"))
        })?;
        Ok(history(&self.store, id))
    }
}

/// An answer that is an error.
struct Failed {
    status: StatusCode,
    error: String,
}

impl Failed {
    fn not_found(error: String) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            error,
        }
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

impl From<HistoryError> for Failed {
    fn from(error: HistoryError) -> Self {
        let status = match &error {
            HistoryError::Load(crate::LoadError::InvalidId { .. }) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            status,
            error: ErrorChain(&error).to_string(),
        }
    }
}
impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: ErrorChain(&error).to_string(),
        }
    }
}
impl From<ConsumerError> for Failed {
    fn from(error: ConsumerError) -> Self {
        let status = match &error {
            ConsumerError::NotFound { .. } => StatusCode::NOT_FOUND,
            ConsumerError::Name(_) | ConsumerError::Invalid { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self {
            status,
            error: ErrorChain(&error).to_string(),
        }
    }
}

type Answer = Result<Json<Value>, Failed>;

#[derive(Deserialize)]
struct Moment {
    revision: Option<u64>,
    position: Option<u64>,
}

#[derive(Deserialize)]
struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
struct AfterName {
    after: Option<String>,
}

async fn aggregates(State(inspect): State<Inspect>) -> Json<Value> {
    let categories: Vec<_> = inspect.aggregates.keys().collect();
    Json(json!(categories))
}

/// The state after the last step that is not behind the moment.
async fn state(
    State(inspect): State<Inspect>,
    Path((category, id)): Path<(String, String)>,
    Query(moment): Query<Moment>,
) -> Answer {
    let mut steps = inspect.steps(&category, &id)?;
    let number = |step: &Value, field: &str| step.get(field).and_then(Value::as_u64);
    let mut last = None;
    while let Some(step) = steps.try_next().await? {
        let behind = |field: &str, limit: Option<u64>| {
            limit.is_some_and(|limit| number(&step, field).is_some_and(|at| at > limit))
        };
        if behind("revision", moment.revision) || behind("position", moment.position) {
            break;
        }
        last = Some(step);
    }
    let Some(mut last) = last else {
        return Err(Failed::not_found(format!(
            "aggregate has no events: {category}-{id}"
        )));
    };
    let mut take = |field: &str| last.get_mut(field).map(Value::take);
    Ok(Json(json!({
        "revision": take("revision"),
        "position": take("position"),
        "time": take("time"),
        "state": take("after"),
    })))
}

async fn history(
    State(inspect): State<Inspect>,
    Path((category, id)): Path<(String, String)>,
    Query(page): Query<Page>,
) -> Answer {
    let steps = inspect.steps(&category, &id)?;
    let first = page.after.map_or(0, |after| after.saturating_add(1));
    let steps = steps.try_filter(move |step| {
        let revision = step.get("revision").and_then(Value::as_u64);
        std::future::ready(revision.is_some_and(|revision| revision >= first))
    });
    let limit = page.limit.unwrap_or(STEPS_MAX).min(STEPS_MAX);
    let steps: Vec<_> = steps.take(limit).try_collect().await?;
    Ok(Json(json!(steps)))
}

async fn causes(State(inspect): State<Inspect>, Path(correlation): Path<String>) -> Answer {
    let causes = inspect.store.causes(&correlation).await?;
    let event = |event: &CausedEvent| {
        json!({
            "id": event.id.to_string(),
            "cause": causes.cause_of(event).map(|cause| cause.id.to_string()),
            "type": event.event_type.as_str(),
            "stream": event.stream.as_str(),
            "revision": event.revision.get(),
            "position": event.position.get(),
            "time": rfc3339(event.time),
        })
    };
    let events: Vec<_> = causes.events().iter().map(event).collect();
    Ok(Json(
        json!({ "complete": causes.is_complete(), "events": events }),
    ))
}

async fn projections(State(inspect): State<Inspect>) -> Answer {
    let mut answers = serde_json::Map::new();
    for (name, answer) in &inspect.projections {
        // One view that is not reached does not hide the others.
        let answer = answer()
            .await
            .unwrap_or_else(|error| json!({ "error": error }));
        answers.insert((*name).to_owned(), answer);
    }
    Ok(Json(answers.into()))
}

async fn consumers(State(inspect): State<Inspect>, Query(page): Query<AfterName>) -> Answer {
    let after = page.after.map(ConsumerName::new).transpose();
    let after = after.map_err(ConsumerError::from)?;
    let consumers = inspect.store.event_store().consumers();
    let list = consumers.list(after.as_ref()).await?;
    let status = |consumer: &ConsumerStatus| {
        json!({
            "name": consumer.consumer.as_str(),
            "position": consumer.position.get(),
            "term": consumer.term,
            "holder": consumer.holder.as_ref().map(|(holder, _)| holder),
            "parked": consumer.parked,
            "timers": consumer.timers,
            "time": rfc3339(consumer.time),
        })
    };
    let list: Vec<_> = list.iter().map(status).collect();
    Ok(Json(json!(list)))
}

async fn parked(
    State(inspect): State<Inspect>,
    Path(name): Path<String>,
    Query(page): Query<Page>,
) -> Answer {
    let name = ConsumerName::new(name).map_err(ConsumerError::from)?;
    let consumers = inspect.store.event_store().consumers();
    if consumers.status(&name).await?.is_none() {
        return Err(ConsumerError::NotFound { consumer: name }.into());
    }
    let list = ListParked {
        after: Position::new(page.after.unwrap_or(0)),
        limit: page.limit.unwrap_or(LIST_MAX).min(LIST_MAX),
        ..ListParked::default()
    };
    let list = consumers.parked(&name, &list).await?;
    let event = |event: &ParkedEvent| {
        json!({
            "position": event.position.get(),
            "key": event.key,
            "reason": event.reason,
            "attempts": event.attempts,
            "time": rfc3339(event.time),
        })
    };
    let list: Vec<_> = list.iter().map(event).collect();
    Ok(Json(json!(list)))
}
