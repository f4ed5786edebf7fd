//! The commit queue: many callers decide, one thread at a time writes.
//!
//! **Owns:** [`CommitQueue`]: which thread may use the [`Core`], which writes the next group, and when.
//! **Does not know:** how appends are decided or written. **Invariants:**
//! - The core is used under one lock, which is never held across a write or sync of a group.
//! - At most one thread writes; [`Writer`] says which kind of thread has that right.
//! - A group that has members has a thread that will write it.
//! - A panic in any thread closes the queue, and every waiting caller learns that its outcome is unknown.
//!
//! A caller stages its append itself and joins the group that is being filled. If no write is in progress, the caller
//! writes the group at once: a single caller costs no hand-over to another thread. If others staged in the meantime, the
//! writer thread takes over, and while it syncs one group the callers of the next decide and encode it (group commit;
//! DeWitt et al., 1984).

use std::{
    sync::{
        Arc, LockResult,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use leftfold_model::{Append, Position};

use super::{
    core::{Core, Staged},
    error::{AppendError, CloseError},
    group::Outcome,
    maintenance_thread::MaintenanceThread,
    queue::Answer,
    shared::EngineState,
    sync::{self, Condvar, Mutex, MutexGuard},
};
use crate::{
    append::{LogSnapshot, PreparedLookups},
    error::StorageError,
    planted::{self, Planted},
    read::ViewSource,
};

/// Bytes of a group, one append more or less. More: longer syncs for all; less: more of them.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events that are decided and not durable, one append more or less. Far fewer than the ids that are remembered, so
/// that an event that is not among those is durable and can be read.
const GROUP_EVENTS_MAX: u64 = 32_768;

/// Maintenance backlog from which on appends are throttled, in thousandths of its maximum.
const THROTTLE_FROM: usize = 500;
/// Delay of an event when the maintenance backlog is at its maximum.
const SLOW_NANOS: usize = 20_000;
/// Shortest sleep. Shorter delays add up until they are as long, because threads cannot sleep so shortly.
const PAUSE_NANOS: u64 = 200_000;

/// How often conditions of many terms are looked up again because other appends were decided meanwhile, and many streams because
/// a segment started. After that the append is decided in any case. Each repetition has fewer events to look at.
const LOOKS_MAX: usize = 8;

/// An append whose caller holds a ticket, and what was looked up for it.
pub(crate) type Queued = (Append, Answer, Option<PreparedLookups>);

/// See the module.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    state: Mutex<State>,
    /// Signals the writer thread: there is a group for it, or it must stop.
    handed_over: Condvar,
    /// Signals callers: a group was taken, or no write is in progress.
    progress: Condvar,
    /// Nanoseconds of throttling that no append has slept yet.
    delay_owed: AtomicU64,
    shared: Arc<EngineState>,
    sealer: Arc<MaintenanceThread>,
}

#[derive(Debug)]
struct State {
    /// `None`: the queue has ended.
    core: Option<Core>,
    writer: Writer,
    /// Whether a caller waits until everything staged is durable, to change the segment; no append is staged meanwhile.
    is_draining: bool,
    /// Whether a group is being written at this moment, also by a thread whose queue has ended.
    is_write_in_progress: bool,
    /// Whether appends were lost whose outcome is unknown: what is appended now may be a retry of one.
    has_lost_appends: bool,
    /// How many callers wait for `progress`.
    waiting: usize,
    closed: bool,
}

/// Which thread has the right to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Writer {
    /// None.
    Idle,
    /// A caller, or the writer thread while it runs.
    Writing,
    /// The writer thread, which has not woken up yet.
    HandedOver,
    /// A caller that changes the segment: everything staged before is durable.
    Rolling,
}

impl State {
    fn is_idle(&self) -> bool {
        self.writer == Writer::Idle
    }

    /// Why appends are refused once the queue is closed.
    fn closed(&self) -> AppendError {
        // While the log is being closed, its core may have failed, and callers know.
        let core = self.core.as_ref();
        let has_failed = core.is_some_and(|core| core.latched().is_some());
        if self.has_lost_appends || has_failed {
            AppendError::WriterLost
        } else {
            AppendError::Closed
        }
    }

    /// Returns whether appends are staged in a group that no thread has taken yet.
    fn has_group(&mut self) -> bool {
        let core = self.core.as_mut();
        core.is_some_and(|core| !core.group().is_empty())
    }
}

type Guard<'a> = MutexGuard<'a, State>;

/// The state, unless a thread panicked while it had it: then nothing of the core is used again.
fn lock_or_abort<'a>(locked: LockResult<Guard<'a>>) -> Guard<'a> {
    locked.unwrap_or_else(|poisoned| {
        let mut state = poisoned.into_inner();
        state.closed = true;
        state.has_lost_appends = true;
        state.core = None;
        state
    })
}

/// Reports the end of a write, even by a panic. Dropped while the lock is free.
struct WriteInProgress<'a>(&'a CommitQueue);

impl Drop for WriteInProgress<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_write_in_progress = false;
        self.0.notify_waiters(&state);
    }
}

/// Ends the queue if its thread panics. Declared before the lock is taken, so dropped after it is freed.
struct CloseOnPanic<'a>(&'a CommitQueue);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if sync::panicking() && !planted::is(Planted::PanicLeavesQueueOpen) {
            self.0.end();
        }
    }
}

impl CommitQueue {
    pub(crate) fn of(core: Core, sealer: Arc<MaintenanceThread>) -> Self {
        Self {
            shared: Arc::clone(core.shared()),
            state: Mutex::new(State {
                core: Some(core),
                writer: Writer::Idle,
                is_draining: false,
                is_write_in_progress: false,
                has_lost_appends: false,
                waiting: 0,
                closed: false,
            }),
            handed_over: Condvar::new(),
            progress: Condvar::new(),
            delay_owed: AtomicU64::new(0),
            sealer,
        }
    }

    fn lock(&self) -> Guard<'_> {
        lock_or_abort(self.state.lock())
    }

    fn wait_for_progress<'a>(&self, mut state: Guard<'a>) -> Guard<'a> {
        state.waiting += 1;
        let mut state = lock_or_abort(self.progress.wait(state));
        state.waiting -= 1;
        state
    }

    fn notify_waiters(&self, state: &Guard<'_>) {
        if state.waiting > 0 {
            self.progress.notify_all();
        }
    }

    /// Appends, and blocks until the append is durable or refused.
    pub(crate) fn append(&self, append: Append) -> Outcome {
        let _end_on_panic = CloseOnPanic(self);
        self.throttle(append.event_count());
        let mut prepared = self.prepare(&append);
        let (mut state, staged) = self.stage(self.lock(), &append, prepared.as_mut())?;
        let outcome = match staged {
            Staged::Settled(outcome) => return outcome,
            Staged::Waits(outcome) => outcome,
            Staged::NeedsRoom(_) => return Err(AppendError::Busy),
        };
        let Some(core) = state.core.as_mut() else {
            return Err(state.closed());
        };
        let done = core.group().join();
        if state.is_idle() {
            state.writer = Writer::Writing;
            self.hand_off(self.write_group(state));
        } else {
            drop(state);
        }
        drop(append);
        done.wait(outcome)
    }

    /// Looks up what the decision about an append needs, before the caller holds the commit lock.
    pub(crate) fn prepare(&self, append: &Append) -> Option<PreparedLookups> {
        let _end_on_panic = CloseOnPanic(self);
        // In this order: the view's index has everything that was decided before it was taken.
        let decided = Position::new(self.shared.decided.load(Ordering::Acquire));
        let view = self.shared.view();
        let seen = LogSnapshot {
            sources: &view.sources,
            segments: &view.segments,
        };
        PreparedLookups::of(append, seen, view.head, decided)
    }

    /// Stages appends whose callers hold tickets. With `writes` the calling thread writes them if no write is in progress,
    /// else the writer thread does.
    pub(crate) fn append_queued(&self, appends: Vec<Queued>, writes: bool) {
        let _end_on_panic = CloseOnPanic(self);
        self.throttle(
            appends
                .iter()
                .map(|(append, ..)| append.event_count())
                .sum(),
        );
        let mut state = self.lock();
        for (append, answer, mut prepared) in appends {
            match self.stage(state, &append, prepared.as_mut()) {
                Ok((mut locked, staged)) => {
                    match (staged, locked.core.as_mut()) {
                        (Staged::Settled(outcome), _) => drop(answer.send(outcome)),
                        (Staged::Waits(outcome), Some(core)) => {
                            core.group().join_async(answer, outcome);
                            if core.group().bytes.len() >= GROUP_BYTES_MAX && locked.is_idle() {
                                locked.writer = Writer::Writing;
                                self.hand_off(self.write_group(locked));
                                locked = self.lock();
                            }
                        }
                        _ => drop(answer.send(Err(AppendError::Busy))),
                    }
                    state = locked;
                }
                Err(error) => {
                    drop(answer.send(Err(error)));
                    state = self.lock();
                }
            }
        }
        if state.is_idle() && state.has_group() {
            state.writer = Writer::Writing;
            if writes {
                state = self.write_group(state);
            }
            self.hand_off(state);
        }
    }

    /// Throttles appends so that maintenance catches up: the delay per event grows with the backlog, so that no append stalls.
    fn throttle(&self, events: usize) {
        let owed = self
            .shared
            .maintenance_backlog()
            .saturating_sub(THROTTLE_FROM);
        if owed == 0 {
            return;
        }
        let nanos = (events * owed * SLOW_NANOS / THROTTLE_FROM) as u64;
        let all = self.delay_owed.fetch_add(nanos, Ordering::Relaxed) + nanos;
        if all >= PAUSE_NANOS {
            self.delay_owed.store(0, Ordering::Relaxed);
            sync::sleep(Duration::from_nanos(all.min(20 * PAUSE_NANOS)));
        }
    }

    /// Stages an append, starting the next segment first if necessary.
    fn stage<'a>(
        &'a self,
        mut state: Guard<'a>,
        append: &Append,
        mut prepared: Option<&mut PreparedLookups>,
    ) -> Result<(Guard<'a>, Staged), AppendError> {
        let mut looks_left = LOOKS_MAX;
        loop {
            if state.closed {
                return Err(state.closed());
            }
            let (is_draining, is_idle) = (state.is_draining, state.is_idle());
            let Some(core) = state.core.as_mut() else {
                return Err(AppendError::Closed);
            };
            let full = core.group().bytes.len() >= GROUP_BYTES_MAX
                || core.unsynced_events() >= GROUP_EVENTS_MAX;
            if is_draining || full && !is_idle {
                state = self.wait_for_progress(state);
                continue;
            }
            if let Some(behind) = prepared.as_deref_mut()
                && looks_left > 0
                && (behind.is_behind(core.decided())
                    || behind.has_many_streams() && !behind.holds(&self.shared.view().sources))
            {
                looks_left -= 1;
                drop(state);
                let decided = Position::new(self.shared.decided.load(Ordering::Acquire));
                let sources = &self.shared.view().sources;
                let looked = behind.look_again(append, sources, decided);
                looked.map_err(|e| AppendError::Unreadable { cause: Arc::new(e) })?;
                state = self.lock();
                continue;
            }
            match core.stage(append, prepared.as_deref())? {
                Staged::NeedsRoom(bytes) => state = self.roll(state, bytes)?,
                staged => return Ok((state, staged)),
            }
        }
    }

    /// Starts the next segment when everything before it is durable.
    fn roll<'a>(&'a self, state: Guard<'a>, frame_bytes: usize) -> Result<Guard<'a>, AppendError> {
        self.after_drain(state, |core| core.roll(frame_bytes))
    }

    /// Starts the next segment if there are events in the newest one.
    pub(crate) fn seal_newest(&self) -> Result<(), AppendError> {
        let _end_on_panic = CloseOnPanic(self);
        let mut state = self.lock();
        while state.is_draining {
            state = self.wait_for_progress(state);
        }
        if state.closed {
            return Err(state.closed());
        }
        self.after_drain(state, Core::seal_newest).map(drop)
    }

    /// Returns the error that poisoned the log, if one did.
    pub(crate) fn latched(&self) -> Option<Arc<StorageError>> {
        let state = self.lock();
        state.core.as_ref().and_then(|core| core.latched().cloned())
    }

    /// Returns the error of appends after the end.
    pub(crate) fn closed(&self) -> AppendError {
        self.lock().closed()
    }

    /// Checks that the log accepts appends.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        let state = self.lock();
        let core = state.core.as_ref().filter(|_| !state.closed);
        match core.map(Core::latched) {
            None => Err(AppendError::Closed),
            Some(Some(cause)) => Err(AppendError::ReadOnly {
                cause: Arc::clone(cause),
            }),
            Some(None) => Ok(()),
        }
    }

    /// Runs `change` on the core once every staged append is durable.
    fn after_drain<'a>(
        &'a self,
        mut state: Guard<'a>,
        change: impl FnOnce(&mut Core) -> Result<(), AppendError>,
    ) -> Result<Guard<'a>, AppendError> {
        state.is_draining = true;
        while !state.is_idle() && !planted::is(Planted::RollDoesNotWait) {
            state = self.wait_for_progress(state);
        }
        state.writer = Writer::Rolling;
        state = self.write_group(state);
        let rolled = match state.core.as_mut() {
            Some(core) => change(core),
            None => Err(state.closed()),
        };
        state.writer = Writer::Idle;
        state.is_draining = false;
        self.notify_waiters(&state);
        self.sealer.wake();
        rolled.map(|()| state)
    }

    /// Writes the current group. The caller has the right to write, and keeps it.
    fn write_group<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let taken = state.core.as_mut().and_then(Core::take_group);
        let Some((mut group, latched)) = taken else {
            return state;
        };
        self.notify_waiters(&state);
        state.is_write_in_progress = true;
        drop(state);
        let in_progress = WriteInProgress(self);
        let end = latched.map_or_else(|| group.write(&self.shared), Err);
        drop(in_progress);
        let mut state = self.lock();
        if let Some(core) = state.core.as_mut() {
            core.settle(&mut group, &end);
        }
        drop(state);
        group.finish(end);
        self.lock()
    }

    /// Releases the right to write, or hands it to the writer thread if there is another group.
    fn hand_off(&self, mut state: Guard<'_>) {
        if state.has_group() && !state.is_draining {
            state.writer = Writer::HandedOver;
            if !planted::is(Planted::HandOverNotNotified) {
                self.handed_over.notify_one();
            }
        } else {
            state.writer = Writer::Idle;
            self.notify_waiters(&state);
        }
    }

    /// Runs the writer thread: writes group after group while there are any, then sleeps.
    pub(crate) fn run_writer(&self) {
        let _end_on_panic = CloseOnPanic(self);
        let mut state = self.lock();
        loop {
            while state.writer != Writer::HandedOver {
                if state.core.is_none() {
                    return;
                }
                state = lock_or_abort(self.handed_over.wait(state));
            }
            state.writer = Writer::Writing;
            while !state.is_draining && state.has_group() {
                state = self.write_group(state);
            }
            state.writer = Writer::Idle;
            self.notify_waiters(&state);
        }
    }

    /// Accepts no more appends, finishes the accepted ones, and closes the log cleanly.
    pub(crate) fn close(&self) -> Result<(), CloseError> {
        let mut state = self.lock();
        state.closed = true;
        while !state.is_idle() || state.is_draining || state.is_write_in_progress {
            state = self.wait_for_progress(state);
        }
        let core = state.core.take();
        state.has_lost_appends |= core.as_ref().is_none_or(|core| core.latched().is_some());
        drop(state);
        self.handed_over.notify_all();
        self.progress.notify_all();
        match core {
            Some(core) => core.close(),
            None => Err(CloseError::WriterPanicked),
        }
    }

    /// Ends the queue after a panic. Dropping the core answers every waiting caller that its outcome is unknown.
    fn end(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.has_lost_appends = true;
        state.writer = Writer::Idle;
        state.is_draining = false;
        let core = state.core.take();
        drop(state);
        self.shared.close();
        self.shared.stop_scavenging();
        drop(core);
        self.handed_over.notify_all();
        self.progress.notify_all();
    }
}
