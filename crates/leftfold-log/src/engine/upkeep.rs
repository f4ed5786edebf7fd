//! The upkeep thread.
//!
//! **Owns:** [`Upkeep`]: when it works and when it sleeps. **Does not know:** what upkeep is.
//! **Invariants:** a failed step is tried again after a pause and never disturbs appends or reads.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::shared::Shared;
use crate::error::StorageError;

/// How long upkeep rests after the disk refused it something, for example room.
const RETRY: Duration = Duration::from_secs(1);

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

    /// The thread: whatever is due, then sleep.
    pub(crate) fn keep_up(&self, shared: &Shared) {
        loop {
            let mut state = self.lock();
            while !state.due && !state.stop {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            state.due = false;
            drop(state);
            match shared.upkeep() {
                Ok(false) => self.lock().failed = None,
                Ok(true) => self.lock().due = true,
                Err(error) => {
                    let mut state = self.lock();
                    state.failed = Some(Arc::new(error));
                    state.due = true;
                    if !state.stop {
                        drop(self.changed.wait_timeout(state, RETRY));
                    }
                }
            }
        }
    }
}
