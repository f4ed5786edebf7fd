//! A background thread for maintenance.
//!
//! **Owns:** [`MaintenanceThread`]: when it works and when it sleeps. **Does not know:** what a step does.
//! **Invariants:** a failed step is retried after a pause and never disturbs appends or reads; a panic in a step is reported
//! like a failure and ends the thread.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use super::{
    shared::EngineState,
    sync::{self, Condvar, Mutex, MutexGuard},
};
use crate::{error::StorageError, read::ViewSource};

/// Pause of maintenance after an error of the disk, for example a full one.
const RETRY: Duration = Duration::from_secs(1);
/// Time without an append or a read after which the log counts as idle.
const IDLE: Duration = Duration::from_secs(1);
/// Number of such rests without an append after which the log counts as idle although it is read.
const LONG: u32 = 30;

/// The control of a maintenance thread: waking and stopping it.
#[derive(Debug, Default)]
pub(crate) struct MaintenanceThread {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    stop: bool,
    failed: Option<Arc<StorageError>>,
}

impl MaintenanceThread {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread, because there may be something to do.
    pub(crate) fn wake(&self) {
        self.lock().due = true;
        self.changed.notify_all();
    }

    /// Stops the thread after its current step.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// Returns the error of the newest step, if it failed.
    pub(crate) fn failed(&self) -> Option<Arc<StorageError>> {
        self.lock().failed.clone()
    }

    /// Runs the thread: work that is due, then work that is worth doing while the log is idle, then sleep.
    ///
    /// `step` does one step. Its argument says whether the log is idle; it returns whether there may be more to do.
    pub(crate) fn run(
        &self,
        shared: &EngineState,
        step: &dyn Fn(bool) -> Result<bool, StorageError>,
    ) {
        let _report = ReportPanic(self);
        let (mut resting, mut quiet) = (Wait::ForAMoment(IDLE), IdleDetector::default());
        while self.rest(resting) {
            let is_idle = quiet.is_idle(shared, resting);
            let done = match step(false) {
                Ok(false) if is_idle => step(true).map(|more| (more, !more)),
                other => other.map(|more| (more, false)),
            };
            let mut state = self.lock();
            state.failed = None;
            resting = match done {
                Ok((true, _)) => Wait::Not,
                Ok((false, true)) => Wait::UntilWoken,
                Ok((false, false)) => Wait::ForAMoment(IDLE),
                Err(error) => {
                    state.failed = Some(Arc::new(error));
                    Wait::ForAMoment(RETRY)
                }
            };
        }
    }

    /// Sleeps; `false` if the thread must stop.
    fn rest(&self, resting: Wait) -> bool {
        let mut state = self.lock();
        match resting {
            Wait::Not => {}
            Wait::UntilWoken => {
                while !state.due && !state.stop {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            }
            Wait::ForAMoment(pause) => {
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

/// Reports a panic of the thread as its failure.
struct ReportPanic<'a>(&'a MaintenanceThread);

impl Drop for ReportPanic<'_> {
    fn drop(&mut self) {
        if sync::panicking() {
            let panicked = std::io::Error::other("maintenance thread panicked; reopen the log");
            let error = StorageError::directory("maintain", panicked);
            self.0.lock().failed = Some(Arc::new(error));
        }
    }
}

/// What the thread does between two steps.
#[derive(Clone, Copy, Debug)]
enum Wait {
    /// There is more to do.
    Not,
    /// There is nothing to do.
    UntilWoken,
    /// There may be something to do if nothing else happens until then.
    ForAMoment(Duration),
}

/// Detects that the log is idle.
#[derive(Debug, Default)]
struct IdleDetector {
    appends: u64,
    reads: u64,
    /// Number of rests in a row without an append.
    rests: u32,
}

impl IdleDetector {
    /// Returns whether there was no append and no read since the last call, one rest ago, or no append for many rests.
    fn is_idle(&mut self, shared: &EngineState, resting: Wait) -> bool {
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
        matches!(resting, Wait::ForAMoment(_)) && self.rests > 0 && (unread || self.rests > LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Core, LogOptions, SystemClock, disk::real::RealDisk};

    #[test]
    fn a_panic_of_a_step_is_reported_as_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::at(directory.path()).unwrap());
        let core = Core::open(disk, LogOptions::default(), Arc::new(SystemClock)).unwrap();
        let (shared, thread) = (
            Arc::clone(core.shared()),
            Arc::<MaintenanceThread>::default(),
        );
        thread.wake();
        let running = Arc::clone(&thread);
        let run = move || running.run(&shared, &|_| std::panic::resume_unwind(Box::new("a panic")));
        let ended = sync::spawn("maintenance", Box::new(run)).unwrap().join();
        assert!(ended.is_err());
        let failed = thread.failed().expect("a failure");
        assert!(text_of(&failed).contains("panicked"), "{failed}");
    }

    fn text_of(error: &StorageError) -> String {
        leftfold_model::ErrorChain(error).to_string()
    }
}
