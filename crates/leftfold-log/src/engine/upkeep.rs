//! A thread of the upkeep.
//!
//! **Owns:** [`Upkeep`]: when it works and when it sleeps. **Does not know:** what upkeep is.
//! **Invariants:** a failed step is tried again after a pause and never disturbs appends or reads.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::shared::Shared;
use crate::{error::StorageError, read::Views};

/// How long upkeep rests after the disk refused it something, for example room.
const RETRY: Duration = Duration::from_secs(1);
/// How long nobody must have appended or read for the log to count as idle.
const IDLE: Duration = Duration::from_secs(1);
/// How many such rests without an append make it count as idle although it is read.
const LONG: u32 = 30;

/// Wakes a thread of the upkeep, and stops it.
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

    /// The thread: whatever is due, then what is worth doing when nothing else happens, then sleep.
    ///
    /// `step` does one step, and is told whether nothing else happens; it tells whether there may be more.
    pub(crate) fn keep_up(
        &self,
        shared: &Shared,
        step: &dyn Fn(bool) -> Result<bool, StorageError>,
    ) {
        let (mut resting, mut quiet) = (Resting::ForAMoment(IDLE), Quiet::default());
        while self.rest(resting) {
            let is_idle = quiet.is_idle(shared, resting);
            let done = match step(false) {
                Ok(false) if is_idle => step(true).map(|more| (more, !more)),
                other => other.map(|more| (more, false)),
            };
            let mut state = self.lock();
            state.failed = None;
            resting = match done {
                Ok((true, _)) => Resting::Not,
                Ok((false, true)) => Resting::UntilWoken,
                Ok((false, false)) => Resting::ForAMoment(IDLE),
                Err(error) => {
                    state.failed = Some(Arc::new(error));
                    Resting::ForAMoment(RETRY)
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
            Resting::ForAMoment(pause) => {
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
    /// There may be something to do if nothing else happens until then.
    ForAMoment(Duration),
}

/// What happened lately.
#[derive(Debug, Default)]
struct Quiet {
    appends: u64,
    reads: u64,
    /// How many rests in a row nobody appended in.
    rests: u32,
}

impl Quiet {
    /// Whether nobody appended or read since the last question, which was a rest ago; or nobody appended for long.
    fn is_idle(&mut self, shared: &Shared, resting: Resting) -> bool {
        let view = shared.view();
        let (appends, reads) = (
            shared.appends.load(Ordering::Relaxed),
            view.segments.handles.reads(),
        );
        let unread = self.reads == reads;
        self.rests = if self.appends == appends {
            self.rests + 1
        } else {
            0
        };
        (self.appends, self.reads) = (appends, reads);
        matches!(resting, Resting::ForAMoment(_)) && self.rests > 0 && (unread || self.rests > LONG)
    }
}
