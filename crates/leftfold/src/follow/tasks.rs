//! Tasks of a listener's handlers.
//!
//! **Owns:** [`Tasks`]: handlers in tasks of their own, and waiting until all of them are gone.
//! **Does not know:** what a handler does. **Invariants:** a task ends soon after the future that waits for it is dropped; when
//! [`Ended::wait`] returns, no task is left.

use std::{convert::Infallible, future::pending};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle},
};

use super::item::{Finished, Running};

/// Starts tasks.
#[derive(Debug)]
pub(super) struct Tasks {
    /// Each task has a clone, and drops it when it ends.
    alive: mpsc::Sender<Infallible>,
}

/// The end of all tasks.
#[derive(Debug)]
pub(super) struct Ended(mpsc::Receiver<Infallible>);

/// Ends its task when it is dropped.
struct Aborting(JoinHandle<Finished>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Tasks {
    pub(super) fn new() -> (Self, Ended) {
        let (alive, ended) = mpsc::channel(1);
        (Self { alive }, Ended(ended))
    }

    /// Runs a handler in a task of its own. What is returned waits for it.
    pub(super) fn spawn(&self, handler: Running) -> Running {
        let alive = self.alive.clone();
        let mut task = Aborting(tokio::spawn(async move {
            let finished = handler.await;
            drop(alive);
            finished
        }));
        Box::pin(async move {
            match (&mut task.0).await.map_err(JoinError::try_into_panic) {
                Ok(finished) => finished,
                Err(Ok(panic)) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(Err(_)) => pending().await,
            }
        })
    }
}

impl Ended {
    /// Waits until no task is left; the [`Tasks`] have to be dropped.
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}
