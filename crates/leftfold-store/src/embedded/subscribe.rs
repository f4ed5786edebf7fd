//! A subscription of the embedded store.
//!
//! **Owns:** [`SubscriptionStream`]. **Does not know:** retention.
//! **Invariants:** no wake-up is lost, because it registers a listener before it polls; a poll that would wait for the disk
//! runs on the blocking pool.

use std::{pin::pin, time::Duration};

use futures_util::future;
use leftfold_log::{Delivery as LogDelivery, Follower, Log};
use tokio::{runtime::Handle, task};

use super::{blocking, rebuilding};
use crate::{Delivery, ReadError};

/// Maximum time that the checkpoint of a waiting subscription lags while events that it does not select are committed.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(500);

/// A follower of the log, and the runtime of its blocking reads.
pub(super) struct SubscriptionStream {
    pub(super) log: Log,
    pub(super) follower: Follower,
    pub(super) runtime: Handle,
}

impl SubscriptionStream {
    /// Waits for the next delivery; `None` if the log was closed.
    pub(super) async fn step(mut self) -> Result<Option<(Delivery, Self)>, ReadError> {
        loop {
            let wake = self.follower.listen_for_matches();
            let closed = self.follower.is_closed();
            if let Some(passed) = self.follower.skip_unmatched() {
                return Ok(Some((delivery(passed), self)));
            }
            if !self.follower.is_current() {
                task::coop::consume_budget().await;
                let delivered = match self.follower.try_next_nowait() {
                    Some(Ok(delivered)) => delivered,
                    Some(Err(_)) | None => {
                        let (log, mut follower) = (self.log.clone(), self.follower);
                        let look =
                            move || Ok((rebuilding(&log, || follower.try_next())?, follower));
                        let (delivered, follower) = blocking(self.runtime.clone(), look).await?;
                        self.follower = follower;
                        delivered
                    }
                };
                if let Some(delivered) = delivered {
                    return Ok(Some((delivery(delivered), self)));
                }
            }
            if closed {
                return Ok(None);
            }
            let pause = {
                // Polled by any runtime or none, but woken by the store's.
                let _timers = self.runtime.enter();
                tokio::time::sleep(CHECKPOINT_PAUSE)
            };
            future::select(wake, pin!(pause)).await;
        }
    }
}

fn delivery(delivered: LogDelivery) -> Delivery {
    Delivery {
        events: delivered.events,
        through: delivered.through,
        caught_up: delivered.caught_up,
    }
}
