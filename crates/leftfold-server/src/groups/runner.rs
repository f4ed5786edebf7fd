//! Whether this server may act for a group.
//!
//! **Owns:** [`run`]: the claim, and what is known before the first event. **Does not know:** what a running group does.
//! **Invariants:** a group whose claim another server renews is not taken from it; consumers that wait for a group that does
//! not start get the reason.

use std::{sync::Arc, time::Duration};

use leftfold_model::Position;
use leftfold_store::consumers::{Claim, ClaimRequest, ConsumerError, ConsumerStatus, ListParked};
use tokio::time::sleep;

use super::{
    error::GroupError,
    group_run::GroupRun,
    holder::Owner,
    progress::CLAIM_TTL,
    registry::GroupRegistry,
    running::Running,
    source::{self, Selection},
};

/// A claim that lasts longer than this was renewed lately: its holder is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(6);
/// How often a claim is asked for again that is about to run out.
const CLAIM_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Runs a group until no consumer needs it or it cannot go on.
pub(super) async fn run(group: GroupRun) {
    let started = async {
        let memory = group.registry.memory.begin();
        let origin = source::origin(&*group.store, &group.definition.id.source).await?;
        let selection = Selection::of(&group.definition, &origin, memory).await?;
        let claim = claim(&group).await?;
        let parked = parked_behind(&group, claim.position).await?;
        Ok((Arc::new(selection), claim, parked))
    };
    match started.await {
        Ok((selection, claim, parked)) => {
            Running::new(group, (selection, claim), parked).run().await;
        }
        Err(error) => group.refuse(&error).await,
    }
}

/// Claims the consumer of the group, unless its holder is there.
async fn claim(group: &GroupRun) -> Result<Claim, GroupError> {
    let identity = &group.registry.identity;
    // The log may have been imported since, and be shorter.
    let begin = group.definition.begin.min(group.store.head().await?);
    let holder = identity.holder(group.serial);
    let request = ClaimRequest::new(group.consumer.clone(), holder, CLAIM_TTL).start(begin);
    let consumers = group.store.consumers();
    let mut before = Duration::MAX;
    loop {
        let (holder, remaining) = match consumers.claim(&request).await {
            Ok(claim) => return Ok(claim),
            Err(ConsumerError::Held {
                holder, remaining, ..
            }) => (holder, remaining),
            Err(error) => return Err(error.into()),
        };
        let group_id = || group.definition.id.clone();
        match identity.owner(&holder) {
            Owner::Other(owner) if remaining > ALIVE_WITHIN => {
                return Err(GroupError::OwnedElsewhere {
                    group: group_id(),
                    owner: owner.to_owned(),
                });
            }
            // What this server left behind when it was killed is not renewed.
            Owner::SameAddress(owner) if remaining > before => {
                return Err(GroupError::OwnerIndistinct {
                    group: group_id(),
                    owner: owner.to_owned(),
                });
            }
            _ => before = remaining,
        }
        tokio::select! {
            () = group.registry.stopping.cancelled() => return Err(GroupError::Stopping),
            () = sleep(remaining.min(CLAIM_AGAIN_AFTER)) => {}
        }
    }
}

/// Returns where the server is that acts for a group, if that is another one which renewed its claim lately.
pub(super) fn owner_elsewhere(
    registry: &GroupRegistry,
    status: Option<&ConsumerStatus>,
) -> Option<String> {
    let (holder, remaining) = status?.holder.as_ref()?;
    match registry.identity.owner(holder) {
        Owner::Other(owner) if *remaining > ALIVE_WITHIN => Some(owner.to_owned()),
        _ => None,
    }
}

/// The positions behind the checkpoint that are parked already.
async fn parked_behind(
    group: &GroupRun,
    checkpoint: Position,
) -> Result<Vec<Position>, GroupError> {
    let mut list = ListParked {
        after: checkpoint,
        ..ListParked::default()
    };
    let consumers = group.store.consumers();
    let mut found = Vec::new();
    loop {
        let page = consumers.parked(&group.consumer, &list).await?;
        let Some(last) = page.last() else {
            return Ok(found);
        };
        list.after = last.position;
        found.extend(page.iter().map(|event| event.position));
    }
}
