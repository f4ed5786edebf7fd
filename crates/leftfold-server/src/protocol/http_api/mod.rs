//! Plain HTTP: for people, scripts and monitoring (docs/http.md).
//!
//! **Owns:** its routes, their description, and the response for an unknown route. **Does not know:** rules about streams.
//! **Invariants:** the description lists every route, because it is generated from them; every error is a problem (RFC 9457).

mod admin;
mod append;
mod cloud_events;
mod consume;
mod error_pages;
mod events_body;
mod extract;
mod groups;
mod kurrent;
pub(crate) mod origin;
mod problem;
mod read;
mod status;
mod streams;
mod subscribe;
mod tickets;

use std::{fmt::Write, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::{
        HeaderValue, StatusCode,
        header::{
            CONTENT_SECURITY_POLICY, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa::{
    OpenApi,
    openapi::{self, RefOr},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

use self::problem::{Problem, ProblemKind};
pub(crate) use self::tickets::take_ticket;
use crate::{
    access::AuthenticationError,
    call::{OutcomeUnknown, QueryError},
    connection::BudgetExhausted,
    protocol::methods::MethodAccess,
    state::ServerState,
};

/// The path of the routes for events.
const BASE: &str = "/api/v1";
/// The path of their description.
const DESCRIPTION: &str = "/api/v1/openapi.json";
/// The path of the page that shows it.
const DOCS: &str = "/api/v1/docs";
/// The content security policy of that page: it loads nothing from elsewhere, and no other page may embed it.
const DOCS_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'";

/// How a request may say who it is from.
const CHALLENGES: [&str; 2] = [
    "Basic realm=\"leftfold\", charset=\"UTF-8\"",
    "Bearer realm=\"leftfold\"",
];

/// The head of the description.
#[derive(OpenApi)]
#[openapi(info(
    title = "Leftfold",
    description = "An event store. Places are numbers: a position in the log counts from 1, a revision in a stream from 0.",
    license(name = "Apache-2.0", identifier = "Apache-2.0"),
))]
struct Description;

/// Returns the routes of this protocol.
pub(crate) fn router(shared: &Arc<ServerState>) -> Router {
    let (router, description) = described();
    // It is the same for everyone, so it is written once.
    let document = description
        .to_json()
        .map(Bytes::from)
        .map_err(|error| Problem::new(ProblemKind::UNAVAILABLE, error.to_string()));
    let document = async move || document.map(|json| ([(CONTENT_TYPE, extract::JSON)], json));
    let page = SwaggerUi::new(DOCS).config(Config::new([DESCRIPTION]).validator_url("none"));
    router
        .route(DESCRIPTION, get(document))
        .merge(kurrent::router())
        .merge(Router::from(page).layer(middleware::map_response(content_security_policy)))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(middleware::from_fn_with_state(
            Arc::clone(shared),
            origin::reject_cross_origin,
        ))
        .layer(middleware::map_response(nosniff))
        .with_state(Arc::clone(shared))
}

/// The address that answers as long as the process does.
const LIVE: &str = "/health/live";
/// The addresses that answer everyone who can connect: what probes and clients ask before they know whom to name.
const ANONYMOUS: &[&str] = &[LIVE, "/health/ready", "/ping", "/gossip"];
/// The addresses for operators, with everything below them.
const OPERATOR: &[&str] = &["/metrics", "/api/v1/stats", "/api/v1/scavenge"];

/// Who may call an address at all.
pub(crate) fn required_access(path: &str) -> MethodAccess {
    let is_below = |base: &&str| {
        let rest = path.strip_prefix(*base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if ANONYMOUS.contains(&path) {
        MethodAccess::Anonymous
    } else if OPERATOR.iter().any(is_below) {
        MethodAccess::Operator
    } else {
        MethodAccess::Authenticated
    }
}

/// The answer to a request that comes before the store is open.
pub(crate) fn while_starting(path: &str) -> Response {
    if path == LIVE {
        return StatusCode::OK.into_response();
    }
    let detail = "server is starting: the store is being opened";
    let mut response = Problem::new(ProblemKind::UNAVAILABLE, detail).into_response();
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}

/// The answer to a request that is from nobody known.
pub(crate) fn unauthenticated(error: AuthenticationError) -> Response {
    let (kind, retry_after) = match error {
        AuthenticationError::Missing
        | AuthenticationError::Malformed
        | AuthenticationError::Wrong
        | AuthenticationError::Token(_) => (ProblemKind::UNAUTHENTICATED, None),
        AuthenticationError::TooManyFailures(wait) => {
            (ProblemKind::TOO_MANY_FAILURES, Some(wait.as_secs().max(1)))
        }
        AuthenticationError::Busy | AuthenticationError::KeysMissing => {
            (ProblemKind::UNAVAILABLE, Some(1))
        }
    };
    let mut response = Problem::new(kind, error.to_string()).into_response();
    let headers = response.headers_mut();
    if kind == ProblemKind::UNAUTHENTICATED {
        for challenge in CHALLENGES {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
    }
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Whether a response goes on until its client leaves: one of server-sent events.
pub(crate) fn stays_open<B>(response: &Response<B>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// The answer to a request that may not stay open, for lack of memory.
pub(crate) fn overloaded(exhausted: BudgetExhausted) -> Response {
    let mut response =
        Problem::new(ProblemKind::UNAVAILABLE, exhausted.to_string()).into_response();
    response.headers_mut().insert(RETRY_AFTER, 1.into());
    response
}

/// The answer to a request that was not answered by its deadline; `reads_within` is the timeout of one that only reads.
pub(crate) fn late(reads_within: Option<Duration>) -> Response {
    let problem = match reads_within {
        Some(timeout) => Problem::from(QueryError::TimedOut(timeout)),
        None => Problem::from(OutcomeUnknown::TimedOut),
    };
    problem.into_response()
}

/// The answer to a request whose principal may not make it.
pub(crate) fn access_denied(reason: String) -> Response {
    Problem::new(ProblemKind::ACCESS_DENIED, reason).into_response()
}

/// Adds `X-Content-Type-Options: nosniff`, so that browsers keep to the declared media type.
async fn nosniff(mut response: Response) -> Response {
    let never = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, never);
    response
}

async fn content_security_policy(mut response: Response) -> Response {
    let policy = HeaderValue::from_static(DOCS_POLICY);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, policy);
    response
}

/// Returns the routes with their description.
fn described() -> (Router<Arc<ServerState>>, openapi::OpenApi) {
    let api = OpenApiRouter::new()
        .routes(routes!(append::append))
        .routes(routes!(read::events_of, append::append_to))
        .routes(routes!(read::events))
        .routes(routes!(read::query))
        .routes(routes!(subscribe::subscribe))
        .routes(routes!(tickets::issue))
        .routes(routes!(streams::list))
        .routes(routes!(streams::state, streams::delete))
        .routes(routes!(streams::metadata, streams::set_metadata))
        .routes(routes!(groups::list))
        .routes(routes!(
            groups::show,
            groups::create,
            groups::update,
            groups::delete
        ))
        .routes(routes!(groups::parked, groups::truncate))
        .routes(routes!(groups::replay))
        .routes(routes!(consume::consume))
        .routes(routes!(consume::ack))
        .routes(routes!(consume::nack))
        .routes(routes!(admin::stats))
        .routes(routes!(admin::start, admin::progress, admin::stop));
    let (router, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .nest(BASE, api)
        .routes(routes!(status::live))
        .routes(routes!(status::ready))
        .routes(routes!(status::info))
        .routes(routes!(status::metrics))
        .routes(routes!(error_pages::list))
        .routes(routes!(error_pages::page))
        .split_for_parts();
    for item in description.paths.paths.values_mut() {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
        ];
        operations.into_iter().flatten().for_each(fill_descriptions);
    }
    (router, description)
}

/// Fills in the descriptions of responses, which the format requires.
fn fill_descriptions(operation: &mut openapi::path::Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else {
            continue;
        };
        let known = status
            .parse()
            .ok()
            .and_then(|code: StatusCode| code.canonical_reason());
        if response.description.is_empty() {
            response.description = known.unwrap_or("What went wrong").to_owned();
        }
    }
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::new(
        ProblemKind::NOT_FOUND,
        format!("no route for {path}; see {DOCS}"),
    )
    .of("path")
    .with_value(path)
}

async fn method_not_allowed(request: Request) -> Problem {
    let (method, path) = (request.method(), request.uri().path());
    Problem::new(
        ProblemKind::METHOD,
        format!("method {method} not allowed for {path}; see {DOCS}"),
    )
    .of("method")
    .with_value(method.as_str())
}

/// Encodes a text as one segment of a path.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
