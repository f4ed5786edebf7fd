//! Histories of the engine with all of its threads, in an order that a seed decides.
//!
//! **Owns:** [`play_threads`]: callers that block and callers with tickets, readers, maintenance, a scavenge and a close at
//! once, over a disk that fails, crashes or panics. **Does not know:** how the engine divides work among threads.
//! **Invariants:**
//! - One seed is one history: `shuttle` runs one thread at a time, and switches where a lock is taken or the disk is used.
//! - A deadlock, and a call that never ends, are violations.
//! - What callers saw is compared with the log after a restart, in [`ledger`]; no order of the callers is assumed.

mod caller;
mod ledger;

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use leftfold_log::{
    Clock, LogOptions, ScavengeOptions, Truncation,
    simulated::{AppendError, CloseError, Log},
};
use leftfold_model::{Appended, ErrorChain, Revision, Timestamp};
use shuttle::{Config, FailurePersistence, Runner, scheduler::RandomScheduler, thread};

use crate::{CrashKind, Fault, Interruption, Op, Rng, SimDisk, Violation};
use caller::Caller;
use ledger::Ledger;

/// Bytes of the stack of a simulated thread.
const STACK_BYTES: usize = 1024 * 1024;
/// Switches between threads after which a history counts as one that never ends.
const STEPS_MAX: usize = 200_000;
/// Events of a segment: few, so that most histories change it.
const SEGMENT_EVENTS: u32 = 6;

/// What happened in a history.
#[derive(Clone, Debug, Default)]
pub struct ThreadReport {
    /// Number of acknowledged appends.
    pub acknowledged: u64,
    /// Number of appends that were refused by a conflict.
    pub refused: u64,
    /// Number of appends of unknown outcome.
    pub unknown: u64,
    /// Number of panics in an operation of the disk.
    pub panics: u64,
    /// Number of segments at the end.
    pub segments: u64,
}

/// The outcome of an append.
type Outcome = Result<Appended, AppendError>;

/// Plays the history of a seed: a log with its threads and callers, a restart, and the comparison.
///
/// # Errors
/// [`Violation`]: what was promised and not kept.
pub fn play_threads(seed: u64) -> Result<ThreadReport, Violation> {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = shuttle::MaxSteps::FailAfter(STEPS_MAX);
    let scheduler = RandomScheduler::new_from_seed(seed, 1);
    let played = Arc::new(Mutex::new(None));
    let result = Arc::clone(&played);
    let history = move || {
        let played = History::of(seed).play();
        *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(played);
    };
    // A deadlock, and too many steps, are panics of the scheduler.
    let run = move || Runner::new(scheduler, config).run(history);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        return Err(Violation(text.unwrap_or_else(|| "a panic".into())));
    }
    let played = played.lock().unwrap_or_else(PoisonError::into_inner).take();
    played.unwrap_or_else(|| Err(Violation("the history did not end".into())))
}

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }
}

/// Lets other threads run before each operation of the disk, and panics in one of them.
#[derive(Debug)]
struct Scheduled {
    /// Number of syncs until one panics; 0: none does.
    panics_in: AtomicU64,
    panics: AtomicU64,
}

impl Interruption for Scheduled {
    fn before(&self, op: Op) {
        thread::yield_now();
        if op == Op::Sync && self.panics_in.load(Ordering::Relaxed) > 0 {
            let left = self.panics_in.fetch_sub(1, Ordering::Relaxed) - 1;
            if left == 0 && !std::thread::panicking() {
                self.panics.fetch_add(1, Ordering::Relaxed);
                // As a panic, without a report on the terminal.
                resume_unwind(Box::new("a simulated panic"));
            }
        }
    }
}

/// One history.
#[derive(Debug)]
struct History {
    chance: Rng,
    disk: SimDisk,
    scheduled: Arc<Scheduled>,
}

impl History {
    fn of(seed: u64) -> Self {
        let scheduled = Arc::new(Scheduled {
            panics_in: AtomicU64::new(0),
            panics: AtomicU64::new(0),
        });
        Self {
            chance: Rng::of(seed),
            disk: SimDisk::new(),
            scheduled,
        }
    }

    fn options() -> LogOptions {
        LogOptions::default()
            .with_segment_bytes(64 * 1024)
            .with_segment_events(SEGMENT_EVENTS)
            .with_log_id([7; 16])
    }

    fn play(mut self) -> Result<ThreadReport, Violation> {
        let interruption = Arc::clone(&self.scheduled) as Arc<dyn Interruption>;
        let disk = self.disk.clone().interrupted_by(interruption);
        let log = Log::open_on(Arc::new(disk), Self::options(), Arc::new(StillClock));
        let log = log.map_err(|error| Violation(format!("not opened: {}", ErrorChain(&error))))?;
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        self.draw_fault();
        let mut threads = Vec::new();
        for number in 0..2 + self.chance.below(3) {
            let chance = Rng::of(self.chance.bits());
            let caller = Caller::new(number, chance, log.clone(), Arc::clone(&ledger));
            threads.push(thread::spawn(move || caller.run()));
        }
        if self.chance.percent(30) {
            let log = log.clone();
            threads.push(thread::spawn(move || scavenge(&log)));
        }
        if self.chance.percent(30) {
            let (log, pauses) = (log.clone(), self.chance.below(120));
            threads.push(thread::spawn(move || {
                (0..pauses).for_each(|_| thread::yield_now());
                // What it returns is what a close in the middle of everything may return.
                let _ = close(&log);
                Ok(())
            }));
        }
        for thread in threads {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(Violation("a caller panicked".into())))?;
        }
        let closed = close(&log);
        let trouble = self.disk.is_crashed() || !self.disk.seen().is_empty() || self.panicked() > 0;
        if let Some(Err(error)) = closed
            && !trouble
        {
            let error = ErrorChain(&error).to_string();
            return Err(Violation(format!("closing failed for no reason: {error}")));
        }
        let segments = log.stats().segments;
        drop(log);
        let kinds = CrashKind::EVERY;
        let kind = usize::try_from(self.chance.below(kinds.len() as u64)).unwrap_or(0);
        let kind = kinds.get(kind).copied().unwrap_or(CrashKind::All);
        self.disk.restart(kind, &mut self.chance);
        let ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        ledger.compare(&self.disk, Self::options(), Arc::new(StillClock), trouble)?;
        Ok(ThreadReport {
            panics: self.panicked(),
            segments,
            ..ledger.report()
        })
    }

    fn panicked(&self) -> u64 {
        self.scheduled.panics.load(Ordering::Relaxed)
    }

    /// Draws what goes wrong in this history.
    fn draw_fault(&mut self) {
        let nth = 1 + self.chance.below(12);
        match self.chance.below(8) {
            0 => self.disk.fail(Some(Fault::io(Op::Sync, nth))),
            1 => self.disk.fail(Some(Fault::io(Op::Write, nth))),
            2 => self.disk.fail(Some(Fault::full(Op::SyncDir, 1 + nth % 3))),
            3 => self.scheduled.panics_in.store(nth, Ordering::Relaxed),
            4 | 5 => {
                let ahead = 1 + self.chance.below(40);
                self.disk.crash_at(self.disk.ops() + ahead);
            }
            _ => {}
        }
    }
}

/// Closes the log; `None` after a panic in an operation of the disk.
fn close(log: &Log) -> Option<Result<(), CloseError>> {
    catch_unwind(AssertUnwindSafe(|| log.close())).ok()
}

/// Erases the first events of a stream while others append. A run that the log ends is no failure.
fn scavenge(log: &Log) -> Result<(), Violation> {
    let before = Revision::new(2);
    let stream = caller::stream(0);
    for _ in 0..2 {
        thread::yield_now();
        let truncations = [Truncation {
            stream: stream.clone(),
            before,
        }];
        let options = ScavengeOptions::default().with_seal_newest();
        let scavenge = || log.scavenge(&truncations, options, &mut |_| ControlFlow::Continue(()));
        let _ = catch_unwind(AssertUnwindSafe(scavenge));
    }
    Ok(())
}
