//! Calls that may be made again.
//!
//! **Owns:** [`Connection`], one connection, and [`ConnectionPool::call_with_retry`]: asking until somebody answers.
//! **Does not know:** appends, which
//! must not be made again lightly.
//! **Invariants:** whatever is asked here may be asked twice; it is asked for a bounded time.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use leftfold_model::Position;
use leftfold_proto::leftfold::v1::{self as wire, ErrorDetail, store_client::StoreClient};
use leftfold_store::{Cause, ReadError};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, transport::Channel};

use crate::{
    ClientOptions, TransportError,
    backoff::Backoff,
    session::QueuedAppend,
    status::{self, StatusKind},
};

/// The calls of the protocol, over one connection.
pub(crate) type StoreStub = StoreClient<Channel>;

/// One connection; it is made anew when it is needed and was lost.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) calls: StoreStub,
    /// Appends that wait to be sent over it.
    pub(crate) appends: mpsc::Sender<QueuedAppend>,
    /// What its last failure was.
    pub(crate) trouble: Arc<LastError>,
}

/// The newest of some troubles.
#[derive(Debug, Default)]
pub(crate) struct LastError(Mutex<Option<Cause>>);

impl LastError {
    pub(crate) fn note(&self, cause: Option<Cause>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }

    pub(crate) fn get(&self) -> Option<Cause> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.clone()
    }
}

/// All connections of a client.
#[derive(Debug)]
pub(crate) struct ConnectionPool {
    pub(crate) address: String,
    pub(crate) options: ClientOptions,
    links: Vec<Connection>,
    turn: AtomicUsize,
    /// Cancelled when the client is closed.
    pub(crate) closed: CancellationToken,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The store refused.
    Store(ErrorDetail),
    /// Asking again does not help.
    Rejected(Cause),
    /// Nobody answered in time.
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
        links: Vec<Connection>,
        closed: CancellationToken,
    ) -> Self {
        Self {
            address,
            options,
            links,
            turn: AtomicUsize::new(0),
            closed,
        }
    }

    /// The connection whose turn it is; `None` only if there are none at all.
    pub(crate) fn next(&self) -> Option<&Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.links.get(turn.checked_rem(self.links.len())?)
    }

    /// Asks until the server answers, but not for ever.
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
            let mut pauses = Backoff::of(&self.options);
            loop {
                let Some(link) = self.next() else {
                    return Err(CallError::Rejected(TransportError::Closed.cause()));
                };
                match call(link.calls.clone()).await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => match StatusKind::of(status, &self.address) {
                        StatusKind::Store(failure) => return Err(CallError::Store(failure)),
                        StatusKind::Rejected(cause) => return Err(CallError::Rejected(cause)),
                        StatusKind::ShuttingDown => {
                            latest = Some(TransportError::ShuttingDown.cause())
                        }
                        StatusKind::NoResponse(cause) => latest = Some(cause),
                    },
                }
                pauses.wait().await;
            }
        };
        let answered = tokio::select! {
            biased;
            () = self.closed.cancelled() => {
                return Err(CallError::Rejected(TransportError::Closed.cause()));
            }
            answered = timeout(after, attempts) => answered,
        };
        answered.unwrap_or_else(|_| {
            let cause = latest;
            Err(CallError::Timeout(
                TransportError::Timeout { after, cause }.cause(),
            ))
        })
    }

    /// Asks for one answer on behalf of a reader.
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

    pub(crate) async fn head(&self) -> Result<Position, ReadError> {
        let ask = |mut calls: StoreStub| async move { calls.head(wire::HeadRequest {}).await };
        let answer: wire::HeadResponse = self.read_with_retry(ask).await?;
        Ok(Position::new(answer.position))
    }

    /// Refuses to go on with a log that is shorter than what was seen of it.
    pub(crate) async fn check_log(&self, seen: Position) -> Result<(), ReadError> {
        let head = self.head().await?;
        if head < seen {
            return Err(status::unreadable(TransportError::LogMismatch {
                head,
                seen,
            }));
        }
        Ok(())
    }
}
