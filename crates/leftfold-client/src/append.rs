//! Appends: when the client retries one, and which outcome it reports.
//!
//! **Owns:** the retry of an append, and its outcome when no response arrived. **Does not know:** connections.
//! **Invariants:** a retry never writes an append twice; the client reports "not written" only if that is certain; every
//! append has a deadline.
//!
//! **When the client retries.** Always if the server certainly did nothing: the append was not sent, or the server was
//! stopping and had not begun it. If the append may have arrived, only if each of its writes expects an exact revision or no
//! stream, because the server recognises such a repetition at any later time. It recognises repetitions of "any" and "stream
//! exists" among the newest events only. The client cannot know how many events others write meanwhile, so it reports an
//! unknown outcome, and the caller may retry.
//!
//! **What a rejection means after an unknown outcome.** Nothing was written only if the server would have rejected the first
//! attempt too, whenever it arrived. Any other rejection leaves the outcome unknown. That holds across calls: a caller's own
//! retry of an append of unknown outcome is not said to be unwritten because no server can be reached.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use leftfold_model::{Append, Appended, Conflict, ExpectedRevision};
use leftfold_proto::{
    leftfold::v1::{self as wire, AppendChunk, ErrorDetail, error_detail::Kind},
    prost::Message,
};
use leftfold_store::{AppendError, Cause, Delete, UnknownOutcomes};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

use crate::{
    RpcError,
    backoff::Backoff,
    call::ConnectionPool,
    connection::Connection,
    decode, encode,
    queued_append::{QueuedAppend, SendClaim, SendOutcome},
    status::{self, StatusKind},
};

/// The writer of appends and deletions.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) pool: Arc<ConnectionPool>,
    /// A permit for each append in flight; closed with the client.
    pub(crate) in_flight: Arc<Semaphore>,
    /// Maximum bytes of one message.
    pub(crate) message_bytes: usize,
    /// The events of earlier appends of unknown outcome.
    pub(crate) outcomes: UnknownOutcomes,
}

/// The attempts of one append.
#[derive(Debug, Default)]
struct AttemptLog {
    /// The attempt in flight.
    attempt: Option<Arc<SendClaim>>,
    /// Why an attempt without a response may have arrived.
    unknown: Option<Cause>,
    /// The error of the last attempt.
    last_error: Option<Cause>,
}

impl Writer {
    pub(crate) async fn append(&self, append: Append) -> Result<Appended, AppendError> {
        let attempt = self.outcomes.begin(&append);
        let outcome = self.append_once(&append).await;
        attempt.end(outcome)
    }

    async fn append_once(&self, append: &Append) -> Result<Appended, AppendError> {
        let mut log = AttemptLog::default();
        let after = self.pool.options.write_timeout;
        match timeout(after, self.attempts(append, &mut log)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(log.out_of_time(after)),
        }
    }

    async fn attempts(
        &self,
        append: &Append,
        log: &mut AttemptLog,
    ) -> Result<Appended, AppendError> {
        let closed = || AppendError::Unavailable {
            cause: RpcError::Closed.cause(),
        };
        let mut backoff = Backoff::of(&self.pool.options);
        loop {
            let permit = self.in_flight().await.ok_or_else(closed)?;
            let connection = self.pool.next().ok_or_else(closed)?;
            let claim = Arc::new(SendClaim::default());
            log.attempt = Some(Arc::clone(&claim));
            match self.attempt(connection, append, claim, permit).await {
                SendOutcome::Appended(answer) => {
                    let appended = decode::appended(append, answer);
                    return appended.map_err(|error| AppendError::OutcomeUnknown {
                        cause: error.cause(),
                    });
                }
                SendOutcome::Failed(ErrorDetail {
                    kind: Some(Kind::ShuttingDown(_)),
                }) => log.last_error = Some(RpcError::ShuttingDown.cause()),
                SendOutcome::Failed(failure) => {
                    return Err(log.conclude(status::append_error(failure)));
                }
                SendOutcome::NotBegun => log.last_error = connection.last_error.get(),
                SendOutcome::Lost(cause) if is_repeatable(append) => log.unknown = Some(cause),
                SendOutcome::Lost(cause) => return Err(AppendError::OutcomeUnknown { cause }),
            }
            log.attempt = None;
            backoff.wait().await;
        }
    }

    async fn attempt(
        &self,
        connection: &Connection,
        append: &Append,
        claim: Arc<SendClaim>,
        permit: OwnedSemaphorePermit,
    ) -> SendOutcome {
        let request = encode::append(append);
        let bytes = request.encoded_len();
        if bytes > self.message_bytes {
            return self.in_parts(connection, &request, claim).await;
        }
        let (outcome, received) = oneshot::channel();
        let item = QueuedAppend {
            append: request,
            bytes,
            claim,
            outcome,
            _permit: permit,
        };
        if connection.appends.send(item).await.is_err() {
            return SendOutcome::NotBegun;
        }
        received
            .await
            .unwrap_or_else(|_| SendOutcome::Lost(RpcError::Closed.cause()))
    }

    /// Acquires a permit for an append in flight; `None` if the client is closed.
    async fn in_flight(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.in_flight).acquire_owned().await.ok()
    }

    /// Closes the writer: waits for appends in flight, at most as long as one may take, and lets no other begin.
    pub(crate) async fn close(&self) {
        let options = &self.pool.options;
        let all = u32::try_from(options.in_flight_appends_max).unwrap_or(u32::MAX);
        // Bounded, because an append that is no longer polled may never return its permit.
        let _all = timeout(options.write_timeout, self.in_flight.acquire_many(all)).await;
        self.in_flight.close();
        self.pool.closed.cancel();
    }

    /// Sends an append that is longer than a message. It counts as sent once its last chunk has left.
    async fn in_parts(
        &self,
        connection: &Connection,
        request: &wire::AppendRequest,
        claim: Arc<SendClaim>,
    ) -> SendOutcome {
        let whole = Bytes::from(request.encode_to_vec());
        let parts = parts(whole, self.message_bytes, Arc::clone(&claim));
        match connection
            .calls
            .clone()
            .append_chunked(stream::iter(parts))
            .await
        {
            Ok(response) => SendOutcome::Appended(response.into_inner()),
            Err(status) => match StatusKind::of(status, &self.pool.address) {
                StatusKind::Store(failure) => SendOutcome::Failed(failure),
                StatusKind::ShuttingDown => SendOutcome::NotBegun,
                StatusKind::Rejected(cause) | StatusKind::NoResponse(cause) => {
                    connection.last_error.set(Some(Arc::clone(&cause)));
                    if claim.withdraw() {
                        SendOutcome::NotBegun
                    } else {
                        SendOutcome::Lost(cause)
                    }
                }
            },
        }
    }

    /// Deletes a stream. The server cannot recognise a repeated deletion, so the client sends it once, over a connection that
    /// just responded.
    pub(crate) async fn delete(&self, delete: Delete) -> Result<Appended, AppendError> {
        let unavailable = |cause| AppendError::Unavailable { cause };
        let after = self.pool.options.write_timeout;
        let permit = match timeout(after, self.in_flight()).await {
            Ok(permit) => permit.ok_or_else(|| unavailable(RpcError::Closed.cause()))?,
            Err(_) => {
                let timeout = RpcError::Timeout { after, cause: None };
                return Err(unavailable(timeout.cause()));
            }
        };
        let responsive = self.pool.responsive().await;
        let mut calls = responsive.map_err(|error| unavailable(Arc::new(error)))?;
        let answered = timeout(after, calls.delete(encode::delete(&delete))).await;
        drop(permit);
        let unknown = |cause| Err(AppendError::OutcomeUnknown { cause });
        match answered {
            Ok(Ok(response)) => {
                decode::deleted(response.into_inner()).or_else(|error| unknown(error.cause()))
            }
            Ok(Err(status)) => match StatusKind::of(status, &self.pool.address) {
                StatusKind::Store(failure) => Err(status::append_error(failure)),
                StatusKind::ShuttingDown => Err(unavailable(RpcError::ShuttingDown.cause())),
                StatusKind::Rejected(cause) | StatusKind::NoResponse(cause) => unknown(cause),
            },
            Err(_) => unknown(RpcError::Timeout { after, cause: None }.cause()),
        }
    }
}

/// The chunks of an encoded append, split off one at a time as the call sends them.
fn parts(
    whole: Bytes,
    part_bytes: usize,
    claim: Arc<SendClaim>,
) -> impl Iterator<Item = AppendChunk> + Send + 'static {
    let mut given = 0_usize;
    std::iter::from_fn(move || {
        let start = given;
        let end = start.saturating_add(part_bytes).min(whole.len());
        let is_last = end == whole.len();
        if start == end || is_last && !claim.take() {
            return None;
        }
        given = end;
        Some(AppendChunk {
            bytes: whole.slice(start..end),
            total_bytes: whole.len() as u64,
        })
    })
}

/// Returns whether the server recognises a repetition of this append at any later time.
fn is_repeatable(append: &Append) -> bool {
    append.writes().iter().all(|write| {
        matches!(
            write.expected,
            ExpectedRevision::NoStream | ExpectedRevision::Exact(_)
        )
    })
}

impl AttemptLog {
    /// Returns what the error of this attempt proves about all attempts.
    fn conclude(&self, refusal: AppendError) -> AppendError {
        if self.unknown.is_none() {
            return refusal;
        }
        match refusal {
            AppendError::Conflict(conflict) if is_final(&conflict) => {
                AppendError::Conflict(conflict)
            }
            AppendError::OutcomeUnknown { cause } => AppendError::OutcomeUnknown { cause },
            other => AppendError::OutcomeUnknown {
                cause: Arc::new(other),
            },
        }
    }

    fn out_of_time(self, after: std::time::Duration) -> AppendError {
        let withdrawn = self.attempt.is_none_or(|attempt| attempt.withdraw());
        let cause = RpcError::Timeout {
            after,
            cause: self.unknown.clone().or(self.last_error),
        }
        .cause();
        if withdrawn && self.unknown.is_none() {
            AppendError::Unavailable { cause }
        } else {
            AppendError::OutcomeUnknown { cause }
        }
    }
}

/// Returns whether a conflict is final, so that an attempt still in flight meets it too.
fn is_final(conflict: &Conflict) -> bool {
    match conflict {
        Conflict::WrongRevision {
            expected, actual, ..
        } => match (expected, actual.0) {
            (ExpectedRevision::Exact(expected), Some(actual)) => actual > *expected,
            (ExpectedRevision::NoStream, Some(_)) => true,
            _ => false,
        },
        Conflict::ConditionFailed { .. } | Conflict::PartlyStored { .. } => true,
        _ => false,
    }
}
