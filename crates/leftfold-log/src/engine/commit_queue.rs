//! The line of appends: many callers decide, one at a time writes.
//!
//! **Owns:** [`CommitQueue`]: who may touch the [`Core`], who writes the next group, and when.
//! **Does not know:** how appends are decided or written. **Invariants:** the core is touched under one lock, which is
//! never held across a write or sync of a group; at most one thread is writing (`busy`); a group that has members has a
//! thread that will write it; a panic anywhere ends the line, and everyone who waits hears that the outcome is unknown.
//!
//! A caller stages its append itself and joins the group that is being gathered. If nobody is writing, it writes the
//! group at once: a single writer costs no hand-over to another thread. If others staged meanwhile, the writing thread
//! takes over, and while it syncs one group the next one is decided and encoded by its callers.
//!
//! Nobody waits for company: while one group is synced the next gathers by itself (group commit; DeWitt et al., 1984).

use std::{
    sync::{
        Arc, Condvar, LockResult, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use leftfold_model::Append;

use super::{
    core::{Core, Staged},
    error::{AppendError, CloseError},
    group::Outcome,
    maintenance::MaintenanceThread,
    queue::Answer,
    shared::EngineState,
};
use crate::{append::PreparedLookups, error::StorageError, read::ViewSource};

/// Bytes of a group, one append more or less. More: longer syncs for all; less: more of them.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Events that are decided and not durable, one append more or less. Far fewer than the ids that are remembered, so
/// that an event that is not among those is durable and can be read.
const GROUP_EVENTS_MAX: u64 = 32_768;

/// What upkeep may owe, in thousandths of what it may owe at all, before appends are slowed down.
const THROTTLE_FROM: usize = 500;
/// How long an event is slowed down when upkeep owes all it may.
const SLOW_NANOS: usize = 20_000;
/// Shorter pauses than this are gathered until they are as long: threads cannot sleep so shortly.
const PAUSE_NANOS: u64 = 200_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    state: Mutex<State>,
    /// There is work for the writing thread, or it shall stop.
    due: Condvar,
    /// A group was taken, or nobody is writing any more.
    room: Condvar,
    /// Nanoseconds that appends should have been slowed down by, and were not yet.
    slowness: AtomicU64,
    shared: Arc<EngineState>,
    upkeep: Arc<MaintenanceThread>,
}

#[derive(Debug)]
struct State {
    /// `None`: the line has ended.
    core: Option<Core>,
    /// Someone is writing, or was told to.
    busy: bool,
    /// The writing thread was told to.
    due: bool,
    /// Someone waits for quiet to start a segment; nobody stages meanwhile.
    rolling: bool,
    /// How many wait for `room`.
    waiting: usize,
    closed: bool,
}

impl State {
    /// Whether something is staged and not yet taken to be written.
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
        state.core = None;
        state
    })
}

/// Ends the line if its thread panics. Declared before the lock is taken, so dropped after it is freed.
struct CloseOnPanic<'a>(&'a CommitQueue);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end();
        }
    }
}

impl CommitQueue {
    pub(crate) fn of(core: Core, upkeep: Arc<MaintenanceThread>) -> Self {
        Self {
            shared: Arc::clone(core.shared()),
            state: Mutex::new(State {
                core: Some(core),
                busy: false,
                due: false,
                rolling: false,
                waiting: 0,
                closed: false,
            }),
            due: Condvar::new(),
            room: Condvar::new(),
            slowness: AtomicU64::new(0),
            upkeep,
        }
    }

    fn lock(&self) -> Guard<'_> {
        lock_or_abort(self.state.lock())
    }

    fn wait_for_room<'a>(&self, mut state: Guard<'a>) -> Guard<'a> {
        state.waiting += 1;
        let mut state = lock_or_abort(self.room.wait(state));
        state.waiting -= 1;
        state
    }

    fn notify_waiters(&self, state: &Guard<'_>) {
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }

    /// Appends, and blocks until the append is durable or refused.
    pub(crate) fn append(&self, append: Append) -> Outcome {
        let _end_on_panic = CloseOnPanic(self);
        self.throttle(append.event_count());
        let prepared = PreparedLookups::of(&append, &self.shared.view().sources);
        let (mut state, staged) = self.stage(self.lock(), &append, prepared.as_ref())?;
        let outcome = match staged {
            Staged::Settled(outcome) => return outcome,
            Staged::Waits(outcome) => outcome,
            Staged::NeedsRoom(_) => return Err(AppendError::Busy),
        };
        let Some(core) = state.core.as_mut() else {
            return Err(AppendError::Closed);
        };
        let done = core.group().join();
        if state.busy {
            drop(state);
        } else {
            state.busy = true;
            self.hand_off(self.write_group(state));
        }
        drop(append);
        done.wait(outcome)
    }

    /// Stages appends whose callers hold tickets, and has them written.
    pub(crate) fn append_queued(&self, appends: Vec<(Append, Answer)>) {
        let _end_on_panic = CloseOnPanic(self);
        self.throttle(appends.iter().map(|(append, _)| append.event_count()).sum());
        let mut state = self.lock();
        let alone = appends.len() == 1;
        for (append, answer) in appends {
            match self.stage(state, &append, None) {
                Ok((mut locked, staged)) => {
                    match (staged, locked.core.as_mut()) {
                        (Staged::Settled(outcome), _) => drop(answer.send(outcome)),
                        (Staged::Waits(outcome), Some(core)) => {
                            core.group().join_async(answer, outcome);
                            if core.group().bytes.len() >= GROUP_BYTES_MAX && !locked.busy {
                                locked.busy = true;
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
        if !state.busy && state.has_group() {
            state.busy = true;
            if alone {
                state = self.write_group(state);
            }
            self.hand_off(state);
        }
    }

    /// Lets upkeep catch up: each event waits a little, the more the more upkeep owes, so that none waits long.
    fn throttle(&self, events: usize) {
        let owed = self
            .shared
            .maintenance_backlog()
            .saturating_sub(THROTTLE_FROM);
        if owed == 0 {
            return;
        }
        let nanos = (events * owed * SLOW_NANOS / THROTTLE_FROM) as u64;
        let all = self.slowness.fetch_add(nanos, Ordering::Relaxed) + nanos;
        if all >= PAUSE_NANOS {
            self.slowness.store(0, Ordering::Relaxed);
            thread::sleep(Duration::from_nanos(all.min(20 * PAUSE_NANOS)));
        }
    }

    /// Stages an append, making room for it first if need be.
    fn stage<'a>(
        &'a self,
        mut state: Guard<'a>,
        append: &Append,
        prepared: Option<&PreparedLookups>,
    ) -> Result<(Guard<'a>, Staged), AppendError> {
        loop {
            if state.closed {
                return Err(AppendError::Closed);
            }
            let (rolling, busy) = (state.rolling, state.busy);
            let Some(core) = state.core.as_mut() else {
                return Err(AppendError::Closed);
            };
            let full = core.group().bytes.len() >= GROUP_BYTES_MAX
                || core.unsynced_events() >= GROUP_EVENTS_MAX;
            if rolling || full && busy {
                state = self.wait_for_room(state);
                continue;
            }
            match core.stage(append, prepared)? {
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
        while state.rolling {
            state = self.wait_for_room(state);
        }
        if state.closed {
            return Err(AppendError::Closed);
        }
        self.after_drain(state, Core::seal_newest).map(drop)
    }

    /// Why the log takes no changes, if it does not.
    pub(crate) fn latched(&self) -> Option<Arc<StorageError>> {
        let state = self.lock();
        state.core.as_ref().and_then(|core| core.latched().cloned())
    }

    /// Whether appends are taken.
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

    /// Does something to the core when everything that was staged is durable.
    fn after_drain<'a>(
        &'a self,
        mut state: Guard<'a>,
        change: impl FnOnce(&mut Core) -> Result<(), AppendError>,
    ) -> Result<Guard<'a>, AppendError> {
        state.rolling = true;
        while state.busy {
            state = self.wait_for_room(state);
        }
        state.busy = true;
        state = self.write_group(state);
        state.busy = false;
        let rolled = match state.core.as_mut() {
            Some(core) => change(core),
            None => Err(AppendError::Closed),
        };
        state.rolling = false;
        self.notify_waiters(&state);
        self.upkeep.wake();
        rolled.map(|()| state)
    }

    /// Writes what is gathered. The caller has set `busy`, and keeps it.
    fn write_group<'a>(&'a self, mut state: Guard<'a>) -> Guard<'a> {
        let taken = state.core.as_mut().and_then(Core::take_group);
        let Some((mut group, latched)) = taken else {
            return state;
        };
        self.notify_waiters(&state);
        drop(state);
        let end = latched.map_or_else(|| group.write(&self.shared), Err);
        let mut state = self.lock();
        if let Some(core) = state.core.as_mut() {
            core.settle(&mut group, &end);
        }
        drop(state);
        group.finish(end);
        self.lock()
    }

    /// Lets go of the right to write, or hands it to the writing thread if there is more.
    fn hand_off(&self, mut state: Guard<'_>) {
        if state.has_group() && !state.rolling {
            state.due = true;
            self.due.notify_one();
        } else {
            state.busy = false;
            self.notify_waiters(&state);
        }
    }

    /// The writing thread: group after group while there are any; then sleeps.
    pub(crate) fn run_writer(&self) {
        let _end_on_panic = CloseOnPanic(self);
        let mut state = self.lock();
        loop {
            while !state.due {
                if state.core.is_none() {
                    return;
                }
                state = lock_or_abort(self.due.wait(state));
            }
            state.due = false;
            while !state.rolling && state.has_group() {
                state = self.write_group(state);
            }
            state.busy = false;
            self.notify_waiters(&state);
        }
    }

    /// Takes no more appends, lets those that were taken finish, and stops cleanly.
    pub(crate) fn close(&self) -> Result<(), CloseError> {
        let mut state = self.lock();
        state.closed = true;
        while state.busy || state.rolling {
            state = self.wait_for_room(state);
        }
        let core = state.core.take();
        drop(state);
        self.due.notify_all();
        self.room.notify_all();
        match core {
            Some(core) => core.close(),
            None => Err(CloseError::WriterPanicked),
        }
    }

    /// Ends the line after a panic: what the core held is dropped, and with it everyone who waits for it is told.
    fn end(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.busy = false;
        state.rolling = false;
        let core = state.core.take();
        drop(state);
        self.shared.close();
        self.shared.stop_scavenging();
        drop(core);
        self.due.notify_all();
        self.room.notify_all();
    }
}
