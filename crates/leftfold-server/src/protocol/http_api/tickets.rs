//! Tickets for clients that cannot set a header.
//!
//! **Owns:** the route that issues them, and which routes take one. **Does not know:** how tickets are kept.
//! **Invariants:** a ticket is taken out of the address of a request before anything else looks at it, so that no log, trace or
//! answer has it; only streams of server-sent events take one.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{
        HeaderValue, Method, Request, StatusCode, Uri,
        header::{CACHE_CONTROL, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    BASE,
    extract::{NoParams, QueryParams},
    problem::{Details, Problem, ProblemKind},
};
use crate::{access::TicketError, call, state::ServerState};

/// The parameter that holds a ticket.
const PARAMETER: &str = "ticket";

/// A ticket.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketResponse {
    /// The value of the parameter `ticket` of one request.
    ticket: String,
    /// Seconds in which it may be used.
    expires_in: u64,
}

/// Issues a ticket, with which one request for server-sent events has the rights of this one.
///
/// A browser's `EventSource` sets no header. So a page gets a ticket first, and passes it as the parameter `ticket`.
#[utoipa::path(
    post, path = "/tickets", tag = "events",
    responses(
        (status = CREATED, body = TicketResponse),
        (status = "default", body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn issue(
    State(shared): State<Arc<ServerState>>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Response {
    let issued = match shared.tickets.issue(call::principal()) {
        Ok(issued) => issued,
        Err(error @ (TicketError::TooMany | TicketError::Random)) => {
            let mut response =
                Problem::new(ProblemKind::UNAVAILABLE, error.to_string()).into_response();
            response.headers_mut().insert(RETRY_AFTER, 1.into());
            return response;
        }
    };
    let body = TicketResponse {
        ticket: issued.text,
        expires_in: issued.lifetime.as_secs(),
    };
    let not_stored = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::CREATED, not_stored, Json(body)).into_response()
}

/// Takes the ticket out of the address of a request whose route takes one. Two of them are as good as a wrong one.
pub(crate) fn take_ticket<B>(request: &mut Request<B>) -> Option<String> {
    let uri = request.uri();
    let query = uri.query()?;
    if request.method() != Method::GET || !takes_ticket(uri.path()) {
        return None;
    }
    let ticket = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == PARAMETER).then(|| value.to_owned())
    };
    let mut tickets = query.split('&').filter_map(ticket);
    let taken = match (tickets.next()?, tickets.next()) {
        (only, None) => only,
        (_, Some(_)) => String::new(),
    };
    let rest: Vec<_> = query
        .split('&')
        .filter(|pair| ticket(pair).is_none())
        .collect();
    let path = match rest.join("&").as_str() {
        "" => uri.path().to_owned(),
        rest => format!("{}?{rest}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    Some(taken)
}

/// Whether the route of a path answers by server-sent events.
fn takes_ticket(path: &str) -> bool {
    let Some(route) = path.strip_prefix(BASE) else {
        return false;
    };
    let parts: Vec<_> = route.split('/').collect();
    matches!(
        parts.as_slice(),
        ["", "subscribe"] | ["", "subscriptions", _, _, "events"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(method: Method, uri: &str) -> (Option<String>, String) {
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let ticket = take_ticket(&mut request);
        (ticket, request.uri().to_string())
    }

    #[test]
    fn a_ticket_is_taken_out_of_the_address() {
        for (given, ticket, left) in [
            (
                "/api/v1/subscribe?after=0&ticket=t&tag=a%26b",
                Some("t"),
                "/api/v1/subscribe?after=0&tag=a%26b",
            ),
            ("/api/v1/subscribe?ticket=t", Some("t"), "/api/v1/subscribe"),
            (
                "http://localhost:2113/api/v1/subscriptions/a%2Fb/g/events?ticket=t&window=3",
                Some("t"),
                "http://localhost:2113/api/v1/subscriptions/a%2Fb/g/events?window=3",
            ),
            ("/api/v1/subscribe?ticket", Some(""), "/api/v1/subscribe"),
            (
                "/api/v1/subscribe?ticket=t&ticket=u",
                Some(""),
                "/api/v1/subscribe",
            ),
            (
                "/api/v1/subscribe?after=0",
                None,
                "/api/v1/subscribe?after=0",
            ),
        ] {
            let (taken, rest) = taken(Method::GET, given);
            assert_eq!((taken.as_deref(), rest.as_str()), (ticket, left), "{given}");
        }
    }

    #[test]
    fn other_routes_take_no_ticket() {
        for (method, uri) in [
            (Method::POST, "/api/v1/subscribe?ticket=t"),
            (Method::GET, "/api/v1/events?ticket=t"),
            (Method::GET, "/api/v1/streams/a/events?ticket=t"),
            (Method::GET, "/api/v1/subscriptions/a/g?ticket=t"),
            (Method::GET, "/subscribe?ticket=t"),
        ] {
            assert_eq!(taken(method, uri), (None, uri.to_owned()), "{uri}");
        }
    }
}
