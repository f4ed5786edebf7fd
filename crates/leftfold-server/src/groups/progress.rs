//! The calls by which a running group writes down how far it is.
//!
//! **Owns:** [`saving`], [`renewal`], [`looking`]. **Does not know:** when they are due.
//! **Invariants:** a call gives the claim back, whatever came of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use futures_util::FutureExt;
use leftfold_model::{Position, Timestamp};
use leftfold_store::{
    EventStore,
    consumers::{Claim, ConsumerChange, ConsumerError, ListParked, Resolution},
};

use super::{GroupError, message::Message, queue::Progress, source::Selection};
use crate::clock;

/// How long a claim lasts unless it is renewed.
pub(super) const CLAIM_TTL: Duration = Duration::from_secs(10);

/// What a call came to.
#[derive(Debug)]
pub(super) enum CallOutcome {
    Saved(Result<(), ConsumerError>, Vec<ConsumerChange>),
    Renewed(Result<(), ConsumerError>),
    Parked(Result<Vec<Requested>, GroupError>),
}

/// What an operator wants done with a parked event.
#[derive(Debug)]
pub(super) enum Requested {
    Replay(Box<Message>),
    Unpark(Position),
}

/// A call under way.
pub(super) type Call = BoxFuture<'static, (Claim, CallOutcome)>;

/// The time of day, as stores keep it.
pub(super) fn time_now() -> Timestamp {
    let since = clock::now().duration_since(std::time::UNIX_EPOCH);
    let micros = since.unwrap_or_default().as_micros();
    Timestamp::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// Prolongs the claim.
pub(super) fn renewal(store: Arc<dyn EventStore>, claim: Claim) -> Call {
    async move {
        let renewed = store.consumers().renew(&claim, CLAIM_TTL).await;
        (claim, CallOutcome::Renewed(renewed))
    }
    .boxed()
}

/// Moves the checkpoint, and parks and unparks events with it.
pub(super) fn saving(store: Arc<dyn EventStore>, mut claim: Claim, progress: Progress) -> Call {
    async move {
        let Progress {
            checkpoint,
            changes,
        } = progress;
        let saved = store.consumers();
        let saved = saved.advance(&mut claim, checkpoint, changes.clone()).await;
        (claim, CallOutcome::Saved(saved, changes))
    }
    .boxed()
}

/// Looks for requests about parked events: the first `limit` of those that are not known.
pub(super) fn looking(
    store: Arc<dyn EventStore>,
    claim: Claim,
    (selection, known): (Arc<Selection>, BTreeSet<Position>),
    limit: usize,
) -> Call {
    async move {
        let list = ListParked {
            resolved: true,
            limit: limit + known.len(),
            ..ListParked::default()
        };
        let found = async {
            let mut requested = Vec::new();
            for event in store.consumers().parked(&claim.consumer, &list).await? {
                let at = event.position;
                if known.contains(&at) || requested.len() == limit {
                    continue;
                }
                let replayed = match event.resolution {
                    Some(Resolution::Retry) => selection.at(&*store, at).await?,
                    Some(Resolution::Skip) | None => None,
                };
                requested.push(match replayed {
                    Some(message) => Requested::Replay(Box::new(message)),
                    None => Requested::Unpark(at),
                });
            }
            Ok(requested)
        };
        let found = found.await;
        (claim, CallOutcome::Parked(found))
    }
    .boxed()
}
