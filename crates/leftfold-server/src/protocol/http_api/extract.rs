//! Extractors for the query string, headers and body of a request; they refuse unknown parameters.
//!
//! **Owns:** [`QueryParams`], [`RequestBody`], and the parameters that many routes share.
//! **Does not know:** what a route does with them.
//! **Invariants:** an unknown parameter is refused, like an invalid value; the response names it.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{self, Bytes},
    extract::{FromRequest, FromRequestParts, Request},
    http::{
        HeaderMap,
        header::{CONTENT_TYPE, HeaderName},
        request::Parts,
    },
};
use http_body::Body as _;
use http_body_util::LengthLimitError;
use leftfold_model::{
    Category, EventType, ExpectedRevision, ModelError, Query, QueryItem, Revision, Scope,
    StreamName, Tag,
    limits::{QUERY_ITEM_TAGS_MAX, QUERY_ITEM_TYPES_MAX, QUERY_ITEMS_MAX},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::problem::{Problem, ProblemKind};
use crate::{connection::RequestBodyError, json::Bounded, state::ServerState};

/// Extractor for the query string; rejects unknown and malformed parameters.
#[derive(Debug)]
pub(super) struct QueryParams<T>(pub(super) T);

/// The parameters of routes that have none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParams {}

impl<T: DeserializeOwned> FromRequestParts<Arc<ServerState>> for QueryParams<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<ServerState>) -> Result<Self, Problem> {
        let text = parts.uri.query().unwrap_or_default();
        check_parameters(text)?;
        let parameters = serde_html_form::Deserializer::from_bytes(text.as_bytes());
        serde_path_to_error::deserialize(parameters)
            .map(Self)
            .map_err(|error| {
                let name = path(error.path());
                let problem = Problem::invalid(name.as_str(), error.inner().to_string());
                match given(text.as_bytes(), &name) {
                    Some(value) => problem.with_value(value),
                    None => problem,
                }
            })
    }
}

/// Rejects what would be misread: percent-encoding that is no text, and a parameter without a value.
fn check_parameters(text: &str) -> Result<(), Problem> {
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if [name, value].map(is_text).contains(&false) {
            let problem = Problem::invalid(name, "not UTF-8");
            return Err(problem.with_value_and_limit(value, "UTF-8, percent-encoded"));
        }
        if value.is_empty() {
            let problem = Problem::invalid(name, "given without a value");
            return Err(problem.with_value_and_limit(value, "a value, or no such parameter"));
        }
    }
    Ok(())
}

/// Returns whether percent-encoded bytes are text.
fn is_text(encoded: &str) -> bool {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let code = after.get(..2).map(|code| u8::from_str_radix(code, 16));
        // A percent sign that begins no code stands for itself.
        let Some((Ok(byte), after)) = code.zip(after.get(2..)) else {
            bytes.push(b'%');
            rest = after;
            continue;
        };
        bytes.push(byte);
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    std::str::from_utf8(&bytes).is_ok()
}

/// Returns the value of a parameter.
fn given(text: &[u8], name: &str) -> Option<String> {
    let pairs: Vec<(String, String)> = serde_html_form::from_bytes(text).ok()?;
    let pair = pairs.into_iter().find(|(given, _)| given == name);
    pair.map(|(_, value)| value)
}

/// A body of JSON, and its headers.
///
/// Its headers are checked before the body is read, so that a client that waits for `100 Continue` sends nothing in vain.
#[derive(Debug)]
pub(super) struct RequestBody {
    pub(super) headers: HeaderMap,
    bytes: Bytes,
}

impl FromRequest<Arc<ServerState>> for RequestBody {
    type Rejection = Problem;

    async fn from_request(request: Request, shared: &Arc<ServerState>) -> Result<Self, Problem> {
        match media_type(request.headers())?.as_str() {
            JSON => {}
            other => return Err(unknown_type(other, JSON)),
        }
        if let Some(name) = cloud_events_header(request.headers()) {
            let problem = Problem::invalid(
                name,
                "an event of CloudEvents in binary mode is not taken here",
            );
            return Err(problem.with_value_and_limit(name, "no header of CloudEvents"));
        }
        Self::read_after_headers(request, shared).await
    }
}

impl RequestBody {
    /// Reads the body, unless its headers say that it is too long.
    pub(super) async fn read_after_headers(
        request: Request,
        shared: &Arc<ServerState>,
    ) -> Result<Self, Problem> {
        let limit = shared.settings.message_bytes_max;
        let (parts, body) = request.into_parts();
        if body.size_hint().lower() > limit.0 {
            return Err(too_large(body.size_hint().lower().to_string(), limit.0));
        }
        let bytes = body::to_bytes(body, limit.len())
            .await
            .map_err(|error| of_body(&error, limit.0))?;
        Ok(Self {
            headers: parts.headers,
            bytes,
        })
    }
}

/// The prefix of the headers that describe a `CloudEvent`.
pub(super) const CLOUD_EVENTS_PREFIX: &str = "ce-";

/// Returns the name of a header by which the body is the data of an event.
pub(super) fn cloud_events_header(headers: &HeaderMap) -> Option<&str> {
    let mut names = headers.keys().map(HeaderName::as_str);
    names.find(|name| name.starts_with(CLOUD_EVENTS_PREFIX))
}

/// Returns the media type, in lower case and without parameters; JSON by default.
pub(super) fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Ok(JSON.to_owned());
    };
    let text = value
        .to_str()
        .map_err(|_| unknown_type(&format!("{value:?}"), JSON))?;
    let essence = text.split(';').next().unwrap_or_default();
    Ok(essence.trim().to_ascii_lowercase())
}

impl RequestBody {
    /// Parses the body as JSON.
    pub(super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let mut json = serde_json::Deserializer::from_slice(&self.bytes);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| Problem::invalid(path(error.path()), error.inner().to_string()))?;
        json.end()
            .map_err(|error| Problem::invalid("body", error.to_string()))?;
        Ok(value)
    }

    /// Parses the body as a list, or as the only element of one.
    pub(super) fn one_or_more<'a, T: Deserialize<'a>, const MAX: usize>(
        &'a self,
    ) -> Result<Bounded<T, MAX>, Problem> {
        let first = self.bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            Some(b'[') => self.read(),
            _ => Ok(vec![self.read()?].into()),
        }
    }

    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Parses the part of a body at this path.
pub(super) fn part<'a, T: Deserialize<'a>>(json: &'a RawValue, at: &str) -> Result<T, Problem> {
    let mut part = serde_json::Deserializer::from_str(json.get());
    serde_path_to_error::deserialize(&mut part).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." | "?" | "" => at.to_owned(),
            path if path.starts_with('[') => format!("{at}{path}"),
            path => format!("{at}.{path}"),
        };
        // Lines and columns are those of the part, and would mislead.
        let error = error.into_inner();
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        Problem::invalid(path, text.strip_suffix(&place).unwrap_or(&text))
    })
}

/// The media type of plain JSON.
pub(super) const JSON: &str = "application/json";

/// Creates the problem of a media type that is none of `known`.
pub(super) fn unknown_type(given: &str, known: &str) -> Problem {
    Problem::new(
        ProblemKind::MEDIA,
        format!("content-type: {given} is not understood here, {known} is"),
    )
    .of("content-type")
    .with_value_and_limit(given, known)
}

/// Returns the path in the body, or the name of the parameter.
fn path(path: &serde_path_to_error::Path) -> String {
    match path.to_string().as_str() {
        "." | "?" | "" => "request".to_owned(),
        path => path.to_owned(),
    }
}

fn of_body(error: &axum::Error, limit: u64) -> Problem {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return too_large(format!("more than {limit}"), limit);
        }
        match error.downcast_ref() {
            Some(late @ RequestBodyError::Timeout(within)) => return too_slow(late, *within),
            Some(late @ RequestBodyError::Stalled { .. }) => {
                return Problem::new(ProblemKind::SLOW, late.to_string()).of("body");
            }
            Some(full @ RequestBodyError::Overloaded(_)) => {
                return Problem::new(ProblemKind::UNAVAILABLE, full.to_string()).of("body");
            }
            _ => {}
        }
        cause = error.source();
    }
    Problem::invalid("body", error.to_string())
}

fn too_large(value: String, limit: u64) -> Problem {
    let detail = format!("body: more than {limit} bytes (message_bytes_max)");
    let allowed = serde_json::json!({"name": "message_bytes_max", "unit": "bytes", "max": limit});
    Problem::new(ProblemKind::TOO_LARGE, detail)
        .of("body")
        .with_value_and_limit(value, allowed)
}

fn too_slow(late: &RequestBodyError, within: Duration) -> Problem {
    let limit = serde_json::json!({
        "name": "request_timeout", "unit": "seconds", "max": within.as_secs_f64(),
    });
    Problem::new(ProblemKind::SLOW, late.to_string())
        .of("body")
        .with_value_and_limit(format!("more than {within:?}"), limit)
}

/// Extractor for the name of a stream in the path.
#[derive(Debug)]
pub(super) struct StreamPath(pub(super) StreamName);

impl FromRequestParts<Arc<ServerState>> for StreamPath {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ServerState>,
    ) -> Result<Self, Problem> {
        let named = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(name) =
            named.map_err(|error| Problem::invalid("stream", error.body_text()))?;
        stream("stream", name).map(Self)
    }
}

/// Parses the name of a stream.
pub(super) fn stream(field: &str, name: String) -> Result<StreamName, Problem> {
    StreamName::new(name).map_err(|error| Problem::of_model(field, &error))
}

/// An expected revision: a number, `any`, `none` or `exists`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expected(pub(super) ExpectedRevision);

/// What a stream is expected to be: the number of a revision, or a word.
#[derive(Deserialize, ToSchema)]
#[schema(as = Expected, examples("any", "none", "exists", 41))]
#[serde(
    untagged,
    expecting = "expected any, none, exists, or the number of a revision"
)]
pub(super) enum ExpectedRevisionParam {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let exact = |number| ExpectedRevision::Exact(Revision::new(number));
        Ok(Self(
            match ExpectedRevisionParam::deserialize(deserializer)? {
                ExpectedRevisionParam::Number(number) => exact(number),
                ExpectedRevisionParam::Text(text) => match text.as_str() {
                    "any" => ExpectedRevision::Any,
                    "none" => ExpectedRevision::NoStream,
                    "exists" => ExpectedRevision::StreamExists,
                    text => exact(text.parse().map_err(|_| {
                        serde::de::Error::custom(format!(
                            "{text:?} is not any, none, exists, or the number of a revision"
                        ))
                    })?),
                },
            },
        ))
    }
}

/// A query item: events of one of these types with all of these tags.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QueryItemBody {
    /// One of these; none: any.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 256)]
    types: Bounded<String, QUERY_ITEM_TYPES_MAX>,
    /// All of these.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 64)]
    tags: Bounded<String, QUERY_ITEM_TAGS_MAX>,
}

/// The alternatives of a query.
pub(super) type Items = Bounded<QueryItemBody, QUERY_ITEMS_MAX>;

/// Decodes a query: events that match one of the items; without items, all.
pub(super) fn query(items: Option<Items>, field: &str) -> Result<Query, Problem> {
    let Some(items) = items else {
        return Ok(Query::All);
    };
    let refused = |error: ModelError| Problem::of_model(field, &error);
    let items = items.all("query", "items", "QUERY_ITEMS_MAX");
    let items = items.map_err(refused)?.into_iter().enumerate();
    let items = items.map(|(index, given)| {
        let at = format!("{field}[{index}]");
        let types = format!("{at}.types");
        let tags = format!("{at}.tags");
        item(given, [&types, &tags, &at])
    });
    Query::items(items.collect::<Result<Vec<_>, _>>()?).map_err(refused)
}

/// Decodes a query item; an error names the types, the tags, or the item if both are empty.
fn item(
    item: QueryItemBody,
    [types_field, tags_field, field]: [&str; 3],
) -> Result<QueryItem, Problem> {
    const THING: &str = "query item";
    let of = |field: &str| {
        let field = field.to_owned();
        move |error: ModelError| Problem::of_model(field, &error)
    };
    let types = item.types.all(THING, "types", "QUERY_ITEM_TYPES_MAX");
    let types = types.map_err(of(types_field))?.into_iter();
    let types: Vec<_> = types
        .map(EventType::new)
        .collect::<Result<_, _>>()
        .map_err(of(types_field))?;
    let tags = item.tags.all(THING, "tags", "QUERY_ITEM_TAGS_MAX");
    let tags = tags.map_err(of(tags_field))?.into_iter();
    let tags: Vec<_> = tags
        .map(Tag::new)
        .collect::<Result<_, _>>()
        .map_err(of(tags_field))?;
    QueryItem::new(types, tags).map_err(of(field))
}

/// Decodes a filter: events of one of these types with all of these tags; without any, all.
pub(super) fn filter(types: Vec<String>, tags: Vec<String>) -> Result<Query, Problem> {
    if types.is_empty() && tags.is_empty() {
        return Ok(Query::All);
    }
    let given = QueryItemBody {
        types: types.into(),
        tags: tags.into(),
    };
    let item = item(given, ["type", "tag", "type"])?;
    Query::items([item]).map_err(|error| Problem::of_model("type", &error))
}

/// Decodes a scope: one stream, one category, or all.
pub(super) fn scope(name: Option<String>, category: Option<String>) -> Result<Scope, Problem> {
    match (name, category) {
        (None, None) => Ok(Scope::All),
        (Some(name), None) => Ok(Scope::Stream(stream("stream", name)?)),
        (None, Some(category)) => Category::new(category)
            .map(Scope::Category)
            .map_err(|error| Problem::of_model("category", &error)),
        (Some(name), Some(category)) => {
            let problem = Problem::invalid("category", "not together with a stream");
            Err(problem.with_value_and_limit(category, format!("none, or no stream {name:?}")))
        }
    }
}
