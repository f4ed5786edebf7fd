//! The holders of consumers, in the memory of one process.
//!
//! **Owns:** [`Leases`]: holders and how long their claims last. **Does not know:** terms, checkpoints.
//! **Invariants:** the clock is monotonic, so that setting the system's clock neither ends nor prolongs a claim; all of it ends
//! with the process, and with it every claim the process granted.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{ClaimRequest, ConsumerError, ConsumerName};

/// Claims that last.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: HashMap<ConsumerName, Lease>,
}

#[derive(Debug)]
struct Lease {
    holder: String,
    until: Instant,
}

fn now() -> Instant {
    Instant::now()
}

impl Leases {
    /// Whether the holder of a request has the consumer already (then its term stays) or may take it.
    pub(super) fn is_held_by(&self, request: &ClaimRequest) -> Result<bool, ConsumerError> {
        match self.holder(&request.consumer) {
            None => Ok(false),
            Some((holder, _)) if holder == request.holder => Ok(true),
            Some((holder, remaining)) => Err(ConsumerError::Held {
                consumer: request.consumer.clone(),
                holder,
                remaining,
            }),
        }
    }

    /// The holder whose claim lasts, and for how long.
    pub(super) fn holder(&self, consumer: &ConsumerName) -> Option<(String, Duration)> {
        let lease = self.held.get(consumer)?;
        let remaining = lease.until.checked_duration_since(now())?;
        (!remaining.is_zero()).then(|| (lease.holder.clone(), remaining))
    }

    /// Lets the claim of a holder last for so long from now.
    pub(super) fn hold(&mut self, consumer: &ConsumerName, holder: &str, ttl: Duration) {
        let lease = Lease {
            holder: holder.to_owned(),
            until: now() + ttl,
        };
        self.held.insert(consumer.clone(), lease);
    }

    /// Ends the claim on a consumer, if there is one.
    pub(super) fn end(&mut self, consumer: &ConsumerName) {
        self.held.remove(consumer);
    }
}
