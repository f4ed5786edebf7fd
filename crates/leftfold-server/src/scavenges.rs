//! Scavenges that the server runs.
//!
//! **Owns:** [`Scavenges`]: starting, stopping and watching them. **Does not know:** what they reclaim.
//! **Invariants:** one runs at a time; a scavenge whose client is gone goes on.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use leftfold_store::{EventStore, Scavenge, ScavengeProgress};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// The scavenges of one store.
#[derive(Debug)]
pub(crate) struct Scavenges {
    store: Arc<dyn EventStore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    latest: Arc<Mutex<Option<Run>>>,
}

/// One scavenge, running or ended.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) id: Uuid,
    pub(crate) phase: Phase,
    pub(crate) progress: ScavengeProgress,
    stop: CancellationToken,
}

/// How a scavenge is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    Finished,
    Stopped,
    Failed(String),
}

impl Scavenges {
    pub(crate) fn over(
        store: Arc<dyn EventStore>,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            store,
            tasks,
            stopping,
            latest: Arc::default(),
        }
    }

    /// Starts one, unless one is running: then that is the error.
    pub(crate) fn start(&self, scavenge: Scavenge) -> Result<Run, Run> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = latest.as_ref().filter(|run| run.phase == Phase::Running) {
            return Err(run.clone());
        }
        let run = Run {
            id: Uuid::new_v4(),
            phase: Phase::Running,
            progress: ScavengeProgress::default(),
            stop: self.stopping.child_token(),
        };
        *latest = Some(run.clone());
        self.tasks.spawn(watch(
            self.store.scavenge(scavenge),
            run.stop.clone(),
            Arc::clone(&self.latest),
        ));
        Ok(run)
    }

    /// The newest one.
    pub(crate) fn latest(&self) -> Option<Run> {
        self.latest
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Stops the scavenge of this id after the part that is under way; false if it is not running.
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

/// Runs one to its end, and keeps what is known of it up to date.
async fn watch(
    mut work: impl StreamExt<Item = Result<ScavengeProgress, leftfold_store::ReadError>> + Unpin,
    stop: CancellationToken,
    latest: Arc<Mutex<Option<Run>>>,
) {
    let note = |change: &dyn Fn(&mut Run)| {
        if let Some(run) = &mut *latest.lock().unwrap_or_else(PoisonError::into_inner) {
            change(run);
        }
    };
    loop {
        let step = tokio::select! {
            () = stop.cancelled() => return note(&|run| run.phase = Phase::Stopped),
            step = work.next() => step,
        };
        match step {
            Some(Ok(progress)) => note(&|run| run.progress = progress),
            Some(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "scavenge failed");
                return note(&|run| run.phase = Phase::Failed(error.to_string()));
            }
            None => return note(&|run| run.phase = Phase::Finished),
        }
    }
}

#[cfg(test)]
mod tests {
    use leftfold_store::MemoryStore;

    use super::*;

    #[tokio::test]
    async fn a_scavenge_runs_to_its_end_and_the_next_may_start() {
        let store: Arc<dyn EventStore> = Arc::new(MemoryStore::new());
        let tasks = TaskTracker::new();
        let scavenges = Scavenges::over(store, tasks.clone(), CancellationToken::new());
        assert!(scavenges.latest().is_none());
        let first = scavenges.start(Scavenge::default()).unwrap();
        assert_eq!(
            scavenges.start(Scavenge::default()).unwrap_err().id,
            first.id
        );
        tasks.close();
        tasks.wait().await;
        assert_eq!(scavenges.latest().unwrap().phase, Phase::Finished);
        assert!(!scavenges.stop(first.id));
        assert_ne!(scavenges.start(Scavenge::default()).unwrap().id, first.id);
    }
}
