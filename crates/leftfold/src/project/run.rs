//! Following the log into a view.
//!
//! **Owns:** the task of a projection: batches, attempts, parking, catching up, restarts after retryable errors.
//! **Does not know:** what a projection writes, and where.
//! **Invariants:** events are projected in the order of the log, and only those behind the checkpoint that was read in the
//! transaction; after a failure nothing of its transaction is kept, and events are then projected one by one.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use leftfold_model::{Position, RecordedEvent};
use leftfold_store::{Delivery, ReadError};
use tokio::time::{self, Instant};

use super::{
    error::ProjectionError,
    handle::{Progress, ProjectionHandle, ProjectionState},
    parking::{ParkedKeys, bounded_key},
    projection::Projection,
    settings::{CatchUp, Project, Settings},
    view::{ProjectionId, View, ViewChanges, ViewCheckpoint, ViewError},
};
use crate::{Backoff, HandlerError, Recorded, Store, load::typed, panic_message, reason::chain};

mod checkpoint;
mod parked_events;

/// Pauses before a projection restarts after a retryable error.
const RESTART_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(50),
    max: Duration::from_secs(5),
    attempts: u32::MAX,
};
/// Minimum interval between two reports of progress while a version catches up.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of positions without an event of the projection before the checkpoint is written.
const UNWRITTEN_POSITIONS_MAX: u64 = 10_000;

type Transaction<P> = <<P as Projection>::View as View>::Transaction;

/// Why a projection does not go on now.
enum Interrupted {
    /// The projection restarts after a pause.
    Retryable(String),
    /// The checkpoint moved backwards: the projection restarts from it.
    Moved,
    /// It was stopped.
    Stopped,
    /// The projection cannot go on.
    Ended(ProjectionError),
}

impl From<ViewError> for Interrupted {
    fn from(error: ViewError) -> Self {
        Self::Retryable(error.to_string())
    }
}
impl From<ProjectionError> for Interrupted {
    fn from(error: ProjectionError) -> Self {
        Self::Ended(error)
    }
}

/// An event could not be projected.
struct Failure {
    reason: String,
    /// A retry cannot succeed.
    is_final: bool,
}

struct Runner<P: Projection> {
    store: Store,
    projection: Arc<P>,
    view: Arc<P::View>,
    settings: Settings,
    progress: Arc<Progress>,
    /// The checkpoint, as last read or written.
    checkpoint: Position,
    caught_up: bool,
    parked: ParkedKeys,
    head: Position,
    last_report: Option<Instant>,
    reported_end: bool,
}

impl<P: Projection> Project<P> {
    /// Runs the projection in a task of the current tokio runtime until it is stopped, its handle is dropped or it ends with
    /// an error. Processes that run one projection take turns, a transaction each.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time enabled.
    pub fn spawn(self) -> ProjectionHandle<P::View> {
        let of = Runner::<P>::ID;
        let progress = Arc::new(Progress::new(of));
        let handle = ProjectionHandle {
            store: self.store.clone(),
            view: Arc::clone(&self.view),
            of,
            progress: Arc::clone(&progress),
        };
        let mut runner = Runner {
            store: self.store,
            projection: self.projection,
            view: self.view,
            settings: self.settings,
            progress,
            checkpoint: Position::START,
            caught_up: false,
            parked: ParkedKeys::default(),
            head: Position::START,
            last_report: None,
            reported_end: false,
        };
        tokio::spawn(async move {
            let ended = match runner.run().await {
                Ok(()) => ProjectionState::Stopped,
                Err(error) => {
                    tracing::error!(
                        projection = P::NAME,
                        version = P::VERSION,
                        error = &error as &dyn std::error::Error,
                        "projection ended"
                    );
                    ProjectionState::Failed(error)
                }
            };
            runner.progress.state.send_replace(ended);
        });
        handle
    }
}

impl<P: Projection> Runner<P> {
    const ID: ProjectionId = ProjectionId {
        name: P::NAME,
        version: P::VERSION,
    };

    /// Projects until the projection is stopped or cannot go on.
    async fn run(&mut self) -> Result<(), ProjectionError> {
        let mut failures = 0;
        loop {
            let begun_at = self.checkpoint;
            let Err(interrupted) = self.follow().await else {
                return Ok(());
            };
            match interrupted {
                Interrupted::Stopped => return Ok(()),
                Interrupted::Ended(error) => return Err(error),
                Interrupted::Moved => {}
                Interrupted::Retryable(reason) => {
                    failures = if self.checkpoint > begun_at {
                        1
                    } else {
                        failures + 1
                    };
                    tracing::warn!(projection = P::NAME, reason, "projection starts over");
                    let waiting = ProjectionState::Waiting { reason };
                    self.progress.state.send_replace(waiting);
                    tokio::select! {
                        () = time::sleep(RESTART_BACKOFF.pause(failures)) => {}
                        () = self.progress.stopped() => return Ok(()),
                    }
                }
            }
        }
    }

    /// Follows the log until the projection is stopped.
    async fn follow(&mut self) -> Result<(), Interrupted> {
        self.open().await?;
        self.retry_parked().await?;
        let events = self.store.events::<P::Event>().after(self.checkpoint);
        let subscription = events.subscription().map_err(ProjectionError::from)?;
        let mut deliveries = self.store.event_store().subscribe(subscription);
        let progress = Arc::clone(&self.progress);
        let stopped = progress.stopped();
        tokio::pin!(stopped);
        loop {
            let is_full = self.parked.events() >= self.settings.pause_at_parked_events;
            if is_full {
                self.report_full();
            }
            tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                () = progress.moved.notified() => return Err(Interrupted::Moved),
                () = progress.retry.notified() => self.retry_parked().await?,
                delivery = deliveries.next(), if !is_full => match delivery {
                    None => return Err(ProjectionError::Closed.into()),
                    Some(Ok(delivery)) => self.project_delivery(delivery).await?,
                    Some(Err(error)) => return Err(self.unreadable(error)),
                },
            }
        }
    }

    /// Says that no more events are read before parked ones are handled, whose number is bounded.
    fn report_full(&self) {
        let events = self.parked.events();
        let reason = format!("{events} events are parked; expected fewer before more are read");
        tracing::error!(
            projection = P::NAME,
            events,
            "projection waits for its parked events"
        );
        let waiting = ProjectionState::Waiting { reason };
        self.progress.state.send_replace(waiting);
    }

    fn unreadable(&self, source: ReadError) -> Interrupted {
        match source {
            ReadError::Unavailable { .. } => Interrupted::Retryable(chain(&source)),
            source => Interrupted::Ended(ProjectionError::CannotResume {
                projection: P::NAME,
                checkpoint: self.checkpoint,
                source,
            }),
        }
    }

    async fn project_delivery(&mut self, delivery: Delivery) -> Result<(), Interrupted> {
        for batch in delivery.events.chunks(self.settings.batch) {
            if self.progress.is_stopping() {
                return Err(Interrupted::Stopped);
            }
            self.project_batch(batch).await?;
        }
        let idle = delivery.through.get().saturating_sub(self.checkpoint.get());
        if delivery.caught_up && !self.caught_up || idle >= UNWRITTEN_POSITIONS_MAX {
            self.advance_checkpoint(delivery.through, delivery.caught_up)
                .await?;
        }
        self.publish(delivery.through);
        Ok(())
    }

    /// Begins a transaction; `None` if other processes, or appends of this one, already wrote everything up to `last`.
    async fn begin(
        &mut self,
        last: Position,
    ) -> Result<Option<(Transaction<P>, ViewCheckpoint)>, Interrupted> {
        if last <= self.progress.inline() {
            self.checkpoint = self.checkpoint.max(last);
            return Ok(None);
        }
        loop {
            let (transaction, checkpoint) = self.view.begin(Self::ID).await?;
            let refused = match checkpoint.superseded_by {
                Some(by) => Some(superseded::<P>(by)),
                None if checkpoint.is_new || checkpoint.position < self.checkpoint => {
                    Some(Interrupted::Moved)
                }
                None => None,
            };
            if let Some(refused) = refused {
                self.view.roll_back(transaction).await;
                return Err(refused);
            }
            self.caught_up |= checkpoint.caught_up;
            let known = self.parked.events() as u64;
            if checkpoint.position == self.checkpoint && checkpoint.parked == known {
                if checkpoint.position >= last {
                    self.view.roll_back(transaction).await;
                    return Ok(None);
                }
                return Ok(Some((transaction, checkpoint)));
            }
            // Another process wrote. Its parked events are read outside of the transaction, which may hold the only connection.
            self.view.roll_back(transaction).await;
            self.checkpoint = checkpoint.position;
            self.parked = ParkedKeys::load(&*self.view, Self::ID).await?;
        }
    }

    /// Projects a batch in one transaction, or one event at a time after a failure.
    async fn project_batch(&mut self, events: &[RecordedEvent]) -> Result<(), Interrupted> {
        let Some(last) = events.last() else {
            return Ok(());
        };
        let Some((mut transaction, checkpoint)) = self.begin(last.position).await? else {
            return Ok(());
        };
        let mut park = Vec::new();
        let mut projected = Vec::new();
        for event in events.iter().filter(|e| e.position > checkpoint.position) {
            match self.project(&mut transaction, event).await {
                Ok(Projected::Values(values)) => projected.extend(values),
                Ok(Projected::Waits(key)) => park.push(self.parked_behind(event.position, key)),
                Err(_) => {
                    self.view.roll_back(transaction).await;
                    for event in events {
                        self.project_one(event).await?;
                    }
                    return Ok(());
                }
            }
        }
        let changes = ViewChanges {
            position: last.position,
            event: Some(last.id),
            park,
            ..ViewChanges::default()
        };
        self.commit(transaction, changes, &projected).await
    }

    /// Projects one event in its own transaction, with retries; gives it up after the last attempt.
    async fn project_one(&mut self, event: &RecordedEvent) -> Result<(), Interrupted> {
        let mut attempts = 0;
        loop {
            let Some((mut transaction, _)) = self.begin(event.position).await? else {
                return Ok(());
            };
            attempts += 1;
            let mut changes = ViewChanges {
                position: event.position,
                event: Some(event.id),
                ..ViewChanges::default()
            };
            match self.project(&mut transaction, event).await {
                Ok(Projected::Values(values)) => {
                    return self.commit(transaction, changes, &values).await;
                }
                Ok(Projected::Waits(key)) => {
                    changes.park.push(self.parked_behind(event.position, key));
                    return self.commit(transaction, changes, &[]).await;
                }
                Err(failure) => {
                    self.view.roll_back(transaction).await;
                    if failure.is_final || attempts >= self.settings.backoff.attempts {
                        return self.give_up(event, &failure.reason, attempts).await;
                    }
                    self.progress.retried();
                    let (stream, revision) = (&event.stream, event.revision);
                    let reason = failure.reason;
                    tracing::warn!(
                        projection = P::NAME, %stream, %revision, attempts, reason,
                        "attempt failed, event will be retried"
                    );
                    self.pause(attempts).await?;
                }
            }
        }
    }

    async fn pause(&self, attempts: u32) -> Result<(), Interrupted> {
        tokio::select! {
            biased;
            () = self.progress.stopped() => Err(Interrupted::Stopped),
            () = time::sleep(self.settings.backoff.pause(attempts)) => Ok(()),
        }
    }

    async fn commit(
        &mut self,
        transaction: Transaction<P>,
        changes: ViewChanges,
        projected: &[Recorded<P::Event>],
    ) -> Result<(), Interrupted> {
        let (position, newly_parked) = (changes.position, changes.park.clone());
        self.view.commit(Self::ID, transaction, changes).await?;
        self.checkpoint = position;
        for event in &newly_parked {
            self.parked.insert(event);
        }
        self.progress.projected(projected.len() as u64);
        self.notify(projected);
        self.publish(position);
        Ok(())
    }

    /// Calls [`Projection::committed`] for each event, unless the version catches up.
    fn notify(&self, projected: &[Recorded<P::Event>]) {
        if !self.caught_up {
            return;
        }
        for event in projected {
            let notified = AssertUnwindSafe(|| self.projection.committed(event));
            if let Err(panic) = std::panic::catch_unwind(notified) {
                let message = panic_message::message(panic.as_ref());
                tracing::error!(projection = P::NAME, message, "`committed` panicked");
            }
        }
    }

    /// Projects one event, unless an earlier event of its key is parked.
    async fn project(
        &self,
        transaction: &mut Transaction<P>,
        event: &RecordedEvent,
    ) -> Result<Projected<P::Event>, Failure> {
        if self.parked.keys() > 0 {
            let key = key_of::<P>(event);
            if self.parked.first_of(&key).is_some() {
                return Ok(Projected::Waits(key));
            }
        }
        let values = self.values(transaction, event).await?;
        Ok(Projected::Values(values))
    }

    async fn values(
        &self,
        transaction: &mut Transaction<P>,
        event: &RecordedEvent,
    ) -> Result<Vec<Recorded<P::Event>>, Failure> {
        let values = typed::<P::Event>(event).map_err(|error| Failure {
            reason: chain(&error),
            is_final: true,
        })?;
        for value in &values {
            let projecting = guarded(self.projection.project(transaction, value));
            let limit = self.settings.timeout;
            let projected = time::timeout(limit, projecting).await;
            let projected = projected.unwrap_or_else(|_| Err(format!("timed out after {limit:?}")));
            projected.map_err(|reason| Failure {
                reason,
                is_final: false,
            })?;
        }
        Ok(values)
    }

    /// Publishes the position and the state, and reports how far the version has caught up.
    fn publish(&mut self, reached: Position) {
        let reached = reached.max(self.checkpoint).max(self.progress.inline());
        self.progress.parked(self.parked.events());
        self.progress.reached(reached);
        let caught_up = self.caught_up;
        self.head = self.head.max(reached);
        let due = self
            .last_report
            .is_none_or(|last| last.elapsed() >= REPORT_INTERVAL);
        let ends = caught_up && !std::mem::replace(&mut self.reported_end, caught_up);
        if (due && !caught_up || ends)
            && let Some(tell) = &self.settings.on_catch_up
        {
            tell(CatchUp {
                position: reached,
                head: self.head,
                done: caught_up,
            });
        }
        if due {
            self.last_report = Some(Instant::now());
        }
        // After the report: who waited for the version to catch up finds that it was told.
        self.progress.state.send_if_modified(|state| {
            let now = match caught_up {
                true => ProjectionState::Running,
                false => ProjectionState::CatchingUp,
            };
            let changed = std::mem::discriminant(state) != std::mem::discriminant(&now);
            *state = now;
            changed
        });
    }
}

/// What became of an event.
enum Projected<E> {
    /// It is in the view.
    Values(Vec<Recorded<E>>),
    /// An earlier event of this key is parked.
    Waits(String),
}

fn superseded<P: Projection>(by: u32) -> Interrupted {
    Interrupted::Ended(ProjectionError::Superseded {
        projection: P::NAME,
        version: P::VERSION,
        by,
    })
}

/// The key of an event; its stream if it cannot be decoded.
fn key_of<P: Projection>(event: &RecordedEvent) -> String {
    let key = AssertUnwindSafe(|| {
        let values = typed::<P::Event>(event).ok()?;
        values.first().map(P::key)
    });
    let key = std::panic::catch_unwind(key).ok().flatten();
    bounded_key(key.unwrap_or_else(|| event.stream.to_string()))
}

/// Awaits domain code and turns a panic into a failure.
async fn guarded(work: impl Future<Output = Result<(), HandlerError>>) -> Result<(), String> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(chain(error.as_ref())),
        Err(panic) => Err(format!(
            "panicked: {}",
            panic_message::message(panic.as_ref())
        )),
    }
}
