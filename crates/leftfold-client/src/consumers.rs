//! Consumers on the server.
//!
//! **Owns:** [`RemoteConsumers`]: the calls about them, and their messages. **Does not know:** claims and terms.
//! **Invariants:** arguments are checked before anything is sent; each call may be repeated, so one that is not answered is.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use leftfold_model::{Position, Timestamp};
use leftfold_proto::leftfold::v1::{self as wire, consumer_change::Kind};
use leftfold_store::consumers::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, Consumers,
    ListParked, ParkedEvent, Resolution, Timer, check_ttl,
};
use tonic::{Response, Status};

use crate::{
    RpcError,
    call::{CallError, ConnectionPool},
    connection::StoreStub,
    status,
};

/// The consumers of the server's store.
pub(crate) struct RemoteConsumers(pub(crate) Arc<ConnectionPool>);

impl fmt::Debug for RemoteConsumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteConsumers")
            .field(&self.0.address)
            .finish()
    }
}

impl RemoteConsumers {
    /// Repeats a call until the server answers.
    async fn call<T, F>(&self, call: impl Fn(StoreStub) -> F) -> Result<T, ConsumerError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = self.0.call_with_retry(call).await;
        answer.map_err(|error| match error {
            CallError::Store(failure) => status::consumer_error(failure),
            CallError::Rejected(cause) | CallError::Timeout(cause) => {
                ConsumerError::Unavailable { cause }
            }
        })
    }

    async fn advanced(
        &self,
        claim: &Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> Result<(), ConsumerError> {
        ConsumerChange::check_all(&changes)?;
        claim.check_advance(claim.position, to)?;
        let request = wire::AdvanceConsumerRequest {
            claim: Some(encode_claim(claim)),
            to: to.get(),
            changes: changes.into_iter().map(encode_change).collect(),
        };
        let ask = |mut calls: StoreStub| {
            let request = request.clone();
            async move { calls.advance_consumer(request).await }
        };
        self.call(ask).await.map(drop)
    }
}

impl Consumers for RemoteConsumers {
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        Box::pin(async move {
            request.check()?;
            let ask = |mut calls: StoreStub| async move {
                let request = wire::ClaimConsumerRequest {
                    consumer: request.consumer.to_string(),
                    holder: request.holder.clone(),
                    ttl: micros(request.ttl),
                    start: request.start.get(),
                };
                calls.claim_consumer(request).await
            };
            let claim = self.call(ask).await?.claim;
            let claim = claim.ok_or_else(|| not_understood("an answer without a claim"))?;
            Ok(Claim {
                consumer: ConsumerName::new(claim.consumer)?,
                holder: claim.holder,
                term: claim.term,
                position: Position::new(claim.position),
            })
        })
    }

    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            check_ttl(ttl)?;
            let ask = |mut calls: StoreStub| async move {
                let claim = Some(encode_claim(claim));
                let ttl = micros(ttl);
                calls
                    .renew_claim(wire::RenewClaimRequest { claim, ttl })
                    .await
            };
            self.call(ask).await.map(drop)
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let claim = Some(encode_claim(claim));
                calls
                    .release_claim(wire::ReleaseClaimRequest { claim })
                    .await
            };
            self.call(ask).await.map(drop)
        })
    }

    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            self.advanced(claim, to, changes).await?;
            claim.position = to;
            Ok(())
        })
    }

    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let request = wire::DueTimersRequest {
                    consumer: consumer.to_string(),
                    now: now.as_micros(),
                    limit: limit as u64,
                };
                calls.due_timers(request).await
            };
            let timers = self.call(ask).await?.timers.into_iter();
            Ok(timers.map(decode_timer).collect())
        })
    }

    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let request = wire::ListParkedRequest {
                    consumer: consumer.to_string(),
                    after: list.after.get(),
                    key: list.key.clone(),
                    resolved: list.resolved,
                    limit: list.limit as u64,
                };
                calls.list_parked(request).await
            };
            let events = self.call(ask).await?.events.into_iter();
            Ok(events.map(decode_parked).collect())
        })
    }

    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        let resolution = match resolution {
            Resolution::Retry => wire::Resolution::Retry,
            Resolution::Skip => wire::Resolution::Skip,
        };
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let request = wire::ResolveParkedRequest {
                    consumer: consumer.to_string(),
                    position: position.get(),
                    resolution: resolution.into(),
                };
                calls.resolve_parked(request).await
            };
            self.call(ask).await.map(drop)
        })
    }

    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let consumer = consumer.to_string();
                calls
                    .get_consumer(wire::GetConsumerRequest { consumer })
                    .await
            };
            self.call(ask).await?.status.map(decode_status).transpose()
        })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let after = after.map(ToString::to_string);
                calls
                    .list_consumers(wire::ListConsumersRequest { after })
                    .await
            };
            let listed = self.call(ask).await?.consumers.into_iter();
            listed.map(decode_status).collect()
        })
    }

    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let (consumer, to) = (consumer.to_string(), to.get());
                calls
                    .reset_consumer(wire::ResetConsumerRequest { consumer, to })
                    .await
            };
            self.call(ask).await.map(drop)
        })
    }

    fn remove<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| async move {
                let consumer = consumer.to_string();
                calls
                    .remove_consumer(wire::RemoveConsumerRequest { consumer })
                    .await
            };
            self.call(ask).await.map(drop)
        })
    }
}

fn not_understood(what: &str) -> ConsumerError {
    ConsumerError::Unavailable {
        cause: RpcError::not_understood(what).cause(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn encode_claim(claim: &Claim) -> wire::Claim {
    wire::Claim {
        consumer: claim.consumer.to_string(),
        holder: claim.holder.clone(),
        term: claim.term,
        position: claim.position.get(),
    }
}

fn encode_change(change: ConsumerChange) -> wire::ConsumerChange {
    let kind = match change {
        ConsumerChange::Park(event) => Kind::Park(wire::ParkedEvent {
            position: event.position.get(),
            key: event.key,
            reason: event.reason,
            attempts: event.attempts,
            time: event.time.as_micros(),
            resolution: wire::Resolution::Unspecified.into(),
        }),
        ConsumerChange::Unpark(position) => Kind::Unpark(position.get()),
        ConsumerChange::SetTimer(timer) => Kind::SetTimer(wire::Timer {
            id: timer.id,
            due: timer.due.as_micros(),
            data: timer.data,
        }),
        ConsumerChange::CancelTimer(id) => Kind::CancelTimer(id),
    };
    wire::ConsumerChange { kind: Some(kind) }
}

fn decode_timer(timer: wire::Timer) -> Timer {
    Timer {
        id: timer.id,
        due: Timestamp::from_micros(timer.due),
        data: timer.data,
    }
}

fn decode_parked(event: wire::ParkedEvent) -> ParkedEvent {
    let resolution = match event.resolution() {
        wire::Resolution::Unspecified => None,
        wire::Resolution::Retry => Some(Resolution::Retry),
        wire::Resolution::Skip => Some(Resolution::Skip),
    };
    ParkedEvent {
        position: Position::new(event.position),
        key: event.key,
        reason: event.reason,
        attempts: event.attempts,
        time: Timestamp::from_micros(event.time),
        resolution,
    }
}

fn decode_status(status: wire::ConsumerStatus) -> Result<ConsumerStatus, ConsumerError> {
    let remaining = Duration::from_micros(status.remaining);
    Ok(ConsumerStatus {
        consumer: ConsumerName::new(status.consumer)?,
        position: Position::new(status.position),
        term: status.term,
        holder: status.holder.map(|holder| (holder, remaining)),
        parked: status.parked,
        timers: status.timers,
        time: Timestamp::from_micros(status.time),
    })
}
