//! The pages of error codes, to which the `type` of each problem leads.
//!
//! **Owns:** `/errors` and `/errors/{code}`. **Does not know:** what the pages say.
//! **Invariants:** every `type` that the server sends can be read at the same server.

use std::fmt::Write;

use axum::{
    extract::{Path, rejection::PathRejection},
    http::header::CONTENT_TYPE,
    response::IntoResponse,
};
use leftfold_error_codes::ErrorCode;

use super::{
    extract::{NoParams, QueryParams},
    problem::{Details, PAGES, Problem, ProblemKind},
};

const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// Lists the error codes with their titles.
#[utoipa::path(
    get, path = "/errors", tag = "status",
    responses((status = OK, body = String, content_type = "text/markdown"))
)]
pub(super) async fn list(QueryParams(NoParams {}): QueryParams<NoParams>) -> impl IntoResponse {
    let mut list = String::from("# Error codes\n\n");
    for code in ErrorCode::ALL {
        // Writing to a string does not fail.
        let _ = writeln!(list, "- [{code}]({PAGES}/{code}): {}", code.title());
    }
    ([(CONTENT_TYPE, MARKDOWN)], list)
}

/// Says what an error code means, what its causes are, and what to do.
#[utoipa::path(
    get, path = "/errors/{code}", tag = "status",
    params(("code" = String, Path, description = "The code, as in `LF0002`.")),
    responses(
        (status = OK, body = String, content_type = "text/markdown"),
        (status = NOT_FOUND, body = Details, content_type = "application/problem+json"),
    )
)]
pub(super) async fn page(
    code: Result<Path<String>, PathRejection>,
    QueryParams(NoParams {}): QueryParams<NoParams>,
) -> Result<impl IntoResponse, Problem> {
    let Path(code) = code.map_err(|unreadable| {
        Problem::new(ProblemKind::NOT_FOUND, unreadable.body_text()).of("code")
    })?;
    match code.parse::<ErrorCode>() {
        Ok(code) => Ok(([(CONTENT_TYPE, MARKDOWN)], code.page())),
        Err(unknown) => Err(Problem::new(ProblemKind::NOT_FOUND, unknown.to_string())
            .of("code")
            .with_value(code)),
    }
}
