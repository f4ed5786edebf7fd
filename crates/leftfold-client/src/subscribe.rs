//! Subscriptions that resume over any number of connections.
//!
//! **Owns:** the position at which a subscription resumes. **Does not know:** what a checkpoint means to its subscriber.
//! **Invariants:** a new connection continues right after the last delivery; if the server's log is shorter than what the
//! subscriber has received, the subscription ends with an error.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_proto::leftfold::v1 as wire;
use leftfold_store::{Delivery, ReadError, Subscription};
use tonic::Streaming;

use crate::{
    backoff::Backoff,
    call::{CallError, ConnectionPool},
    connection::StoreStub,
    decode, encode,
    status::{self, StatusKind},
};

/// Subscribes to the server's log.
pub(crate) fn subscribe(
    pool: Arc<ConnectionPool>,
    subscription: Subscription,
) -> BoxStream<'static, Result<Delivery, ReadError>> {
    let following = SubscriptionStream {
        backoff: Backoff::of(&pool.options),
        pool,
        subscription,
        has_delivered: false,
        incoming: None,
    };
    Box::pin(stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        let closed = following.pool.closed.clone();
        let next = tokio::select! {
            biased;
            () = closed.cancelled() => return None,
            next = following.next() => next,
        };
        let goes_on = next.is_ok();
        Some((next, goes_on.then_some(following)))
    }))
}

/// A subscription in progress.
struct SubscriptionStream {
    pool: Arc<ConnectionPool>,
    /// The request, with the checkpoint of the last delivery.
    subscription: Subscription,
    has_delivered: bool,
    incoming: Option<Streaming<wire::Delivery>>,
    backoff: Backoff,
}

impl SubscriptionStream {
    async fn next(&mut self) -> Result<Delivery, ReadError> {
        loop {
            let Some(incoming) = &mut self.incoming else {
                self.incoming = self.open().await?;
                continue;
            };
            let said = match incoming.message().await {
                Ok(Some(message)) => {
                    let delivery = decode::delivery(message).map_err(status::unreadable)?;
                    self.backoff.reset();
                    self.has_delivered = true;
                    self.subscription.after = delivery.through;
                    return Ok(delivery);
                }
                Ok(None) => StatusKind::ShuttingDown,
                Err(status) => StatusKind::of(status, &self.pool.address),
            };
            self.incoming = None;
            match said {
                StatusKind::Store(failure) => return Err(status::read_error(failure)),
                StatusKind::Rejected(cause) => return Err(ReadError::Unavailable { cause }),
                StatusKind::NoResponse(cause) => {
                    tracing::debug!(error = &*cause, "subscription goes on")
                }
                StatusKind::ShuttingDown => {
                    tracing::debug!("the server stops, subscription goes on")
                }
            }
            self.backoff.wait().await;
        }
    }

    /// Opens the call; `None` if no server answered in time, so that the caller retries. A subscriber waits anyway.
    async fn open(&mut self) -> Result<Option<Streaming<wire::Delivery>>, ReadError> {
        let request = encode::subscription(&self.subscription);
        let request = request.ok_or_else(|| ReadError::Invalid {
            reason: "this client cannot ask for that part of the log".into(),
        })?;
        if self.has_delivered {
            let head = self
                .pool
                .call_with_retry(|mut calls: StoreStub| async move {
                    calls.head(wire::HeadRequest {}).await
                });
            match head.await {
                Ok(answer) => self.check(answer.position)?,
                Err(unanswered) => return self.unanswered(unanswered),
            }
        }
        let ask = |mut calls: StoreStub| {
            let request = request.clone();
            async move { calls.subscribe(request).await }
        };
        match self.pool.call_with_retry(ask).await {
            Ok(incoming) => Ok(Some(incoming)),
            Err(unanswered) => self.unanswered(unanswered),
        }
    }

    fn check(&self, head: u64) -> Result<(), ReadError> {
        let (head, seen) = (leftfold_model::Position::new(head), self.subscription.after);
        if head < seen {
            return Err(status::log_went_back(head, seen));
        }
        Ok(())
    }

    fn unanswered<T>(&self, unanswered: CallError) -> Result<Option<T>, ReadError> {
        match unanswered {
            CallError::Timeout(cause) => {
                tracing::warn!(
                    address = self.pool.address,
                    error = &*cause,
                    "a subscription waits for its server"
                );
                Ok(None)
            }
            refused => Err(refused.into_read_error()),
        }
    }
}
