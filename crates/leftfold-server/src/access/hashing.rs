//! Threads on which passwords are hashed and verified.
//!
//! **Owns:** [`HashingThreads`]: how many hash at a time. **Does not know:** passwords, who waits for a result.
//! **Invariants:** work that began counts until it has ended, also if its caller has left meanwhile: a thread cannot be stopped.

use std::sync::Arc;

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
};

/// Threads for work that takes a core and much memory, a few at a time.
#[derive(Debug)]
pub(super) struct HashingThreads(Arc<Semaphore>);

impl HashingThreads {
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads)))
    }

    /// Waits for a thread.
    pub(super) async fn turn(&self) -> Result<Turn, AcquireError> {
        Ok(Turn(Arc::clone(&self.0).acquire_owned().await?))
    }

    /// Waits until no thread works.
    #[cfg(test)]
    pub(super) async fn idle(&self, threads: u32) {
        drop(self.0.acquire_many(threads).await.unwrap());
    }
}

/// The use of one thread.
#[derive(Debug)]
pub(super) struct Turn(OwnedSemaphorePermit);

impl Turn {
    /// Does the work on the thread. It is done to its end, whether or not somebody waits for it.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let counted = move || {
            let _until_its_end = self.0;
            work()
        };
        spawn_blocking(counted).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn work_whose_caller_left_counts_until_it_has_ended() {
        let threads = HashingThreads::new(1);
        let (end, ended) = mpsc::channel::<()>();
        let turn = threads.turn().await.unwrap();
        let mut work = turn.run(move || ended.recv()).boxed();
        assert!(poll!(&mut work).is_pending(), "it began");
        drop(work);
        assert!(threads.turn().now_or_never().is_none(), "it goes on");
        end.send(()).unwrap();
        threads.turn().await.unwrap();
    }
}
