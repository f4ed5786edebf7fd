//! The body of a request and the headers that describe it.
//!
//! **Owns:** [`RequestBody`], media types, and the problems of a body that is too large or too slow.
//! **Does not know:** what a body holds.
//! **Invariants:** headers are checked before the body is read, so that a client that waits for
//! `100 Continue` sends nothing in vain.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{self, Bytes},
    extract::{FromRequest, Request},
    http::{
        HeaderMap,
        header::{CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING},
    },
};
use http_body::Body as _;
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    super::problem::{Problem, ProblemKind},
    path,
};
use crate::{call, connection::RequestBodyError, json::Bounded, state::ServerState};

/// Bodies of this many bytes are decoded on blocking threads. To change threads takes as long as to parse a few KiB.
const LONG_BYTES_MIN: usize = 64 * 1024;

/// A body of JSON, and its headers.
///
/// Its headers are checked before the body is read, so that a client that waits for `100 Continue` sends nothing in vain.
#[derive(Debug)]
pub(in super::super) struct RequestBody {
    pub(in super::super) headers: HeaderMap,
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
    pub(in super::super) async fn read_after_headers(
        request: Request,
        shared: &Arc<ServerState>,
    ) -> Result<Self, Problem> {
        let limit = shared.settings.message_bytes_max;
        if let Some(coding) = content_coding(request.headers()) {
            return Err(unknown_coding("content-encoding", &coding, "identity"));
        }
        if let Some(coding) = transfer_coding(request.headers()) {
            return Err(unknown_coding("transfer-encoding", &coding, "chunked"));
        }
        if let Some(range) = request.headers().get(CONTENT_RANGE) {
            let problem = Problem::invalid(CONTENT_RANGE.as_str(), "a part of a body is not taken");
            return Err(problem.with_value(format!("{range:?}")));
        }
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
pub(in super::super) const CLOUD_EVENTS_PREFIX: &str = "ce-";

/// Returns the name of a header by which the body is the data of an event.
pub(in super::super) fn cloud_events_header(headers: &HeaderMap) -> Option<&str> {
    let mut names = headers.keys().map(HeaderName::as_str);
    names.find(|name| name.starts_with(CLOUD_EVENTS_PREFIX))
}

/// Returns the coding of the body, such as gzip, unless it is none.
fn content_coding(headers: &HeaderMap) -> Option<String> {
    let named = headers.get_all(CONTENT_ENCODING).iter();
    let named = named.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned());
    let mut named = named.filter(|coding| !coding.eq_ignore_ascii_case("identity"));
    named.find(|coding| !coding.is_empty())
}

/// Returns the codings in which the body is sent beside the one that the connection removes: chunked, once.
fn transfer_coding(headers: &HeaderMap) -> Option<String> {
    let named = headers.get_all(TRANSFER_ENCODING).iter();
    let named: Vec<_> = named
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let codings = named.iter().flat_map(|value| value.split(','));
    let codings = codings.map(str::trim).filter(|coding| !coding.is_empty());
    let mut is_chunked = false;
    codings
        .filter(|coding| !coding.eq_ignore_ascii_case("identity"))
        .find(|coding| {
            let is_first = coding.eq_ignore_ascii_case("chunked") && !is_chunked;
            is_chunked |= is_first;
            !is_first
        })
        .map(|coding| match coding.eq_ignore_ascii_case("chunked") {
            true => "chunked, chunked".to_owned(),
            false => coding.to_owned(),
        })
}

/// Creates the problem of a body that would have to be decoded: its bytes would be taken for the events.
fn unknown_coding(header: &'static str, given: &str, understood: &'static str) -> Problem {
    Problem::new(
        ProblemKind::MEDIA,
        format!("{header}: {given} is not understood here, {understood} is"),
    )
    .of(header)
    .with_value_and_limit(given, understood)
}

/// Returns the media type, in lower case and without parameters; JSON by default.
pub(in super::super) fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return Ok(JSON.to_owned());
    };
    if let Some(other) = values.find(|other| *other != value) {
        return Err(unknown_type(
            &format!("{value:?} and {other:?}"),
            "one type",
        ));
    }
    let text = value
        .to_str()
        .map_err(|_| unknown_type(&format!("{value:?}"), JSON))?;
    let essence = text.split(';').next().unwrap_or_default();
    Ok(essence.trim().to_ascii_lowercase())
}

impl RequestBody {
    /// Decodes the body: on this thread if it is short, and otherwise where no worker of the runtime waits for it, since a
    /// body of a MiB takes milliseconds.
    ///
    /// # Cancel safety
    /// Decoding that began goes on when the future is dropped, and holds the memory of its request until it ends.
    pub(in super::super) async fn decode<T: Send + 'static>(
        self,
        shared: &ServerState,
        decode: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        if self.bytes.len() < LONG_BYTES_MIN {
            return decode(&self);
        }
        let decoding = call::in_scope(move || decode(&self));
        let decoded = call::with_timeout(shared, shared.settings.request_timeout, async {
            // It is never closed.
            let turn = shared.decoding.turn().await.ok()?;
            turn.run(decoding).await.ok()
        });
        decoded.await?.unwrap_or_else(|| {
            let detail = "decoding of the body did not end; nothing was done";
            Err(Problem::new(ProblemKind::UNAVAILABLE, detail).of("body"))
        })
    }

    /// Parses the body as JSON.
    pub(in super::super) fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        let mut json = serde_json::Deserializer::from_slice(&self.bytes);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| Problem::invalid(path(error.path()), error.inner().to_string()))?;
        json.end()
            .map_err(|error| Problem::invalid("body", error.to_string()))?;
        Ok(value)
    }

    /// Parses the body as a list, or as the only element of one.
    pub(in super::super) fn one_or_more<'a, T: Deserialize<'a>, const MAX: usize>(
        &'a self,
    ) -> Result<Bounded<T, MAX>, Problem> {
        let first = self.bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        match first {
            Some(b'[') => self.read(),
            _ => Ok(vec![self.read()?].into()),
        }
    }

    pub(in super::super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Parses the part of a body at this path.
pub(in super::super) fn part<'a, T: Deserialize<'a>>(
    json: &'a RawValue,
    at: &str,
) -> Result<T, Problem> {
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
pub(in super::super) const JSON: &str = "application/json";

/// Creates the problem of a media type that is none of `known`.
pub(in super::super) fn unknown_type(given: &str, known: &str) -> Problem {
    Problem::new(
        ProblemKind::MEDIA,
        format!("content-type: {given} is not understood here, {known} is"),
    )
    .of("content-type")
    .with_value_and_limit(given, known)
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
            Some(RequestBodyError::Overloaded(full)) => return Problem::overloaded(*full, "body"),
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use futures_util::FutureExt;

    use axum::response::IntoResponse;

    use super::*;
    use crate::{access::Principal, call::RequestScope};

    fn body(bytes: usize) -> RequestBody {
        RequestBody {
            headers: HeaderMap::new(),
            bytes: vec![b' '; bytes].into(),
        }
    }

    #[tokio::test]
    async fn a_long_body_is_not_decoded_by_the_task_that_waits_for_it() {
        let server = ServerState::over_memory();
        let where_decoded = |_: &RequestBody| Ok(thread::current().id());
        let short = body(LONG_BYTES_MIN - 1).decode(&server, where_decoded);
        assert_eq!(short.await.unwrap(), thread::current().id());
        let long = body(LONG_BYTES_MIN).decode(&server, where_decoded);
        assert_ne!(long.await.unwrap(), thread::current().id());
    }

    #[tokio::test]
    async fn a_body_that_is_decoded_holds_its_memory_after_its_client_is_gone() {
        let server = ServerState::over_memory();
        let connection = server.call_memory_without_connection();
        let scope =
            RequestScope::arriving(&server, connection, Principal::Anonymous, &HeaderMap::new())
                .unwrap();
        scope.charge_head(1).unwrap();
        let (end, ended) = mpsc::channel::<()>();
        let decode = move |_: &RequestBody| Ok(ended.recv());
        let decoding = body(LONG_BYTES_MIN).decode(&server, decode);
        let mut decoding = Box::pin(decoding);
        let polled = scope.enter(|| decoding.as_mut().now_or_never());
        assert!(polled.is_none(), "it began");
        drop((decoding, scope));
        assert_ne!(server.request_memory.used(), 0);
        end.send(()).unwrap();
        while server.request_memory.used() > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_while_a_long_body_is_decoded_is_answered() {
        let server = ServerState::over_memory();
        let panics = |_: &RequestBody| -> Result<(), Problem> { panic!("planted") };
        let answered = body(LONG_BYTES_MIN).decode(&server, panics).await;
        let response = answered.unwrap_err().into_response();
        assert_eq!(response.status(), 503);
    }
}
