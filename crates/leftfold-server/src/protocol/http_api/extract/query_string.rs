//! The query string: parameters of a request behind the question mark.
//!
//! **Owns:** [`QueryParams`]. **Does not know:** which parameters a route has.
//! **Invariants:** unknown parameters, parameters without a value and text that is not UTF-8 are refused by name.

use std::sync::Arc;

use axum::{extract::FromRequestParts, http::request::Parts};
use serde::{Deserialize, de::DeserializeOwned};

use super::{super::problem::Problem, path};
use crate::state::ServerState;

/// The parameters of the query string.
#[derive(Debug)]
pub(in super::super) struct QueryParams<T>(pub(in super::super) T);

/// The parameters of routes that have none.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct NoParams {}

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

/// Refuses text that is not UTF-8, and a parameter without a value.
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
