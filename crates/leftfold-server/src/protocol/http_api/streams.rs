//! Streams: listing them, their state, their metadata and their deletion.
//!
//! **Owns:** the bodies of these routes. **Does not know:** what deletion and metadata do; the store does.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use leftfold_model::StreamName;
use leftfold_store::{Delete, ListStreams, StreamInfo, StreamMetadata, StreamState, StreamStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};
use utoipa::{IntoParams, ToSchema};

use super::{
    append::{AppendParams, AppendResponse, EventIdGenerator, execute_append, execute_write},
    extract::{
        self, Expected, ExpectedRevisionParam, NoParams, QueryParams, RequestBody, StreamPath,
    },
    problem::{Details, Problem, ProblemKind},
    read,
};
use crate::{call, json::time_text, state::ServerState};

/// Parameters of a listing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListStreamsParams {
    /// Only streams whose names begin with this text.
    #[serde(default)]
    prefix: String,
    /// Only streams whose names come after this one, by bytes: the last one of the page before.
    after: Option<String>,
    /// Maximum number of streams, capped to the setting `page_events_max`.
    limit: Option<u64>,
}

/// A page of streams, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamsPage {
    streams: Vec<Listed>,
    /// `after` of the next page; absent on the last one.
    next: Option<String>,
}

/// A stream in a list.
#[derive(Debug, Serialize, ToSchema)]
struct Listed {
    stream: String,
    /// The number of events ever appended to it.
    events: u64,
    /// The revision of its last event.
    revision: u64,
    /// The position of its last event.
    position: u64,
    /// The time of its last event.
    time: String,
}

impl From<StreamInfo> for Listed {
    fn from(info: StreamInfo) -> Self {
        Self {
            stream: info.stream.to_string(),
            events: info.events,
            revision: info.revision.get(),
            position: info.position.get(),
            time: time_text(info.time),
        }
    }
}

/// Lists streams.
#[utoipa::path(
    get, path = "/streams", tag = "streams", params(ListStreamsParams),
    responses(
        (status = OK, body = StreamsPage),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(shared): State<Arc<ServerState>>,
    QueryParams(params): QueryParams<ListStreamsParams>,
) -> Result<Json<StreamsPage>, Problem> {
    let limit = read::limit_of(params.limit, &shared)?;
    let after = params
        .after
        .map(|after| extract::stream("after", after))
        .transpose()?;
    let list = ListStreams {
        prefix: params.prefix,
        after,
        limit: Some(limit + 1),
    };
    let listing = shared.store().streams(list).try_collect::<Vec<_>>();
    let pages = call::with_timeout(&shared, shared.settings.request_timeout, listing).await??;
    let mut streams: Vec<Listed> = pages.into_iter().flatten().map(Listed::from).collect();
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = streams.len() > shown;
    streams.truncate(shown);
    let next = streams
        .last()
        .filter(|_| more)
        .map(|last| last.stream.clone());
    Ok(Json(StreamsPage { streams, next }))
}

/// A stream.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamResponse {
    stream: String,
    status: Status,
    /// The revision of the first event that a read returns.
    first: u64,
    /// The revision of its last event.
    last: Option<u64>,
    /// Its metadata, such as `$maxCount`.
    #[schema(value_type = utoipa::openapi::Object)]
    metadata: Box<RawValue>,
    /// The revision of its metadata.
    metadata_revision: Option<u64>,
}

/// The status of a stream.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// It has metadata, but no event.
    Absent,
    Present,
    /// It is deleted; the next append recreates it.
    Deleted,
    /// It is deleted permanently.
    Tombstoned,
}

impl From<StreamStatus> for Status {
    fn from(status: StreamStatus) -> Self {
        match status {
            StreamStatus::Absent => Self::Absent,
            StreamStatus::Present => Self::Present,
            StreamStatus::Deleted => Self::Deleted,
            StreamStatus::Tombstoned => Self::Tombstoned,
        }
    }
}

/// Tells what a stream is.
#[utoipa::path(
    get, path = "/streams/{stream}", tag = "streams", params(("stream" = String, Path)),
    responses(
        (status = OK, body = StreamResponse),
        (status = NOT_FOUND, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn state(
    State(shared): State<Arc<ServerState>>,
    StreamPath(stream): StreamPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Json<StreamResponse>, Problem> {
    let state = known(&shared, &stream).await?;
    Ok(Json(StreamResponse {
        stream: stream.to_string(),
        status: state.status.into(),
        first: state.first.get(),
        last: state.last.map(leftfold_model::Revision::get),
        metadata: raw_metadata(&state.metadata),
        metadata_revision: state.metadata_revision.map(leftfold_model::Revision::get),
    }))
}

/// Metadata with the text of its values.
fn raw_metadata(metadata: &StreamMetadata) -> Box<RawValue> {
    serde_json::from_slice(&metadata.to_json()).unwrap_or_default()
}

/// Returns the state of a stream that has events or metadata.
async fn known(shared: &ServerState, stream: &StreamName) -> Result<StreamState, Problem> {
    let store = shared.store();
    let asking = store.stream_state(stream.clone());
    let state = call::with_timeout(shared, shared.settings.request_timeout, asking).await??;
    if state.status == StreamStatus::Absent && state.metadata_revision.is_none() {
        return Err(Problem::new(
            ProblemKind::NOT_FOUND,
            format!("stream {stream} has neither events nor metadata"),
        )
        .of("stream")
        .with_value(stream.as_str()));
    }
    Ok(state)
}

/// Parameters of a deletion.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteParams {
    /// What the stream is expected to be: any, none, exists, or the number of a revision.
    #[serde(default)]
    #[param(value_type = Option<ExpectedRevisionParam>)]
    expected: Expected,
    /// Whether its name can never be used again.
    #[serde(default)]
    permanent: bool,
}

/// Deletes a stream: its current events, or permanently.
#[utoipa::path(
    delete, path = "/streams/{stream}", tag = "streams", params(("stream" = String, Path), DeleteParams),
    responses(
        (status = OK, body = AppendResponse),
        (status = CONFLICT, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete(
    State(shared): State<Arc<ServerState>>,
    StreamPath(stream): StreamPath,
    QueryParams(params): QueryParams<DeleteParams>,
) -> Result<Json<AppendResponse>, Problem> {
    let delete = if params.permanent {
        Delete::tombstone(stream, params.expected.0)
    } else {
        Delete::stream(stream, params.expected.0)
    };
    let deleted = execute_write(&shared, |store| async move { store.delete(delete).await }).await;
    deleted.map_err(|problem| problem.with_hint("ask for the stream, it tells its status"))
}

/// Returns a stream's metadata: a JSON object.
#[utoipa::path(
    get, path = "/streams/{stream}/metadata", tag = "streams", params(("stream" = String, Path)),
    responses(
        (
            status = OK, body = utoipa::openapi::Object,
            headers(("leftfold-revision" = u64, description = "for `expected` when it is set")),
        ),
        (status = NOT_FOUND, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metadata(
    State(shared): State<Arc<ServerState>>,
    StreamPath(stream): StreamPath,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<Response, Problem> {
    let state = known(&shared, &stream).await?;
    // Byte for byte as its users wrote it: numbers and the order of keys are theirs.
    let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (json, state.metadata.to_json()).into_response();
    if let Some(revision) = state.metadata_revision {
        let value = HeaderValue::from(revision.get());
        response.headers_mut().insert("leftfold-revision", value);
    }
    Ok(response)
}

/// Sets a stream's metadata. `expected` refers to the metadata, whose own revisions begin with 0.
#[utoipa::path(
    put, path = "/streams/{stream}/metadata", tag = "streams",
    params(
        ("stream" = String, Path), AppendParams,
        ("idempotency-key" = Option<String>, Header, description = "makes the id of the event that sets it"),
    ),
    request_body = utoipa::openapi::Object,
    responses(
        (status = OK, body = AppendResponse),
        (status = CONFLICT, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn set_metadata(
    State(shared): State<Arc<ServerState>>,
    StreamPath(stream): StreamPath,
    QueryParams(AppendParams { expected }): QueryParams<AppendParams>,
    sent: RequestBody,
) -> Result<Json<AppendResponse>, Problem> {
    let refused = |error| Problem::of_model("metadata", &error);
    StreamMetadata::check_size(&stream, sent.bytes()).map_err(refused)?;
    let _object: Map<String, Value> = sent.read()?;
    let metadata = StreamMetadata::from_json(sent.bytes());
    let ids = EventIdGenerator::of(&sent.headers)?;
    let append = metadata.append_for(&stream, expected.0);
    let append = append.and_then(|append| ids.assign(append));
    execute_append(&shared, append.map_err(refused)?).await
}
