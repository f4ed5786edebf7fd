//! Reading events page by page.
//!
//! **Owns:** pages and the parameters of a read. **Does not know:** how the store finds events.
//! **Invariants:** a page is bounded in events and in bytes, and names the start of the next one; its conflict token covers
//! the whole page, so that a decision made from it can be appended under a condition.

#![expect(
    unused_qualifications,
    reason = "the macros of the API's description write paths in full"
)]

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::TryStreamExt;
use leftfold_model::{
    ConflictToken, Direction, Position, Read, ReadFrom, RecordedEvent, Revision, Scope,
};
use leftfold_store::ReadError;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    cloud_events::{self, CloudEvent},
    extract::{self, Items, NoParams, QueryItemBody, QueryParams, RequestBody, StreamPath},
    problem::{Details, Problem},
};
use crate::{call, json::EventOutput, state::ServerState, unsupported_stream};

/// Bytes of data, metadata and names on a page, unless its only event has more. A page is held in memory as a whole, as JSON
/// beside the events themselves, so more would let a few hundred readers take gigabytes.
pub(super) const PAGE_BYTES_MAX: usize = 1024 * 1024;
/// Where a page says again what is not among its events, for forms that have no other place for it.
const NEXT: &str = "leftfold-next";
const LAST_PAGE: &str = "leftfold-last-page";
const TOKEN: &str = "leftfold-token";

/// A page of events.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<'a> {
    events: Vec<EventOutput<'a>>,
    /// `from` of the next page. A forward page always has it, so that a later request continues there.
    next: Option<u64>,
    /// Whether nothing followed this page.
    is_last: bool,
    /// The conflict token, for `after` of a condition. Only on the last page of a forward read.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<u64>,
}

/// The order of events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    #[default]
    Forwards,
    Backwards,
}

/// Parameters of a read of the log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadAllParams {
    /// The position of the first event to return; without it the beginning, or the end if backwards.
    from: Option<u64>,
    #[serde(default)]
    #[param(inline)]
    direction: Order,
    /// Maximum number of events, capped to the setting `page_events_max`.
    limit: Option<u64>,
    /// Only events of this type; several: of one of them.
    #[serde(default, rename = "type")]
    types: Vec<String>,
    /// Only events with this tag; several: with all of them.
    #[serde(default, rename = "tag")]
    tags: Vec<String>,
    /// Only events of streams of this category: the part of a name before the first `-`.
    category: Option<String>,
}

/// Reads events of all streams.
#[utoipa::path(
    get, path = "/events", tag = "events", params(ReadAllParams),
    responses(
        (status = OK, content(
            (Page<'_> = "application/json"), (Vec<CloudEvent<'_>> = "application/cloudevents-batch+json"),
        ), headers(
            ("leftfold-next" = u64, description = "`next` of the page"),
            ("leftfold-last-page" = bool, description = "`is_last` of the page"),
            ("leftfold-token" = u64, description = "`token` of the page"),
        )),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events(
    State(shared): State<Arc<ServerState>>,
    headers: HeaderMap,
    QueryParams(params): QueryParams<ReadAllParams>,
) -> Result<Response, Problem> {
    let read = Read {
        scope: extract::scope(None, params.category)?,
        query: extract::filter(params.types, params.tags)?,
        ..Read::default()
    };
    page(
        &shared,
        &headers,
        read,
        (params.from, params.direction, params.limit),
    )
    .await
}

/// Parameters of a read of a stream.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadStreamParams {
    /// The revision of the first event to return; without it the beginning, or the end if backwards.
    from: Option<u64>,
    #[serde(default)]
    #[param(inline)]
    direction: Order,
    /// Maximum number of events, capped to the setting `page_events_max`.
    limit: Option<u64>,
    /// Only events of this type; several: of one of them.
    #[serde(default, rename = "type")]
    types: Vec<String>,
    /// Only events with this tag; several: with all of them.
    #[serde(default, rename = "tag")]
    tags: Vec<String>,
}

/// Reads events of one stream. A stream that does not exist has none.
#[utoipa::path(
    get, path = "/streams/{stream}/events", tag = "events", params(("stream" = String, Path), ReadStreamParams),
    responses(
        (status = OK, content(
            (Page<'_> = "application/json"), (Vec<CloudEvent<'_>> = "application/cloudevents-batch+json"),
        ), headers(
            ("leftfold-next" = u64, description = "`next` of the page"),
            ("leftfold-last-page" = bool, description = "`is_last` of the page"),
            ("leftfold-token" = u64, description = "`token` of the page"),
        )),
        (status = GONE, body = Details, content_type = "application/problem+json"),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn events_of(
    State(shared): State<Arc<ServerState>>,
    StreamPath(stream): StreamPath,
    headers: HeaderMap,
    QueryParams(params): QueryParams<ReadStreamParams>,
) -> Result<Response, Problem> {
    let read = Read::stream(stream).matching(extract::filter(params.types, params.tags)?);
    page(
        &shared,
        &headers,
        read,
        (params.from, params.direction, params.limit),
    )
    .await
}

/// A query of several alternatives.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryRequest<'a> {
    /// Events that match one of these; without it, all. At most 65,536 types and tags in all of them.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<QueryItemBody>>, max_items = 4_096)]
    items: Option<Items<'a>>,
    /// Only events of this stream.
    stream: Option<String>,
    /// Only events of streams of this category.
    category: Option<String>,
    /// The position, or in a stream the revision, of the first event to return.
    from: Option<u64>,
    #[serde(default)]
    direction: Order,
    limit: Option<u64>,
}

/// Reads events that match a query, with the token for a condition on the same query.
#[utoipa::path(
    post, path = "/query", tag = "events", request_body = QueryRequest<'_>,
    responses(
        (status = OK, content(
            (Page<'_> = "application/json"), (Vec<CloudEvent<'_>> = "application/cloudevents-batch+json"),
        ), headers(
            ("leftfold-next" = u64, description = "`next` of the page"),
            ("leftfold-last-page" = bool, description = "`is_last` of the page"),
            ("leftfold-token" = u64, description = "`token` of the page"),
        )),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn query(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
    sent: RequestBody,
) -> Result<Response, Problem> {
    let headers = sent.headers.clone();
    let decode = |sent: &RequestBody| {
        let params: QueryRequest<'_> = sent.read()?;
        let read = Read {
            scope: extract::scope(params.stream, params.category)?,
            query: extract::query(params.items, "items")?,
            ..Read::default()
        };
        Ok((read, (params.from, params.direction, params.limit)))
    };
    let (read, which) = sent.decode(&shared, decode).await?;
    page(&shared, &headers, read, which).await
}

/// Reads one page and returns it in the format that the client accepts.
async fn page(
    shared: &ServerState,
    headers: &HeaderMap,
    mut read: Read,
    (from, order, limit): (Option<u64>, Order, Option<u64>),
) -> Result<Response, Problem> {
    let limit = limit_of(limit, shared)?;
    let of_stream = matches!(read.scope, Scope::Stream(_));
    read.direction = match order {
        Order::Forwards => Direction::Forwards,
        Order::Backwards => Direction::Backwards,
    };
    read.from = match (from, order) {
        (Some(place), _) if of_stream => ReadFrom::Revision(Revision::new(place)),
        (Some(place), _) => ReadFrom::Position(Position::new(place)),
        (None, _) => ReadFrom::End,
    };
    // One more than is shown tells whether that was all.
    read.limit = Some(limit + 1);
    let gathering = async {
        // A page may hold a large event twice: as it is stored, and as JSON.
        let permit = shared.answer_memory.page().await;
        let events = gather(shared, read, limit).await;
        events.map(|events| (events, permit))
    };
    let (gathered, _until_it_is_sent) =
        call::with_timeout(shared, shared.settings.request_timeout, gathering).await??;
    let place = |event: &RecordedEvent| {
        if of_stream {
            event.revision.get()
        } else {
            event.position.get()
        }
    };
    let last = gathered.events.last().map(place);
    let next = match order {
        Order::Forwards => Some(last.map_or_else(|| from.unwrap_or_default(), |last| last + 1)),
        Order::Backwards => last
            .filter(|_| !gathered.is_last)
            .and_then(|last| last.checked_sub(1)),
    };
    let token = gathered.token.filter(|_| order == Order::Forwards);
    let mut response = if wants_cloud_events(headers) {
        let events: Vec<_> = gathered.events.iter().map(CloudEvent::of).collect();
        let mut response = Json(events).into_response();
        let kind = HeaderValue::from_static(cloud_events::BATCH);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    } else {
        Json(Page {
            events: gathered
                .events
                .iter()
                .map(EventOutput::with_position)
                .collect(),
            next,
            is_last: gathered.is_last,
            token: token.map(|token| token.seen_through().get()),
        })
        .into_response()
    };
    let headers = response.headers_mut();
    let end = if gathered.is_last { "true" } else { "false" };
    headers.insert(LAST_PAGE, HeaderValue::from_static(end));
    if let Some(next) = next {
        headers.insert(NEXT, HeaderValue::from(next));
    }
    if let Some(token) = token {
        headers.insert(TOKEN, HeaderValue::from(token.seen_through().get()));
    }
    Ok(response)
}

/// The events of a page.
struct PageEvents {
    events: Vec<RecordedEvent>,
    is_last: bool,
    token: Option<ConflictToken>,
}

/// Reads events until the page is full, by number or by size; at least one, if there is one.
async fn gather(shared: &ServerState, read: Read, limit: u64) -> Result<PageEvents, ReadError> {
    let store = shared.store();
    unsupported_stream::refuse_scope(&*store, &read.scope).await?;
    let mut batches = store.read(read);
    let mut events = Vec::new();
    let (mut size, mut token) = (0, None);
    while let Some(batch) = batches.try_next().await? {
        token = Some(batch.token);
        for event in batch.events {
            size += size_of(&event);
            let full = !events.is_empty() && size > PAGE_BYTES_MAX;
            if full || events.len() as u64 == limit {
                return Ok(PageEvents {
                    events,
                    is_last: false,
                    token: None,
                });
            }
            events.push(event);
        }
    }
    Ok(PageEvents {
        events,
        is_last: true,
        token,
    })
}

fn size_of(event: &RecordedEvent) -> usize {
    let tags: usize = event.tags.iter().map(|tag| tag.as_str().len()).sum();
    let names = event.stream.as_str().len() + event.event_type.as_str().len() + tags;
    event.data.len() + event.metadata.len() + names
}

/// Returns whether the client accepts `CloudEvents` by name, and does not prefer plain JSON.
fn wants_cloud_events(headers: &HeaderMap) -> bool {
    let batch = quality(headers, cloud_events::BATCH).unwrap_or_default();
    // The most specific range counts.
    let json = [extract::JSON, "application/*", "*/*"];
    let json = json.iter().find_map(|range| quality(headers, range));
    batch > 0 && batch >= json.unwrap_or_default()
}

/// Returns the quality of a media range in `Accept`, in thousandths; `None` if it is absent.
fn quality(headers: &HeaderMap, range: &str) -> Option<u16> {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let ranges = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| split_outside_quotes(value, ','));
    ranges
        .filter_map(|accepted| {
            let mut parts = split_outside_quotes(accepted, ';').map(str::trim);
            let named = parts.next()?.eq_ignore_ascii_case(range);
            let weight = parts.find_map(|part| {
                let (name, value) = part.split_once('=')?;
                let value: f32 = value.trim().parse().ok()?;
                let thousandths = (value.clamp(0.0, 1.0) * 1000.0).round();
                name.trim().eq_ignore_ascii_case("q").then_some(thousandths)
            });
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is between 0 and 1000"
            )]
            named.then(|| weight.map_or(1000, |thousandths| thousandths as u16))
        })
        .max()
}

/// Splits the value of a header at a separator. What stands in quotes is text, in which a backslash stands before what is
/// meant as it is.
fn split_outside_quotes(value: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut in_quotes, mut is_escaped) = (false, false);
    value.split(move |c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = in_quotes,
            '"' => in_quotes = !in_quotes,
            c => return c == separator && !in_quotes,
        }
        false
    })
}

/// Returns the limit of a page, capped to the setting.
pub(super) fn limit_of(asked: Option<u64>, shared: &ServerState) -> Result<u64, Problem> {
    let max = u64::from(shared.settings.page_events_max);
    match asked {
        None => Ok(max),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => {
            let problem = Problem::invalid(
                "limit",
                format!("{limit} is not between 1 and {max} (page_events_max)"),
            );
            let allowed = serde_json::json!({"name": "page_events_max", "unit": "events", "min": 1, "max": max});
            Err(problem.with_value_and_limit(limit, allowed))
        }
    }
}
