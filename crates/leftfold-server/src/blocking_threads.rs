//! Work that takes a processor for milliseconds, on blocking threads of the runtime, a few at a time.
//!
//! **Owns:** [`BlockingThreads`]: how many work at a time. **Does not know:** what the work is, who waits for its result.
//! **Invariants:** work that began counts until it has ended, also if its caller has left meanwhile: a thread cannot be stopped.

use std::sync::Arc;

use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    task::{JoinError, spawn_blocking},
};

/// Threads for one kind of work. Who finds all of them at work waits.
#[derive(Debug)]
pub(crate) struct BlockingThreads(Arc<Semaphore>);

impl BlockingThreads {
    pub(crate) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads)))
    }

    /// Waits for a thread.
    pub(crate) async fn turn(&self) -> Result<Turn, AcquireError> {
        Ok(Turn(Arc::clone(&self.0).acquire_owned().await?))
    }

    /// Waits until no thread works.
    #[cfg(test)]
    pub(crate) async fn idle(&self, threads: u32) {
        drop(self.0.acquire_many(threads).await.unwrap());
    }
}

/// The use of one thread.
#[derive(Debug)]
pub(crate) struct Turn(OwnedSemaphorePermit);

impl Turn {
    /// Does the work on the thread. It is done to its end, whether or not somebody waits for it.
    pub(crate) async fn run<T: Send + 'static>(
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
        let threads = BlockingThreads::new(1);
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
