//! The upkeep thread.
//!
//! **Owns:** [`Upkeep`]: when it works and when it sleeps. **Does not know:** what upkeep is.
//! **Invariants:** a failed step is tried again after a pause and never disturbs appends or reads.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::shared::Shared;
use crate::error::StorageError;

/// How long upkeep rests after the disk refused it something, for example room.
const RETRY: Duration = Duration::from_secs(1);
/// How long nobody must have appended for the log to count as idle.
const IDLE: Duration = Duration::from_secs(1);

/// Wakes the upkeep thread, and stops it.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    stop: bool,
    failed: Option<Arc<StorageError>>,
}

impl Upkeep {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.lock().due = true;
        self.changed.notify_all();
    }

    /// Finish the step and return.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Why the newest step failed, if it did.
    pub(crate) fn failed(&self) -> Option<Arc<StorageError>> {
        self.lock().failed.clone()
    }

    /// The thread: whatever is due, then what is worth doing when nobody appends, then sleep.
    pub(crate) fn keep_up(&self, shared: &Shared) {
        let mut resting = Resting::for_at_most(IDLE);
        while self.rest(resting) {
            let appends = shared.appends.load(Ordering::Relaxed);
            let step = match (shared.upkeep(), resting) {
                (
                    Ok(false),
                    Resting::UntilIdle {
                        appends: before, ..
                    },
                ) if before == appends => shared.idle_upkeep().map(|more| (more, !more)),
                (step, _) => step.map(|more| (more, false)),
            };
            let mut state = self.lock();
            state.failed = None;
            resting = match step {
                Ok((true, _)) => Resting::Not,
                Ok((false, true)) => Resting::UntilWoken,
                Ok((false, false)) => Resting::UntilIdle {
                    appends,
                    pause: IDLE,
                },
                Err(error) => {
                    state.failed = Some(Arc::new(error));
                    Resting::UntilIdle {
                        appends,
                        pause: RETRY,
                    }
                }
            };
        }
    }

    /// Rests; `false`: stop.
    fn rest(&self, resting: Resting) -> bool {
        let mut state = self.lock();
        match resting {
            Resting::Not => {}
            Resting::UntilWoken => {
                while !state.due && !state.stop {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
            Resting::UntilIdle { pause, .. } => {
                if !state.due && !state.stop {
                    let waited = self.changed.wait_timeout(state, pause);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        state.due = false;
        !state.stop
    }
}

/// What the thread does between two steps.
#[derive(Clone, Copy, Debug)]
enum Resting {
    /// There is more to do.
    Not,
    /// There is nothing to do.
    UntilWoken,
    /// There may be something to do if nobody appends until then.
    UntilIdle { appends: u64, pause: Duration },
}

impl Resting {
    fn for_at_most(pause: Duration) -> Self {
        Self::UntilIdle {
            appends: u64::MAX,
            pause,
        }
    }
}
