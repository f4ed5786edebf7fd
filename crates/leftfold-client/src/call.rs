//! Retrying idempotent calls over a pool of connections.
//!
//! **Owns:** [`ConnectionPool`], and calling until the server responds. **Does not know:** appends, whose retry is a decision
//! of its own.
//! **Invariants:** every call here is idempotent; it is retried for a bounded time.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
};

use leftfold_model::Position;
use leftfold_proto::leftfold::v1::{self as wire, ErrorDetail};
use leftfold_store::{Cause, ReadError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::{
    ClientOptions, RpcError,
    backoff::Backoff,
    connection::{Connection, StoreStub},
    status::{self, StatusKind},
};

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    pub(crate) address: String,
    pub(crate) options: ClientOptions,
    connections: Vec<Connection>,
    turn: AtomicUsize,
    /// Cancelled when the client is closed.
    pub(crate) closed: CancellationToken,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The store returned an error.
    Store(ErrorDetail),
    /// A retry does not help.
    Rejected(Cause),
    /// The server did not respond in time.
    Timeout(Cause),
}

impl CallError {
    pub(crate) fn into_read_error(self) -> ReadError {
        match self {
            Self::Store(failure) => status::read_error(failure),
            Self::Rejected(cause) | Self::Timeout(cause) => ReadError::Unavailable { cause },
        }
    }
}

impl ConnectionPool {
    pub(crate) fn new(
        address: String,
        options: ClientOptions,
        connections: Vec<Connection>,
        closed: CancellationToken,
    ) -> Self {
        Self {
            address,
            options,
            connections,
            turn: AtomicUsize::new(0),
            closed,
        }
    }

    /// Returns the next connection in turn; `None` only if there are none.
    pub(crate) fn next(&self) -> Option<&Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.connections
            .get(turn.checked_rem(self.connections.len())?)
    }

    /// Retries a call until the server responds or [`ClientOptions::call_timeout`] elapses.
    pub(crate) async fn call_with_retry<T, F>(
        &self,
        call: impl Fn(StoreStub) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let after = self.options.call_timeout;
        let mut latest = None;
        let attempts = async {
            let mut backoff = Backoff::of(&self.options);
            loop {
                let Some(connection) = self.next() else {
                    return Err(CallError::Rejected(RpcError::Closed.cause()));
                };
                match call(connection.calls.clone()).await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => match StatusKind::of(status, &self.address) {
                        StatusKind::Store(failure) => return Err(CallError::Store(failure)),
                        StatusKind::Rejected(cause) => return Err(CallError::Rejected(cause)),
                        StatusKind::ShuttingDown => latest = Some(RpcError::ShuttingDown.cause()),
                        StatusKind::NoResponse(cause) => latest = Some(cause),
                    },
                }
                backoff.wait().await;
            }
        };
        let answered = tokio::select! {
            biased;
            () = self.closed.cancelled() => {
                return Err(CallError::Rejected(RpcError::Closed.cause()));
            }
            answered = timeout(after, attempts) => answered,
        };
        answered.unwrap_or_else(|_| {
            let cause = latest;
            Err(CallError::Timeout(
                RpcError::Timeout { after, cause }.cause(),
            ))
        })
    }

    /// Retries a call for a reader, whose error it returns.
    pub(crate) async fn read_with_retry<T, F>(
        &self,
        call: impl Fn(StoreStub) -> F,
    ) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_with_retry(call)
            .await
            .map_err(CallError::into_read_error)
    }

    /// Returns the stub of a connection that just responded.
    pub(crate) async fn responsive(&self) -> Result<StoreStub, ReadError> {
        let ask = |mut calls: StoreStub| async move {
            calls.head(wire::HeadRequest {}).await?;
            Ok(Response::new(calls))
        };
        self.read_with_retry(ask).await
    }

    pub(crate) async fn head(&self) -> Result<Position, ReadError> {
        let ask = |mut calls: StoreStub| async move { calls.head(wire::HeadRequest {}).await };
        let answer: wire::HeadResponse = self.read_with_retry(ask).await?;
        Ok(Position::new(answer.position))
    }

    /// Fails if the log is shorter than what was read of it.
    pub(crate) async fn check_log(&self, seen: Position) -> Result<(), ReadError> {
        let head = self.head().await?;
        if head < seen {
            return Err(status::log_went_back(head, seen));
        }
        Ok(())
    }
}
