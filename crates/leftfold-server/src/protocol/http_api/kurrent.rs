//! The plain HTTP routes that KurrentDB's clients and their tools call.
//!
//! **Owns:** `/ping` and `/gossip`. **Does not know:** gRPC; a service of the same name responds there.
//! **Invariants:** responses have the members and values that these clients look for; the routes are no part of this server's
//! own API, so the description does not list them.

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, Uri, header::HOST, uri::Authority},
    routing::get,
};
use leftfold_model::Timestamp;
use serde::Serialize;

use crate::{clock, json, state::ServerState};

/// Returns the routes.
pub(super) fn router() -> Router<Arc<ServerState>> {
    Router::new()
        .route("/ping", get(ping))
        .route("/gossip", get(gossip))
}

/// The value of unknown checkpoints: clients that look for a server do not need them, so no call of the store is made.
const UNKNOWN: i64 = -1;

/// The response to a ping.
#[derive(Debug, Serialize)]
struct PingResponse {
    text: &'static str,
}

async fn ping() -> Json<PingResponse> {
    Json(PingResponse {
        text: "Ping request successfully handled",
    })
}

/// The cluster: this server alone.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GossipResponse {
    members: [Member; 1],
    server_ip: String,
    server_port: u16,
}

/// A member of the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    instance_id: String,
    time_stamp: String,
    state: &'static str,
    is_alive: bool,
    http_end_point_ip: String,
    http_end_point_port: u16,
    last_commit_position: i64,
    writer_checkpoint: i64,
    chaser_checkpoint: i64,
    epoch_position: i64,
    epoch_number: i64,
    is_read_only_replica: bool,
}

async fn gossip(
    State(shared): State<Arc<ServerState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Json<GossipResponse> {
    let (host, port) = end_point(&shared, &uri, &headers);
    Json(GossipResponse {
        server_ip: host.clone(),
        server_port: port,
        members: [Member {
            instance_id: shared.instance.to_string(),
            time_stamp: json::time_text(now()),
            state: "Leader",
            is_alive: true,
            http_end_point_ip: host,
            http_end_point_port: port,
            last_commit_position: UNKNOWN,
            writer_checkpoint: UNKNOWN,
            chaser_checkpoint: UNKNOWN,
            epoch_position: 0,
            epoch_number: 0,
            is_read_only_replica: false,
        }],
    })
}

/// Returns the time in the response.
fn now() -> Timestamp {
    let since = clock::now().duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    Timestamp::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Returns where clients connect: the advertised host, or the address they used.
fn end_point(shared: &ServerState, uri: &Uri, headers: &HeaderMap) -> (String, u16) {
    let own = shared.address.port();
    let advertised = shared.settings.advertised_host.as_str();
    if !advertised.is_empty() {
        return (advertised.to_owned(), own);
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    match uri.authority().cloned().or(host) {
        Some(authority) => (
            authority.host().to_owned(),
            authority.port_u16().unwrap_or(own),
        ),
        None => (shared.address.ip().to_string(), own),
    }
}
