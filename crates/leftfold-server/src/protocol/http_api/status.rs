//! The status of the server, for orchestrators and monitoring.
//!
//! **Owns:** liveness, readiness, `/info` and `/metrics`. **Does not know:** what is counted; `metrics` does.
//! **Invariants:** liveness never calls the store; readiness calls it, with a timeout; a server that shuts down is not ready;
//! metrics respond whatever the state of the store.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use leftfold_model::Position;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    extract::{NoParams, QueryParams},
    problem::{Details, Problem, ProblemKind},
    read::PAGE_BYTES_MAX,
};
use crate::{
    background::{health, metrics::Gauges, scavenger::Phase},
    call,
    protocol::methods,
    state::ServerState,
};

/// The media type of metrics.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Timeout for the store's values in metrics.
const PATIENCE: Duration = Duration::from_secs(2);

/// Responds while the process runs.
#[utoipa::path(get, path = "/health/live", tag = "status", responses((status = OK)))]
pub(super) async fn live(QueryParams(NoParams {}): QueryParams<NoParams>) {}

/// Checks that the server accepts requests and its store accepts reads and appends.
#[utoipa::path(
    get, path = "/health/ready", tag = "status",
    responses(
        (status = OK),
        (status = SERVICE_UNAVAILABLE, body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ready(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<StatusCode, Problem> {
    health::check(&shared).await??;
    Ok(StatusCode::OK)
}

/// Version, protocols and limits of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InfoResponse {
    name: &'static str,
    version: &'static str,
    /// A new id for each start of the server.
    instance: String,
    /// The address it listens on.
    address: String,
    uptime_seconds: u64,
    /// Whether acknowledged events survive the process.
    durable: bool,
    /// Number of newest events among which a repetition with `any` or `exists` is recognised; `null`: all.
    recent_ids: Option<u64>,
    /// The protocols on this port.
    protocols: Vec<&'static str>,
    limits: Limits,
}

/// The limits of requests.
#[derive(Debug, Serialize, ToSchema)]
struct Limits {
    message_bytes_max: u64,
    headers_bytes_max: u64,
    page_events_max: u32,
    page_bytes_max: usize,
    request_timeout_seconds: u64,
}

/// The contracts of all services, and this one.
fn contracts() -> Vec<&'static str> {
    let mut contracts = Vec::new();
    for service in methods::SERVICES {
        if !contracts.contains(&service.contract) {
            contracts.push(service.contract);
        }
    }
    contracts.push("http/api/v1");
    contracts
}

/// Returns the version, the protocols and the limits of the server.
#[utoipa::path(get, path = "/info", tag = "status", responses((status = OK, body = InfoResponse)))]
pub(super) async fn info(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Json<InfoResponse> {
    let settings = &shared.settings;
    let capabilities = shared.store().capabilities();
    Json(InfoResponse {
        name: "leftfold",
        version: env!("CARGO_PKG_VERSION"),
        instance: shared.instance.to_string(),
        address: shared.address.to_string(),
        uptime_seconds: shared.started.elapsed().as_secs(),
        durable: capabilities.durable,
        recent_ids: Some(capabilities.recent_ids).filter(|ids| *ids < u64::MAX),
        protocols: contracts(),
        limits: Limits {
            message_bytes_max: settings.message_bytes_max.0,
            headers_bytes_max: settings.headers_bytes_max.0,
            page_events_max: settings.page_events_max,
            page_bytes_max: PAGE_BYTES_MAX,
            request_timeout_seconds: settings.request_timeout.as_secs(),
        },
    })
}

/// Returns the metrics as text, in the format of `OpenMetrics`.
#[utoipa::path(
    get, path = "/metrics", tag = "status",
    responses(
        (status = OK, body = String, content_type = "application/openmetrics-text"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Response, Problem> {
    let head = call::with_timeout(&shared, PATIENCE, shared.store().head()).await;
    let running = shared
        .scavenges
        .latest()
        .is_some_and(|run| run.phase == Phase::Running);
    let moment = Gauges {
        head: head.ok().and_then(Result::ok).map(Position::get),
        scavenge_running: running,
    };
    let text = shared.metrics.text(moment);
    let text = text.map_err(|error| Problem::new(ProblemKind::UNAVAILABLE, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}
