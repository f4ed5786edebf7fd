//! Calls that are answered with one message.
//!
//! **Owns:** [`Answer`], and the time limit of a call that is dropped when it ends. **Does not know:** what is called.

use std::future::Future;

use tonic::{Response, Status};

use super::status::ErrorResponse;
use crate::{
    call::{self, QueryError},
    state::ServerState,
};

/// What a method returns.
pub(super) type Answer<T> = Result<Response<T>, Status>;

/// Runs a call with the request timeout. The call is dropped when the time is over or the server stops.
pub(super) async fn within_timeout<T, E: Into<ErrorResponse>>(
    shared: &ServerState,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Status> {
    let timeout = shared.settings.request_timeout;
    match call::with_timeout(shared, timeout, work).await {
        Ok(outcome) => outcome.map_err(|error| error.into().into()),
        Err(QueryError::ShuttingDown) => Err(ErrorResponse::stopping().into()),
        Err(late @ QueryError::TimedOut(_)) => Err(Status::deadline_exceeded(late.to_string())),
    }
}
