//! Watching and stopping a listener that runs.
//!
//! **Owns:** [`ListenerHandle`], and the figures that the running task publishes. **Does not know:** how events are handled.
//! **Invariants:** the published position never precedes the work it stands for; every change wakes all waiters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use leftfold_model::Position;
use leftfold_store::consumers::{ConsumerError, ConsumerName, ListParked, ParkedEvent, Resolution};
use tokio::sync::{Notify, watch};

use super::error::FollowError;
use crate::Store;

/// Interval between two looks at the outcome of a retry.
const RETRY_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The state of a listener.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ListenerState {
    /// It has no claim: another process holds the consumer, or the store is unreachable.
    Waiting {
        /// The reason, for people.
        reason: String,
    },
    /// It has the claim and handles events.
    Running,
    /// It was stopped.
    Stopped,
    /// It ended with an error.
    Failed(FollowError),
}

/// The status of a listener.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ListenerStatus {
    /// Its state.
    pub state: ListenerState,
    /// Everything up to here is handled or parked.
    pub position: Position,
    /// Number of positions of the log after it, including those of other types of events.
    pub lag: u64,
    /// Number of events handled since it was spawned.
    pub handled: u64,
    /// Number of failed attempts that were retried.
    pub retries: u64,
    /// Number of parked events.
    pub parked: u64,
}

/// The progress that the task publishes.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: watch::Sender<ListenerState>,
    pub(super) position: watch::Sender<Position>,
    pub(super) stopping: watch::Sender<bool>,
    /// Notified when this process requests something about a parked event.
    pub(super) resolved: Notify,
    handled: AtomicU64,
    retries: AtomicU64,
    parked: AtomicU64,
    consumer: &'static str,
}

impl Progress {
    pub(super) fn new(consumer: &'static str) -> Self {
        let reason = "not claimed yet".to_owned();
        Self {
            state: watch::Sender::new(ListenerState::Waiting { reason }),
            position: watch::Sender::new(Position::START),
            stopping: watch::Sender::new(false),
            resolved: Notify::new(),
            handled: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            consumer,
        }
    }

    pub(super) fn handled(&self, events: u64) {
        if events == 0 {
            return;
        }
        self.handled.fetch_add(events, Ordering::Relaxed);
        metrics::counter!("leftfold_listener_events_total", "consumer" => self.consumer)
            .increment(events);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("leftfold_listener_retries_total", "consumer" => self.consumer)
            .increment(1);
    }

    pub(super) fn parked(&self, events: usize) {
        self.parked.store(events as u64, Ordering::Relaxed);
        metrics::gauge!("leftfold_listener_parked", "consumer" => self.consumer)
            .set(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
    }

    pub(super) fn reached(&self, position: Position) {
        self.position.send_if_modified(|reached| {
            let moved = *reached != position;
            *reached = position;
            moved
        });
    }

    /// Resolves when the listener is to stop.
    pub(super) async fn stopped(&self) {
        // The sender is here, so the wait cannot fail.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }
}

/// A running listener. Dropping the handle stops the listener as [`Self::stop`] does, without waiting.
#[derive(Debug)]
#[must_use = "a listener stops when its handle is dropped"]
pub struct ListenerHandle {
    pub(super) store: Store,
    pub(super) consumer: Result<ConsumerName, ConsumerError>,
    pub(super) progress: Arc<Progress>,
}

impl Drop for ListenerHandle {
    fn drop(&mut self) {
        self.progress.stopping.send_replace(true);
    }
}

impl ListenerHandle {
    /// Waits until everything up to `position` is handled or parked: pass [`Committed::position`](crate::Committed) to
    /// see your own events handled. Of a stopped listener, returns `Ok` only if it got there.
    ///
    /// # Errors
    /// [`FollowError`] if the listener ended before; [`FollowError::Closed`] if it was stopped.
    pub async fn wait_for(&self, position: Position) -> Result<(), FollowError> {
        let mut positions = self.progress.position.subscribe();
        tokio::select! {
            biased;
            _ = positions.wait_for(|reached| *reached >= position) => Ok(()),
            ended = self.ended() => Err(ended.unwrap_or_else(|| self.closed())),
        }
    }

    /// Waits until the listener has the claim of its consumer. A start of [`Start::Now`](crate::Start::Now) is fixed then.
    ///
    /// # Errors
    /// [`FollowError`] if it ended.
    pub async fn started(&self) -> Result<(), FollowError> {
        let mut states = self.progress.state.subscribe();
        tokio::select! {
            biased;
            _ = states.wait_for(|state| matches!(state, ListenerState::Running)) => Ok(()),
            ended = self.ended() => Err(ended.unwrap_or_else(|| self.closed())),
        }
    }

    /// Waits until the listener ends; `None` if it was stopped.
    pub async fn ended(&self) -> Option<FollowError> {
        let mut states = self.progress.state.subscribe();
        let ended = |state: &ListenerState| {
            matches!(state, ListenerState::Stopped | ListenerState::Failed(_))
        };
        match states.wait_for(ended).await.as_deref() {
            Ok(ListenerState::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// Returns the listener's state, position, lag and counts.
    ///
    /// # Errors
    /// [`leftfold_store::ReadError`]: the head of the log, which the lag is measured against, is not known.
    pub async fn status(&self) -> Result<ListenerStatus, leftfold_store::ReadError> {
        let head = self.store.event_store().head().await?;
        let position = *self.progress.position.borrow();
        Ok(ListenerStatus {
            state: self.progress.state.borrow().clone(),
            position,
            lag: head.get().saturating_sub(position.get()),
            handled: self.progress.handled.load(Ordering::Relaxed),
            retries: self.progress.retries.load(Ordering::Relaxed),
            parked: self.progress.parked.load(Ordering::Relaxed),
        })
    }

    /// Returns the parked events after `after`, oldest first, at most 1,000.
    ///
    /// # Errors
    /// [`ConsumerError`].
    pub async fn parked(&self, after: Position) -> Result<Vec<ParkedEvent>, ConsumerError> {
        let list = ListParked {
            after,
            ..ListParked::default()
        };
        let consumers = self.store.event_store().consumers();
        consumers.parked(&self.consumer.clone()?, &list).await
    }

    /// Requests that the events of a parked event's key are handled again, in order, from the first parked one. Returns at
    /// once; [`Self::retry_and_wait`] waits for the outcome.
    ///
    /// # Errors
    /// [`ConsumerError::NotParked`] and others.
    pub async fn retry(&self, position: Position) -> Result<(), ConsumerError> {
        self.resolve(position, Resolution::Retry).await
    }

    /// Requests what [`Self::retry`] does, and waits until all parked events of the key are handled: `None`. Returns the first
    /// event that failed again. If the future is dropped, the request stays.
    ///
    /// Looks ten times a second, so that it also sees what another process handles. As long as no process runs the listener, it
    /// waits.
    ///
    /// # Errors
    /// [`FollowError::Consumer`] with [`ConsumerError::NotParked`] and others; the listener's own if it ended.
    pub async fn retry_and_wait(
        &self,
        position: Position,
    ) -> Result<Option<ParkedEvent>, FollowError> {
        let before = self.parked_at(position).await?;
        self.retry(position).await?;
        let Some(before) = before else {
            return Ok(None);
        };
        loop {
            match self.first_parked_of(&before.key).await? {
                None => return Ok(None),
                Some(first) if first.attempts > 0 && first.time > before.time => {
                    return Ok(Some(first));
                }
                Some(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY_POLL_INTERVAL) => {}
                ended = self.ended() => return Err(ended.unwrap_or_else(|| self.closed())),
            }
        }
    }

    /// Requests that a parked event is skipped permanently, and that the later ones of its key are handled.
    ///
    /// # Errors
    /// [`ConsumerError::NotParked`] and others.
    pub async fn skip(&self, position: Position) -> Result<(), ConsumerError> {
        self.resolve(position, Resolution::Skip).await
    }

    /// Finishes handlers in flight, writes the checkpoint, releases the claim, and ends.
    ///
    /// # Errors
    /// [`FollowError`] if the listener ended by itself.
    pub async fn stop(self) -> Result<(), FollowError> {
        self.progress.stopping.send_replace(true);
        self.ended().await.map_or(Ok(()), Err)
    }

    async fn parked_at(&self, position: Position) -> Result<Option<ParkedEvent>, ConsumerError> {
        let mut parked = self.parked(position.previous()).await?.into_iter();
        Ok(parked.next().filter(|event| event.position == position))
    }

    async fn first_parked_of(&self, key: &str) -> Result<Option<ParkedEvent>, ConsumerError> {
        let mut after = Position::START;
        loop {
            let parked = self.parked(after).await?;
            let Some(last) = parked.last() else {
                return Ok(None);
            };
            after = last.position;
            if let Some(first) = parked.into_iter().find(|event| event.key == key) {
                return Ok(Some(first));
            }
        }
    }

    async fn resolve(
        &self,
        position: Position,
        resolution: Resolution,
    ) -> Result<(), ConsumerError> {
        let consumers = self.store.event_store().consumers();
        let consumer = self.consumer.clone()?;
        consumers.resolve(&consumer, position, resolution).await?;
        self.progress.resolved.notify_one();
        Ok(())
    }

    fn closed(&self) -> FollowError {
        FollowError::Closed {
            consumer: self.progress.consumer.to_owned(),
        }
    }
}
