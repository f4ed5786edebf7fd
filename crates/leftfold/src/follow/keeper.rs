//! Renewing a claim while a listener runs.
//!
//! **Owns:** [`ClaimKeeper`]: when a claim is renewed, and when it counts as lost. **Does not know:** what happens under it.
//! **Invariants:** it runs in a task of its own, so that no handler delays a renewal for as long as the runtime has a thread;
//! a claim that was not renewed before it expired is lost.

use std::{sync::Arc, time::Duration};

use leftfold_store::consumers::{Claim, ConsumerError, Consumers};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};

/// The task that renews a claim, and ends with it.
#[derive(Debug)]
pub(super) struct ClaimKeeper {
    task: JoinHandle<ConsumerError>,
}

impl ClaimKeeper {
    /// Starts renewing a claim; `deadline` is when it expires by this process's own clock.
    pub(super) fn spawn(
        consumers: Arc<dyn Consumers>,
        claim: Claim,
        lease: Duration,
        deadline: watch::Sender<Instant>,
    ) -> Self {
        let task = tokio::spawn(keep(consumers, claim, lease, deadline));
        Self { task }
    }

    /// Waits until the claim is lost, and returns why.
    pub(super) async fn lost(&mut self) -> ConsumerError {
        let ended = (&mut self.task).await;
        ended.unwrap_or_else(|panicked| ConsumerError::Unavailable {
            cause: Arc::new(panicked),
        })
    }
}

impl Drop for ClaimKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews a claim until that fails permanently or for too long.
async fn keep(
    consumers: Arc<dyn Consumers>,
    claim: Claim,
    lease: Duration,
    deadline: watch::Sender<Instant>,
) -> ConsumerError {
    let mut pause = lease / 3;
    loop {
        time::sleep(pause).await;
        let asked = Instant::now();
        let until = *deadline.borrow();
        let renewed = time::timeout_at(
            until.max(asked + lease / 10),
            consumers.renew(&claim, lease),
        );
        match renewed.await {
            Ok(Ok(())) => {
                pause = lease / 3;
                deadline.send_replace(asked + lease);
            }
            Ok(Err(error @ ConsumerError::Unavailable { .. })) => {
                if Instant::now() >= until {
                    return error;
                }
                pause = lease / 20;
            }
            Ok(Err(error)) => return error,
            Err(elapsed) => {
                return ConsumerError::Unavailable {
                    cause: Arc::new(elapsed),
                };
            }
        }
    }
}
