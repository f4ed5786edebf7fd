//! Protection against cross-origin requests of browsers (CSRF) and against DNS rebinding.
//!
//! **Owns:** [`check`]. **Does not know:** routes, users.
//! **Invariants:** a page of another origin can neither read nor write, even if its own name resolves to this machine.
//! Clients that are not browsers only need a valid `Host`.
//!
//! Source: Fetch Metadata Request Headers (W3C), RFC 6454 for origins.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{self, Method, header::HOST},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    DOCS,
    problem::{Problem, ProblemKind},
};
use crate::{Settings, state::ServerState};

/// The header in which a browser says whether a request is cross-site.
const SITE: &str = "sec-fetch-site";
/// The header in which it names the origin, for some requests.
const ORIGIN: &str = "origin";

/// Why a request counts as cross-origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{header} is {value:?}, expected {expected}")]
pub(crate) struct CrossOriginError {
    header: &'static str,
    value: String,
    expected: String,
}

impl From<CrossOriginError> for Problem {
    fn from(foreign: CrossOriginError) -> Self {
        Self::new(ProblemKind::CROSS_ORIGIN, foreign.to_string())
            .of(foreign.header)
            .with_value_and_limit(foreign.value, foreign.expected)
    }
}

/// Passes a request on, unless it is cross-origin.
pub(super) async fn reject_cross_origin(
    State(shared): State<Arc<ServerState>>,
    request: Request,
    next: Next,
) -> Response {
    match check(&shared.settings, &request) {
        Ok(()) => next.run(request).await,
        Err(foreign) => Problem::from(foreign).into_response(),
    }
}

/// Checks that no page of another origin can have sent a request.
pub(crate) fn check<B>(
    settings: &Settings,
    request: &http::Request<B>,
) -> Result<(), CrossOriginError> {
    let text = |name: &str| {
        let value = request.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let named = request.uri().authority().map(ToString::to_string);
    let host = named.or_else(|| text(HOST.as_str())).unwrap_or_default();
    let foreign = |header, value, expected: &str| {
        let expected = expected.to_owned();
        Err(CrossOriginError {
            header,
            value,
            expected,
        })
    };
    if !is_meant(&host, settings) {
        return foreign(
            "host",
            host,
            "an IP address, localhost, a name without dots, or one of allowed_hosts",
        );
    }
    if let Some(site) = text(SITE)
        && !["same-origin", "none"].contains(&site.as_str())
        && !opens_the_page(request)
    {
        return foreign(SITE, site, "same-origin");
    }
    if let Some(origin) = text(ORIGIN) {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        if !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(&host)) {
            return foreign(ORIGIN, origin, &format!("http://{host}"));
        }
    }
    Ok(())
}

/// Returns whether a browser navigates to the page of the API's description, which any site may link to. The page itself
/// contains no events, and the linking site cannot read it.
fn opens_the_page<B>(request: &http::Request<B>) -> bool {
    let says = |name, word| {
        let value = request.headers().get(name);
        value.is_some_and(|value: &http::HeaderValue| value == word)
    };
    let rest = request.uri().path().strip_prefix(DOCS);
    request.method() == Method::GET
        && rest.is_some_and(|rest| rest.is_empty() || rest == "/")
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
}

/// Returns whether no other party can have made this name resolve to this machine.
///
/// IP addresses and names without dots have no owner; the advertised and the allowed hosts belong to the operator.
fn is_meant(host: &str, settings: &Settings) -> bool {
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    // An address of version 6 has colons of its own.
    if is_address(host) {
        return true;
    }
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(name, _)| name);
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if let Some(address) = bracketed {
        return is_address(address);
    }
    is_address(name)
        || !name.contains(['.', ':', '[', ']'])
        || name.eq_ignore_ascii_case(settings.advertised_host.as_str())
        || settings.allowed_hosts.allows(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_nobody_else_can_give_are_taken_for_this_machine() {
        let mut settings = Settings::default();
        for here in [
            "localhost",
            "LOCALHOST:2113",
            "127.0.0.1:80",
            "192.0.2.7",
            "[::1]:2113",
            "[::1]",
            "::1",
            "leftfold",
            "leftfold:2113",
            "",
        ] {
            assert!(is_meant(here, &settings), "{here}");
        }
        for elsewhere in [
            "evil.example",
            "evil.example:2113",
            "evil.",
            "127.0.0.1.evil.example",
            "localhost.evil:1",
            "[evil.example]",
            "[::1",
            "a:b:c",
        ] {
            assert!(!is_meant(elsewhere, &settings), "{elsewhere}");
        }
        settings.set("advertised_host", "events.example").unwrap();
        settings
            .set("allowed_hosts", "log.example,.svc.cluster.local")
            .unwrap();
        for meant in [
            "Events.example:2113",
            "log.example",
            "leftfold.default.svc.cluster.local:2113",
        ] {
            assert!(is_meant(meant, &settings), "{meant}");
        }
        assert!(!is_meant("other.example", &settings));
    }

    /// A request with these headers, its method and address first.
    fn asked(path: &str, headers: &[(&str, &str)]) -> Result<(), CrossOriginError> {
        let (method, path) = path.split_once(' ').unwrap();
        let request = http::Request::builder().method(method).uri(path);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        check(&Settings::default(), &request.body(()).unwrap())
    }

    #[test]
    fn a_link_elsewhere_opens_the_page_of_the_description_and_nothing_else() {
        let link = [
            ("host", "localhost"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert_eq!(asked("GET /api/v1/docs", &link), Ok(()));
        assert_eq!(asked("GET /api/v1/docs/", &link), Ok(()));
        for other in [
            "POST /api/v1/docs/",
            "GET /api/v1/docsets",
            "GET /api/v1/docs/swagger-initializer.js",
            "GET /api/v1/events",
        ] {
            let refused = asked(other, &link).unwrap_err();
            assert_eq!(refused.header, SITE, "{other}");
        }
        let frame = link.map(|(name, value)| match name {
            "sec-fetch-dest" => (name, "iframe"),
            _ => (name, value),
        });
        asked("GET /api/v1/docs/", &frame).unwrap_err();
    }

    #[test]
    fn the_authority_of_the_address_counts_before_the_header() {
        let local = [("host", "localhost")];
        assert_eq!(asked("GET http://localhost/metrics", &[]), Ok(()));
        let named = asked("GET http://evil.example/metrics", &local).unwrap_err();
        assert_eq!(named.value, "evil.example");
    }
}
