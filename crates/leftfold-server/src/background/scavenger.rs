//! Scavenges that the server runs.
//!
//! **Owns:** [`ScavengeManager`]: starting, stopping and watching them, and their rate.
//! **Does not know:** which events they erase.
//! **Invariants:** one scavenge runs at a time, across all protocols; none exceeds the configured rate; a started scavenge
//! outlives its client, a streamed one ends with its stream.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, future, stream};
use leftfold_store::{EventStore, ReadError, Scavenge, ScavengeProgress};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::ByteSize;

/// The scavenges of one store.
#[derive(Debug)]
pub(crate) struct ScavengeManager {
    store: Arc<dyn EventStore>,
    bytes_per_second_max: ByteSize,
    tasks: TaskTracker,
    stopping: CancellationToken,
    latest: Arc<Latest>,
}

/// One scavenge, running or ended.
#[derive(Debug, Clone)]
pub(crate) struct ScavengeRun {
    pub(crate) id: Uuid,
    pub(crate) phase: Phase,
    pub(crate) progress: ScavengeProgress,
    stop: CancellationToken,
}

/// The phase of a scavenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Finished,
    Stopped,
    Failed(String),
}

/// Why a scavenge did not start or ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScavengeError {
    #[error("scavenge {0} is running already")]
    AnotherRuns(Uuid),
    #[error("scavenge was stopped")]
    Stopped,
}

type Steps = BoxStream<'static, Result<ScavengeProgress, ReadError>>;

impl ScavengeManager {
    /// Creates the manager of a store's scavenges; a `bytes_per_second_max` of 0 means no limit.
    pub(crate) fn new(
        store: Arc<dyn EventStore>,
        bytes_per_second_max: ByteSize,
        (tasks, stopping): (TaskTracker, CancellationToken),
    ) -> Self {
        Self {
            store,
            bytes_per_second_max,
            tasks,
            stopping,
            latest: Arc::default(),
        }
    }

    /// Starts a scavenge that outlives its client; returns the running one as the error if there is one.
    pub(crate) fn start(&self, bytes_per_second: Option<u64>) -> Result<ScavengeRun, ScavengeRun> {
        let (run, steps) = self.begin(bytes_per_second)?;
        self.tasks.spawn(steps.for_each(|_| future::ready(())));
        Ok(run)
    }

    /// Starts a scavenge that runs while its progress is polled, and stops when that is dropped.
    pub(crate) fn run(&self, bytes_per_second: Option<u64>) -> Result<Steps, ReadError> {
        let begun = self.begin(bytes_per_second);
        let (_, steps) = begun.map_err(|run| unavailable(ScavengeError::AnotherRuns(run.id)))?;
        Ok(steps)
    }

    fn begin(&self, bytes_per_second: Option<u64>) -> Result<(ScavengeRun, Steps), ScavengeRun> {
        let run = self.latest.begin(self.stopping.child_token())?;
        let work = self.store.scavenge(self.within_bounds(bytes_per_second));
        let running = Running {
            work,
            run: run.clone(),
            latest: Arc::clone(&self.latest),
        };
        let steps = stream::unfold(Some(running), |running| async move {
            let mut running = running?;
            let step = running.step().await?;
            let goes_on = step.is_ok();
            Some((step, goes_on.then_some(running)))
        });
        Ok((run, steps.boxed()))
    }

    /// Caps the requested rate at the configured one; 0 requests the configured rate.
    fn within_bounds(&self, bytes_per_second: Option<u64>) -> Scavenge {
        let rates = [bytes_per_second, Some(self.bytes_per_second_max.0)];
        let bounds = rates.into_iter().flatten().filter(|rate| *rate > 0);
        match bounds.min() {
            Some(rate) => Scavenge::default().with_bytes_per_second(rate),
            None => Scavenge::default(),
        }
    }

    /// Returns the newest scavenge.
    pub(crate) fn latest(&self) -> Option<ScavengeRun> {
        self.latest.lock().clone()
    }

    /// Stops the scavenge of this id after its current step; `false` if it is not running.
    pub(crate) fn stop(&self, id: Uuid) -> bool {
        match self.latest() {
            Some(run) if run.id == id && run.phase == Phase::Running => {
                run.stop.cancel();
                true
            }
            _ => false,
        }
    }
}

/// The newest scavenge, as far as it is known.
#[derive(Debug, Default)]
struct Latest(Mutex<Option<ScavengeRun>>);

impl Latest {
    fn lock(&self) -> MutexGuard<'_, Option<ScavengeRun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, stop: CancellationToken) -> Result<ScavengeRun, ScavengeRun> {
        let mut latest = self.lock();
        if let Some(run) = latest.as_ref().filter(|run| run.phase == Phase::Running) {
            return Err(run.clone());
        }
        let run = ScavengeRun {
            id: Uuid::new_v4(),
            phase: Phase::Running,
            progress: ScavengeProgress::default(),
            stop,
        };
        *latest = Some(run.clone());
        Ok(run)
    }

    /// Changes the record of a run, as long as it is running.
    fn note(&self, id: Uuid, change: impl FnOnce(&mut ScavengeRun)) {
        let mut latest = self.lock();
        let run = latest.as_mut();
        if let Some(run) = run.filter(|run| run.id == id && run.phase == Phase::Running) {
            change(run);
        }
    }
}

/// A scavenge in progress. It ends when this is dropped.
struct Running {
    work: Steps,
    run: ScavengeRun,
    latest: Arc<Latest>,
}

impl Running {
    async fn step(&mut self) -> Option<Result<ScavengeProgress, ReadError>> {
        let step = tokio::select! {
            biased;
            () = self.run.stop.cancelled() => return Some(Err(unavailable(ScavengeError::Stopped))),
            step = self.work.next() => step?,
        };
        self.latest.note(self.run.id, |run| match &step {
            Ok(progress) => {
                run.progress = *progress;
                // Recorded before the client hears of it, so that a client which waits for the end can start the next run.
                if progress.finished {
                    run.phase = Phase::Finished;
                }
            }
            Err(error) => {
                tracing::error!(error = error as &dyn std::error::Error, "scavenge failed");
                run.phase = Phase::Failed(error.to_string());
            }
        });
        Some(step)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let stopped = |run: &mut ScavengeRun| run.phase = Phase::Stopped;
        self.latest.note(self.run.id, stopped);
    }
}

fn unavailable(ended: ScavengeError) -> ReadError {
    ReadError::Unavailable {
        cause: Arc::new(ended),
    }
}

#[cfg(test)]
mod tests {
    use leftfold_store::MemoryStore;

    use super::*;

    fn scavenges(bytes_per_second_max: u64) -> (ScavengeManager, TaskTracker) {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let tasks = TaskTracker::new();
        let stopping = CancellationToken::new();
        let max = ByteSize(bytes_per_second_max);
        (
            ScavengeManager::new(store, max, (tasks.clone(), stopping)),
            tasks,
        )
    }

    #[tokio::test]
    async fn a_scavenge_runs_to_its_end_and_the_next_may_start() {
        let (scavenges, tasks) = scavenges(0);
        assert!(scavenges.latest().is_none());
        let first = scavenges.start(None).unwrap();
        assert_eq!(scavenges.start(None).unwrap_err().id, first.id);
        tasks.close();
        tasks.wait().await;
        assert_eq!(scavenges.latest().unwrap().phase, Phase::Finished);
        assert!(!scavenges.stop(first.id));
        assert_ne!(scavenges.start(None).unwrap().id, first.id);
    }

    #[tokio::test]
    async fn a_scavenge_that_a_client_takes_ends_with_it_and_is_the_only_one() {
        let (scavenges, _) = scavenges(0);
        let steps = scavenges.run(None).unwrap();
        let refused = scavenges.run(None).map(drop).unwrap_err();
        let ReadError::Unavailable { cause } = refused else {
            panic!("{refused:?}");
        };
        assert!(cause.to_string().contains("running already"), "{cause}");
        scavenges.start(None).unwrap_err();
        drop(steps);
        assert_eq!(scavenges.latest().unwrap().phase, Phase::Stopped);

        let mut steps = scavenges.run(None).unwrap();
        assert!(steps.next().await.unwrap().unwrap().finished);
        assert_eq!(scavenges.latest().unwrap().phase, Phase::Finished);
        assert!(steps.next().await.is_none());

        let mut steps = scavenges.run(None).unwrap();
        assert!(scavenges.stop(scavenges.latest().unwrap().id));
        steps.next().await.unwrap().unwrap_err();
        assert!(steps.next().await.is_none());
        assert_eq!(scavenges.latest().unwrap().phase, Phase::Stopped);
    }

    #[test]
    fn nobody_goes_faster_than_the_setting_allows() {
        let rate = |max, asked| scavenges(max).0.within_bounds(asked).bytes_per_second;
        assert_eq!(rate(0, None), None);
        assert_eq!(rate(0, Some(0)), None);
        assert_eq!(rate(0, Some(7)), Some(7));
        assert_eq!(rate(5, None), Some(5));
        assert_eq!(rate(5, Some(0)), Some(5));
        assert_eq!(rate(5, Some(3)), Some(3));
        assert_eq!(rate(5, Some(7)), Some(5));
    }
}
