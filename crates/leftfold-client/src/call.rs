//! Calls that may be made again.
//!
//! **Owns:** [`Link`], one connection, and [`Links::ask`]: asking until somebody answers. **Does not know:** appends, which
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
use leftfold_proto::leftfold::v1::{self as wire, Failure, store_client::StoreClient};
use leftfold_store::{Cause, ReadError};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, transport::Channel};

use crate::{
    ClientOptions, Trouble,
    failure::{self, Said},
    pause::Pauses,
    session::Item,
};

/// The calls of the protocol, over one connection.
pub(crate) type Calls = StoreClient<Channel>;

/// One connection; it is made anew when it is needed and was lost.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) calls: Calls,
    /// Appends that wait to be sent over it.
    pub(crate) appends: mpsc::Sender<Item>,
    /// What its last failure was.
    pub(crate) trouble: Arc<Latest>,
}

/// The newest of some troubles.
#[derive(Debug, Default)]
pub(crate) struct Latest(Mutex<Option<Cause>>);

impl Latest {
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
pub(crate) struct Links {
    pub(crate) address: String,
    pub(crate) options: ClientOptions,
    links: Vec<Link>,
    turn: AtomicUsize,
    /// Cancelled when the client is closed.
    pub(crate) closed: CancellationToken,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The store refused.
    Failure(Failure),
    /// Asking again does not help.
    NotTaken(Cause),
    /// Nobody answered in time.
    Silence(Cause),
}

impl Unanswered {
    pub(crate) fn into_read_error(self) -> ReadError {
        match self {
            Self::Failure(failure) => failure::read_error(failure),
            Self::NotTaken(cause) | Self::Silence(cause) => ReadError::Unavailable { cause },
        }
    }
}

impl Links {
    pub(crate) fn new(
        address: String,
        options: ClientOptions,
        links: Vec<Link>,
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
    pub(crate) fn next(&self) -> Option<&Link> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.links.get(turn.checked_rem(self.links.len())?)
    }

    /// Asks until the server answers, but not for ever.
    pub(crate) async fn ask<T, F>(&self, call: impl Fn(Calls) -> F) -> Result<T, Unanswered>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let after = self.options.call_timeout;
        let mut latest = None;
        let attempts = async {
            let mut pauses = Pauses::of(&self.options);
            loop {
                let Some(link) = self.next() else {
                    return Err(Unanswered::NotTaken(Trouble::Closed.cause()));
                };
                match call(link.calls.clone()).await {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => match Said::of(status, &self.address) {
                        Said::Failure(failure) => return Err(Unanswered::Failure(failure)),
                        Said::NotTaken(cause) => return Err(Unanswered::NotTaken(cause)),
                        Said::Stopping => latest = Some(Trouble::Stopping.cause()),
                        Said::Nothing(cause) => latest = Some(cause),
                    },
                }
                pauses.wait().await;
            }
        };
        let answered = tokio::select! {
            biased;
            () = self.closed.cancelled() => {
                return Err(Unanswered::NotTaken(Trouble::Closed.cause()));
            }
            answered = timeout(after, attempts) => answered,
        };
        answered.unwrap_or_else(|_| {
            let cause = latest;
            Err(Unanswered::Silence(
                Trouble::NoAnswer { after, cause }.cause(),
            ))
        })
    }

    /// Asks for one answer on behalf of a reader.
    pub(crate) async fn ask_to_read<T, F>(&self, call: impl Fn(Calls) -> F) -> Result<T, ReadError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(call).await.map_err(Unanswered::into_read_error)
    }

    pub(crate) async fn head(&self) -> Result<Position, ReadError> {
        let ask = |mut calls: Calls| async move { calls.head(wire::HeadRequest {}).await };
        let answer: wire::HeadAnswer = self.ask_to_read(ask).await?;
        Ok(Position::new(answer.position))
    }

    /// Refuses to go on with a log that is shorter than what was seen of it.
    pub(crate) async fn check_log(&self, seen: Position) -> Result<(), ReadError> {
        let head = self.head().await?;
        if head < seen {
            return Err(failure::unreadable(Trouble::OtherLog { head, seen }));
        }
        Ok(())
    }
}
