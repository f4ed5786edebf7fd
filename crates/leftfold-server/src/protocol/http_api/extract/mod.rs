//! Extractors for the query string, path, headers and body of a request.
//!
//! **Owns:** what the extractors share. **Does not know:** what a route does with them.
//! **Invariants:** an unknown name is refused, like an invalid value; the problem names it.

mod field;
mod query_string;
mod request_body;

pub(super) use self::{
    field::{
        Expected, ExpectedRevisionParam, Items, QueryItemBody, StreamPath, filter, query, scope,
        stream, too_many_terms,
    },
    query_string::{NoParams, QueryParams},
    request_body::{
        CLOUD_EVENTS_PREFIX, JSON, RequestBody, cloud_events_header, media_type, part, unknown_type,
    },
};

/// The path of a field in the body, or the name of a parameter.
fn path(path: &serde_path_to_error::Path) -> String {
    match path.to_string().as_str() {
        "." | "?" | "" => "request".to_owned(),
        path => path.to_owned(),
    }
}
