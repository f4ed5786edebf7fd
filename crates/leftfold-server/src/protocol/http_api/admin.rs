//! Administration: statistics and scavenges.
//!
//! **Owns:** the bodies of these routes. **Does not know:** how a scavenge works.
//! **Invariants:** a scavenge started here continues if its client disconnects.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{NoParams, QueryParams},
    problem::{Details, Problem, ProblemKind},
};
use crate::{
    background::scavenger::{Phase, ScavengeRun},
    call::{self, QueryError},
    state::ServerState,
};

/// Counts and sizes of a store.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatsResponse {
    /// Number of events ever appended, including erased ones.
    events: u64,
    /// The position of the last one.
    head: u64,
    /// Further values of this kind of store.
    details: BTreeMap<String, String>,
}

/// Returns counts and sizes of the store.
#[utoipa::path(
    get, path = "/stats", tag = "upkeep",
    responses(
        (status = OK, body = StatsResponse),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stats(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Json<StatsResponse>, Problem> {
    let store = shared.store();
    let asking = store.stats();
    let stats = call::with_timeout(&shared, shared.settings.request_timeout, asking).await??;
    let details = stats.details.into_iter();
    Ok(Json(StatsResponse {
        events: stats.events,
        head: stats.head.get(),
        details: details
            .map(|(name, value)| (name.into_owned(), value))
            .collect(),
    }))
}

/// A scavenge.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScavengeResponse {
    id: String,
    state: ScavengeState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Number of streams with events to erase.
    streams: u64,
    /// Finished parts of the storage.
    parts_done: u64,
    /// Parts of the storage.
    parts: u64,
    /// Erased events.
    events: u64,
    /// Reclaimed bytes.
    bytes: u64,
}

/// The state of a scavenge.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScavengeState)]
enum ScavengeState {
    Running,
    Finished,
    Stopped,
    Failed,
}

impl From<ScavengeRun> for ScavengeResponse {
    fn from(run: ScavengeRun) -> Self {
        let (state, error) = match run.phase {
            Phase::Running => (ScavengeState::Running, None),
            Phase::Finished => (ScavengeState::Finished, None),
            Phase::Stopped => (ScavengeState::Stopped, None),
            Phase::Failed(error) => (ScavengeState::Failed, Some(error)),
        };
        Self {
            id: run.id.to_string(),
            state,
            error,
            streams: run.progress.streams,
            parts_done: run.progress.parts_done,
            parts: run.progress.parts,
            events: run.progress.events,
            bytes: run.progress.bytes,
        }
    }
}

/// Parameters of a scavenge.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ScavengeParams {
    /// Maximum bytes to read and write per second, capped to the setting `scavenge_bytes_per_second`; 0, or without
    /// it: the setting.
    bytes_per_second: Option<u64>,
}

/// Starts a scavenge, which reclaims the space of events that no stream read can return.
#[utoipa::path(
    post, path = "/scavenge", tag = "upkeep", params(ScavengeParams),
    responses(
        (status = ACCEPTED, body = ScavengeResponse),
        (status = CONFLICT, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn start(
    State(shared): State<Arc<ServerState>>,
    QueryParams(params): QueryParams<ScavengeParams>,
) -> Result<(StatusCode, Json<ScavengeResponse>), Problem> {
    if shared.stopping.is_cancelled() {
        return Err(QueryError::ShuttingDown.into());
    }
    match shared.scavenges.start(params.bytes_per_second) {
        Ok(run) => Ok((StatusCode::ACCEPTED, Json(run.into()))),
        Err(run) => Err(Problem::new(
            ProblemKind::RUNNING,
            format!("scavenge {} is running", run.id),
        )
        .with_value(run.id.to_string())),
    }
}

/// Returns the progress of the newest scavenge.
#[utoipa::path(
    get, path = "/scavenge", tag = "upkeep",
    responses(
        (status = OK, body = ScavengeResponse),
        (status = NOT_FOUND, body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn progress(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Json<ScavengeResponse>, Problem> {
    latest(&shared).map(|run| Json(run.into()))
}

/// Stops the running scavenge after its current step. The next one continues where it ended.
#[utoipa::path(
    delete, path = "/scavenge", tag = "upkeep",
    responses(
        (status = ACCEPTED, body = ScavengeResponse),
        (status = NOT_FOUND, body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stop(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<(StatusCode, Json<ScavengeResponse>), Problem> {
    let run = latest(&shared)?;
    if !shared.scavenges.stop(run.id) {
        return Err(Problem::new(
            ProblemKind::NOT_FOUND,
            "no scavenge is running",
        ));
    }
    Ok((StatusCode::ACCEPTED, Json(run.into())))
}

fn latest(shared: &ServerState) -> Result<ScavengeRun, Problem> {
    let run = shared.scavenges.latest();
    run.ok_or_else(|| {
        Problem::new(
            ProblemKind::NOT_FOUND,
            "no scavenge was started since the server began",
        )
    })
}
