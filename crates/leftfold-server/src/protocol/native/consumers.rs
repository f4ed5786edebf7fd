//! Consumers over this protocol.
//!
//! **Owns:** the calls about consumers, from messages to the store's values and back. **Does not know:** claims and terms.
//! **Invariants:** whatever a stranger sends becomes a valid value or a refusal that names what is wrong; an answer holds a
//! bounded number of bytes; each call may be repeated, so one that its client no longer waits for may be dropped.

use std::{sync::Arc, time::Duration};

use leftfold_model::{Position, Timestamp};
use leftfold_proto::leftfold::v1::{self as wire, consumer_change::Kind};
use leftfold_store::consumers::{
    Claim, ClaimRequest, ConsumerChange, ConsumerName, ConsumerStatus, Consumers, ListParked,
    ParkedEvent, Resolution, Timer,
};
use tonic::Response;

use super::{
    answer::{Answer, within_timeout},
    encode,
    status::ErrorResponse,
};
use crate::state::ServerState;

/// Timers of one answer: with the largest data, 4 MiB.
const DUE_TIMERS_MAX: usize = 64;

type Decoded<T> = Result<T, ErrorResponse>;

pub(super) async fn claim(
    shared: &ServerState,
    request: wire::ClaimConsumerRequest,
) -> Answer<wire::ClaimConsumerResponse> {
    let ttl = Duration::from_micros(request.ttl);
    let request = ClaimRequest::new(name(&request.consumer)?, request.holder, ttl)
        .start(Position::new(request.start));
    let claim = within_timeout(shared, consumers(shared).claim(&request)).await?;
    Ok(Response::new(wire::ClaimConsumerResponse {
        claim: Some(wire::Claim {
            consumer: claim.consumer.to_string(),
            holder: claim.holder,
            term: claim.term,
            position: claim.position.get(),
        }),
    }))
}

pub(super) async fn renew(
    shared: &ServerState,
    request: wire::RenewClaimRequest,
) -> Answer<wire::RenewClaimResponse> {
    let claim = decode_claim(request.claim)?;
    let ttl = Duration::from_micros(request.ttl);
    within_timeout(shared, consumers(shared).renew(&claim, ttl)).await?;
    Ok(Response::new(wire::RenewClaimResponse {}))
}

pub(super) async fn release(
    shared: &ServerState,
    request: wire::ReleaseClaimRequest,
) -> Answer<wire::ReleaseClaimResponse> {
    let claim = decode_claim(request.claim)?;
    within_timeout(shared, consumers(shared).release(&claim)).await?;
    Ok(Response::new(wire::ReleaseClaimResponse {}))
}

pub(super) async fn advance(
    shared: &ServerState,
    request: wire::AdvanceConsumerRequest,
) -> Answer<wire::AdvanceConsumerResponse> {
    let mut claim = decode_claim(request.claim)?;
    let to = Position::new(request.to);
    let changes = request.changes.into_iter().map(decode_change);
    let changes = changes.collect::<Decoded<Vec<_>>>()?;
    let consumers = consumers(shared);
    within_timeout(shared, consumers.advance(&mut claim, to, changes)).await?;
    Ok(Response::new(wire::AdvanceConsumerResponse {}))
}

pub(super) async fn due_timers(
    shared: &ServerState,
    request: wire::DueTimersRequest,
) -> Answer<wire::DueTimersResponse> {
    let (consumer, now) = (
        name(&request.consumer)?,
        Timestamp::from_micros(request.now),
    );
    let limit = limit(request.limit).min(DUE_TIMERS_MAX);
    let due = consumers(shared);
    let timers = within_timeout(shared, due.due_timers(&consumer, now, limit)).await?;
    Ok(Response::new(wire::DueTimersResponse {
        timers: timers.into_iter().map(encode_timer).collect(),
    }))
}

pub(super) async fn list_parked(
    shared: &ServerState,
    request: wire::ListParkedRequest,
) -> Answer<wire::ListParkedResponse> {
    let consumer = name(&request.consumer)?;
    let list = ListParked {
        after: Position::new(request.after),
        key: request.key,
        resolved: request.resolved,
        limit: limit(request.limit),
    };
    let parked = consumers(shared);
    let events = within_timeout(shared, parked.parked(&consumer, &list)).await?;
    Ok(Response::new(wire::ListParkedResponse {
        events: events.into_iter().map(encode_parked).collect(),
    }))
}

pub(super) async fn resolve(
    shared: &ServerState,
    request: wire::ResolveParkedRequest,
) -> Answer<wire::ResolveParkedResponse> {
    let consumer = name(&request.consumer)?;
    let position = Position::new(request.position);
    let resolution = decode_resolution(request.resolution)?;
    let resolution = resolution
        .ok_or_else(|| ErrorResponse::invalid("resolution is missing; expected 1 or 2"))?;
    let consumers = consumers(shared);
    within_timeout(shared, consumers.resolve(&consumer, position, resolution)).await?;
    Ok(Response::new(wire::ResolveParkedResponse {}))
}

pub(super) async fn get(
    shared: &ServerState,
    request: wire::GetConsumerRequest,
) -> Answer<wire::GetConsumerResponse> {
    let consumer = name(&request.consumer)?;
    let status = within_timeout(shared, consumers(shared).status(&consumer)).await?;
    Ok(Response::new(wire::GetConsumerResponse {
        status: status.map(encode_status),
    }))
}

pub(super) async fn list(
    shared: &ServerState,
    request: wire::ListConsumersRequest,
) -> Answer<wire::ListConsumersResponse> {
    let after = request.after.as_deref().map(name).transpose()?;
    let listed = within_timeout(shared, consumers(shared).list(after.as_ref())).await?;
    Ok(Response::new(wire::ListConsumersResponse {
        consumers: listed.into_iter().map(encode_status).collect(),
    }))
}

pub(super) async fn reset(
    shared: &ServerState,
    request: wire::ResetConsumerRequest,
) -> Answer<wire::ResetConsumerResponse> {
    let (consumer, to) = (name(&request.consumer)?, Position::new(request.to));
    within_timeout(shared, consumers(shared).reset(&consumer, to)).await?;
    Ok(Response::new(wire::ResetConsumerResponse {}))
}

pub(super) async fn remove(
    shared: &ServerState,
    request: wire::RemoveConsumerRequest,
) -> Answer<wire::RemoveConsumerResponse> {
    let consumer = name(&request.consumer)?;
    within_timeout(shared, consumers(shared).remove(&consumer)).await?;
    Ok(Response::new(wire::RemoveConsumerResponse {}))
}

fn consumers(shared: &ServerState) -> Arc<dyn Consumers> {
    shared.store().consumers()
}

fn name(text: &str) -> Decoded<ConsumerName> {
    ConsumerName::new(text).map_err(|error| ErrorResponse::invalid(error.to_string()))
}

fn limit(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn decode_claim(claim: Option<wire::Claim>) -> Decoded<Claim> {
    let claim = claim.ok_or_else(|| ErrorResponse::invalid("claim is missing"))?;
    Ok(Claim {
        consumer: name(&claim.consumer)?,
        holder: claim.holder,
        term: claim.term,
        position: Position::new(claim.position),
    })
}

fn decode_change(change: wire::ConsumerChange) -> Decoded<ConsumerChange> {
    Ok(match change.kind {
        Some(Kind::Park(event)) => ConsumerChange::Park(ParkedEvent {
            position: Position::new(event.position),
            key: event.key,
            reason: event.reason,
            attempts: event.attempts,
            time: Timestamp::from_micros(event.time),
            resolution: None,
        }),
        Some(Kind::Unpark(position)) => ConsumerChange::Unpark(Position::new(position)),
        Some(Kind::SetTimer(timer)) => ConsumerChange::SetTimer(Timer {
            id: timer.id,
            due: Timestamp::from_micros(timer.due),
            data: timer.data,
        }),
        Some(Kind::CancelTimer(id)) => ConsumerChange::CancelTimer(id),
        None => return Err(ErrorResponse::invalid("a change of a consumer has no kind")),
    })
}

fn decode_resolution(code: i32) -> Decoded<Option<Resolution>> {
    match wire::Resolution::try_from(code) {
        Ok(wire::Resolution::Unspecified) => Ok(None),
        Ok(wire::Resolution::Retry) => Ok(Some(Resolution::Retry)),
        Ok(wire::Resolution::Skip) => Ok(Some(Resolution::Skip)),
        Err(_) => Err(ErrorResponse::invalid(format!(
            "resolution is not valid: {code}; expected 1 or 2"
        ))),
    }
}

fn encode_timer(timer: Timer) -> wire::Timer {
    wire::Timer {
        id: timer.id,
        due: timer.due.as_micros(),
        data: timer.data,
    }
}

fn encode_parked(event: ParkedEvent) -> wire::ParkedEvent {
    let resolution = match event.resolution {
        None => wire::Resolution::Unspecified,
        Some(Resolution::Retry) => wire::Resolution::Retry,
        Some(Resolution::Skip) => wire::Resolution::Skip,
    };
    wire::ParkedEvent {
        position: event.position.get(),
        key: event.key,
        reason: event.reason,
        attempts: event.attempts,
        time: event.time.as_micros(),
        resolution: resolution.into(),
    }
}

fn encode_status(status: ConsumerStatus) -> wire::ConsumerStatus {
    let (holder, remaining) = status.holder.unzip();
    wire::ConsumerStatus {
        consumer: status.consumer.to_string(),
        position: status.position.get(),
        term: status.term,
        holder,
        remaining: remaining.map_or(0, encode::micros),
        parked: status.parked,
        timers: status.timers,
        time: status.time.as_micros(),
    }
}
