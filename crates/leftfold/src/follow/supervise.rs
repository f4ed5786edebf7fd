//! The task of a listener: claiming its consumer, running under the claim, restarting after errors.
//!
//! **Owns:** waiting for the claim, restarts and their backoff, ending.
//! **Does not know:** how events are handled. **Invariants:** events are handled only under a claim that is valid by this
//! process's own clock; a claim that is not renewed in time stops every handler in flight.

use std::{sync::Arc, time::Duration};

use leftfold_model::Position;
use leftfold_store::consumers::{Claim, ClaimRequest, ConsumerError, ConsumerName, Consumers};
use tokio::{
    sync::{Semaphore, watch},
    time::{self, Instant},
};

use super::{
    attempt::Handler,
    dispatch::Dispatcher,
    error::FollowError,
    handle::{ListenerHandle, ListenerState, Progress},
    keeper::ClaimKeeper,
    listener::Listener,
    settings::{Backoff, Follow, Settings, Start},
    tasks::Tasks,
};
use crate::Store;

/// Pauses before a listener starts over.
const AGAIN: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(5),
    attempts: u32::MAX,
};

impl<L: Listener> Follow<L> {
    /// Runs the listener in a task of the current tokio runtime until it is stopped, its handle is dropped or it ends with
    /// an error. If another process has the consumer, it waits for its turn.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn spawn(self) -> ListenerHandle {
        let progress = Arc::new(Progress::new(L::NAME));
        let handle = ListenerHandle {
            store: self.store.clone(),
            consumer: ConsumerName::new(L::NAME).map_err(ConsumerError::from),
            progress: Arc::clone(&progress),
        };
        tokio::spawn(async move {
            let ended = match run(&self, &progress).await {
                Ok(()) => ListenerState::Stopped,
                Err(error) => {
                    tracing::error!(
                        consumer = L::NAME,
                        error = &error as &dyn std::error::Error,
                        "listener ended"
                    );
                    ListenerState::Failed(error)
                }
            };
            progress.state.send_replace(ended);
        });
        handle
    }
}

/// Runs the listener until it is stopped or cannot go on.
async fn run<L: Listener>(follow: &Follow<L>, progress: &Arc<Progress>) -> Result<(), FollowError> {
    let name = ConsumerName::new(L::NAME).map_err(ConsumerError::from)?;
    let consumers = follow.store.event_store().consumers();
    let handler = Arc::new(Handler {
        listener: Arc::clone(&follow.listener),
        settings: follow.settings.clone(),
        slots: Semaphore::new(follow.settings.parallel),
        progress: Arc::clone(progress),
        deadline: watch::Sender::new(Instant::now()),
    });
    let mut failures = 0;
    loop {
        let turn = async {
            let Some(claim) = claim(
                &follow.store,
                &name,
                &*consumers,
                &follow.settings,
                progress,
            )
            .await?
            else {
                return Ok(true);
            };
            failures = 0;
            let ended = under_claim(&follow.store, &handler, claim, &consumers).await;
            ended.map(|()| true)
        };
        match turn.await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() => {
                failures += 1;
                tracing::warn!(
                    consumer = L::NAME,
                    error = &error as &dyn std::error::Error,
                    "listener starts over"
                );
                let reason = error.to_string();
                progress
                    .state
                    .send_replace(ListenerState::Waiting { reason });
                tokio::select! {
                    () = time::sleep(AGAIN.pause(failures)) => {}
                    () = progress.stopped() => return Ok(()),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the claim; `None` if the listener was stopped meanwhile.
async fn claim(
    store: &Store,
    name: &ConsumerName,
    consumers: &dyn Consumers,
    settings: &Settings,
    progress: &Progress,
) -> Result<Option<(Claim, Instant)>, FollowError> {
    let start = match settings.start {
        Start::Beginning => Position::START,
        Start::After(position) => position,
        Start::Now => {
            store
                .event_store()
                .head()
                .await
                .map_err(|source| FollowError::CannotResume {
                    consumer: name.to_string(),
                    checkpoint: Position::START,
                    source,
                })?
        }
    };
    let request = ClaimRequest::new(name.clone(), &settings.holder, settings.lease).start(start);
    loop {
        if *progress.stopping.borrow() {
            return Ok(None);
        }
        let asked = Instant::now();
        match consumers.claim(&request).await {
            Ok(claim) => return Ok(Some((claim, asked + settings.lease))),
            Err(held @ ConsumerError::Held { .. }) => {
                let ConsumerError::Held { remaining, .. } = &held else {
                    continue;
                };
                // A holder that gives its claim back does not wait for the lease to run out.
                let pause = (*remaining)
                    .min(settings.lease / 4)
                    .max(Duration::from_millis(5));
                let reason = held.to_string();
                progress
                    .state
                    .send_replace(ListenerState::Waiting { reason });
                tokio::select! {
                    () = time::sleep(pause) => {}
                    () = progress.stopped() => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Handles events until the claim is lost, the listener is stopped, or it cannot go on.
async fn under_claim<L: Listener>(
    store: &Store,
    handler: &Arc<Handler<L>>,
    (claim, until): (Claim, Instant),
    consumers: &Arc<dyn Consumers>,
) -> Result<(), FollowError> {
    handler.deadline.send_replace(until);
    let keeper = ClaimKeeper::spawn(
        Arc::clone(consumers),
        claim.clone(),
        handler.settings.lease,
        handler.deadline.clone(),
    );
    let kept = claim.clone();
    let (tasks, ended_tasks) = Tasks::new();
    let mut dispatcher = Dispatcher::new(
        store.clone(),
        Arc::clone(handler),
        Arc::clone(consumers),
        claim,
        tasks,
    );
    let ended = dispatcher.run(keeper).await;
    if let Err(FollowError::Failed { .. } | FollowError::TooManyParked { .. }) = &ended
        && let Err(error) = dispatcher.checkpoint().await
    {
        // What is parked already has to be listed for operators; if that cannot be written, it fails again in the next run.
        tracing::warn!(consumer = L::NAME, %error, "last checkpoint was not written");
    }
    // Everything under way ends before the claim does.
    drop(dispatcher);
    ended_tasks.wait().await;
    if let Err(error) = consumers.release(&kept).await {
        tracing::debug!(%error, "claim was not given back; it runs out by itself");
    }
    ended
}
