//! Watching and stopping a projection that runs.
//!
//! **Owns:** [`ProjectionHandle`], and what the running task publishes. **Does not know:** how events are projected.
//! **Invariants:** what is published is what was committed; who waits is woken by every change.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use leftfold_model::Position;
use leftfold_store::consumers::ParkedEvent;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    error::ProjectionError,
    view::{ProjectionId, VersionStatus, View, ViewError},
};
use crate::Store;

/// What a projection does now.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ProjectionState {
    /// The view or the store is not reached; it is tried again. With the reason, for people.
    Waiting {
        /// Why.
        reason: String,
    },
    /// It builds its version from the log. Nothing is told to [`Projection::committed`](crate::Projection::committed).
    CatchingUp,
    /// It has caught up and follows the log.
    Running,
    /// It was stopped.
    Stopped,
    /// It ended by itself.
    Failed(ProjectionError),
}

/// How far a projection is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProjectionStatus {
    /// What it does now.
    pub state: ProjectionState,
    /// Everything up to here is in the view, or parked.
    pub position: Position,
    /// How many positions of the log are ahead of it, those of other types of events included.
    pub lag: u64,
    /// How many events were projected since it was spawned.
    pub projected: u64,
    /// How many attempts failed and were followed by another.
    pub retries: u64,
    /// How many events are parked.
    pub parked: u64,
}

/// What the task publishes.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) state: watch::Sender<ProjectionState>,
    pub(super) position: watch::Sender<Position>,
    pub(super) stopping: watch::Sender<bool>,
    pub(super) retry: Notify,
    /// Notified when the checkpoint was found to have moved backwards.
    pub(super) moved: Notify,
    /// Everything up to here is in the view, written with the appends themselves; 0 unless the projection is inline.
    inline: AtomicU64,
    projected: AtomicU64,
    retries: AtomicU64,
    parked: AtomicU64,
    of: ProjectionId,
}

impl Progress {
    pub(super) fn new(of: ProjectionId) -> Self {
        let reason = "not begun yet".to_owned();
        Self {
            state: watch::Sender::new(ProjectionState::Waiting { reason }),
            position: watch::Sender::new(Position::START),
            stopping: watch::Sender::new(false),
            retry: Notify::new(),
            moved: Notify::new(),
            inline: AtomicU64::new(0),
            projected: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            of,
        }
    }

    pub(super) fn projected(&self, events: u64) {
        self.projected.fetch_add(events, Ordering::Relaxed);
        metrics::counter!("leftfold_projection_events_total", "projection" => self.of.name)
            .increment(events);
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("leftfold_projection_retries_total", "projection" => self.of.name)
            .increment(1);
    }

    pub(super) fn parked(&self, events: usize) {
        self.parked.store(events as u64, Ordering::Relaxed);
        metrics::gauge!("leftfold_projection_parked", "projection" => self.of.name)
            .set(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
    }

    pub(super) fn reached(&self, position: Position) {
        self.position.send_if_modified(|reached| {
            let moved = *reached != position;
            *reached = position;
            moved
        });
    }

    /// Returns the position up to which appends wrote the view.
    pub(super) fn inline(&self) -> Position {
        Position::new(self.inline.load(Ordering::Acquire))
    }

    /// Everything up to `position` is in the view, which an append wrote.
    #[cfg(feature = "sqlx-postgres")]
    pub(super) fn reached_inline(&self, position: Position) {
        self.inline.fetch_max(position.get(), Ordering::AcqRel);
        self.position.send_if_modified(|reached| {
            let moved = *reached < position;
            *reached = position.max(*reached);
            moved
        });
    }

    /// Waits until everything up to `position` is in the view; `false` if the projection ended before.
    #[cfg(feature = "sqlx-postgres")]
    pub(super) async fn caught_up(&self, position: Position) -> bool {
        let mut positions = self.position.subscribe();
        let mut states = self.state.subscribe();
        let ended = |state: &ProjectionState| {
            matches!(state, ProjectionState::Stopped | ProjectionState::Failed(_))
        };
        tokio::select! {
            biased;
            _ = positions.wait_for(|reached| *reached >= position) => true,
            _ = states.wait_for(ended) => false,
        }
    }

    /// The checkpoint moved backwards: what is in the view has to be read from it.
    #[cfg(feature = "sqlx-postgres")]
    pub(super) fn moved_back(&self) {
        self.inline.store(0, Ordering::Release);
        self.moved.notify_one();
    }

    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the projection is to stop.
    pub(super) async fn stopped(&self) {
        // The sender is here, so the wait cannot fail.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }
}

/// A projection that runs. Dropping it stops the projection as [`Self::stop`] does, without waiting.
#[must_use = "a projection stops when its handle is dropped"]
pub struct ProjectionHandle<V> {
    pub(super) store: Store,
    pub(super) view: Arc<V>,
    pub(super) of: ProjectionId,
    pub(super) progress: Arc<Progress>,
}

impl<V> std::fmt::Debug for ProjectionHandle<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProjectionHandle")
            .field("projection", &self.of)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

impl<V> Drop for ProjectionHandle<V> {
    fn drop(&mut self) {
        self.progress.stopping.send_replace(true);
    }
}

impl<V: View> ProjectionHandle<V> {
    /// Returns the name and the version of the projection.
    #[must_use]
    pub fn id(&self) -> ProjectionId {
        self.of
    }

    /// The position up to which the view has every event, as far as this process knows.
    #[must_use]
    pub fn position(&self) -> Position {
        *self.progress.position.borrow()
    }

    /// Watches that position. Each change tells of at least one transaction.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Position> {
        self.progress.position.subscribe()
    }

    /// Waits until the view has everything up to `position`: give it [`Committed::position`](crate::Committed) to read what
    /// you wrote.
    ///
    /// # Errors
    /// [`ProjectionError::TimedOut`], or why the projection ended.
    pub async fn wait_for(
        &self,
        position: Position,
        within: Duration,
    ) -> Result<(), ProjectionError> {
        let mut positions = self.progress.position.subscribe();
        let waiting = async {
            tokio::select! {
                biased;
                _ = positions.wait_for(|reached| *reached >= position) => Ok(()),
                ended = self.ended() => Err(ended.unwrap_or(ProjectionError::Closed)),
            }
        };
        match timeout(within, waiting).await {
            Ok(waited) => waited,
            Err(_) => Err(ProjectionError::TimedOut {
                reached: self.position(),
                expected: position,
                timeout: within,
            }),
        }
    }

    /// Waits until readers see this version: it has caught up with the log once, now or in an earlier run.
    ///
    /// # Errors
    /// Why the projection ended.
    pub async fn ready(&self) -> Result<(), ProjectionError> {
        let mut states = self.progress.state.subscribe();
        tokio::select! {
            biased;
            _ = states.wait_for(|state| matches!(state, ProjectionState::Running)) => Ok(()),
            ended = self.ended() => Err(ended.unwrap_or(ProjectionError::Closed)),
        }
    }

    /// Waits until the projection ends; `None` if it was stopped.
    pub async fn ended(&self) -> Option<ProjectionError> {
        let mut states = self.progress.state.subscribe();
        let ended = |state: &ProjectionState| {
            matches!(state, ProjectionState::Stopped | ProjectionState::Failed(_))
        };
        match states.wait_for(ended).await.as_deref() {
            Ok(ProjectionState::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// How far the projection is.
    ///
    /// # Errors
    /// [`leftfold_store::ReadError`]: the head of the log, which the lag is measured against, is not known.
    pub async fn status(&self) -> Result<ProjectionStatus, leftfold_store::ReadError> {
        let head = self.store.event_store().head().await?;
        let position = self.position();
        Ok(ProjectionStatus {
            state: self.progress.state.borrow().clone(),
            position,
            lag: head.get().saturating_sub(position.get()),
            projected: self.progress.projected.load(Ordering::Relaxed),
            retries: self.progress.retries.load(Ordering::Relaxed),
            parked: self.progress.parked.load(Ordering::Relaxed),
        })
    }

    /// The parked events, the oldest first, at most 1,000 behind `after`.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn parked(&self, after: Position) -> Result<Vec<ParkedEvent>, ViewError> {
        self.view.parked(self.of, after).await
    }

    /// Has the parked events tried again, of each key in order until one fails.
    pub fn retry_parked(&self) {
        self.progress.retry.notify_one();
    }

    /// Lists the versions that the view knows, the lowest first.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn versions(&self) -> Result<Vec<VersionStatus>, ViewError> {
        self.view.versions(self.of.name).await
    }

    /// Removes the versions below this one that readers see no more, with all they wrote.
    ///
    /// # Errors
    /// [`ViewError`].
    pub async fn remove_superseded(&self) -> Result<(), ViewError> {
        for known in self.versions().await? {
            if known.version < self.of.version && !known.active {
                let of = ProjectionId {
                    version: known.version,
                    ..self.of
                };
                self.view.remove(of).await?;
            }
        }
        Ok(())
    }

    /// Finishes the transaction that is under way, and ends.
    ///
    /// # Errors
    /// [`ProjectionError`] if the projection ended by itself.
    pub async fn stop(self) -> Result<(), ProjectionError> {
        self.progress.stopping.send_replace(true);
        self.ended().await.map_or(Ok(()), Err)
    }
}
