//! A simulated run: appends, maintenance, faults, crashes and recoveries, checked by the oracle.
//!
//! **Owns:** [`Simulation`]: a log on a simulated disk and the steps it can take. **Does not know:** the order of the steps; a
//! seed or a scenario decides that.
//! **Invariants:** after every step readers see exactly what was acknowledged; an error that no fault explains is a violation.

mod draw;
mod held_cursor;

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use leftfold_log::{AppendError, Clock, Core, LogOptions, ScavengeOptions, Truncation, disk::Disk};
use leftfold_model::{
    Append, Appended, ErrorChain, Position, Read, RecordedEvent, Revision, Timestamp,
};

use self::{draw::name, held_cursor::HeldCursor};
use crate::{CrashKind, Fault, Oracle, Rng, SimDisk, Violation, disk::Op, oracle::Verdict};

/// Number of remembered appends, to be repeated later.
const REMEMBERED: usize = 8;

/// The report of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Number of recoveries.
    pub recoveries: u64,
    /// Number of acknowledged appends.
    pub appends: u64,
    /// Number of erased events.
    pub erased: u64,
    /// Number of appends that were written, recognized as repetitions, and refused.
    pub decided: [u64; 3],
    /// Number of reads that ran without waiting, and of those that would have waited.
    pub in_place: [u64; 2],
    /// Kinds of faults, and how often each occurred.
    pub seen: BTreeMap<&'static str, u64>,
    /// The disk's trace; see [`SimDisk::trace`].
    pub trace: u64,
}

#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }
}

/// A log on a simulated disk.
#[derive(Debug)]
pub struct Simulation {
    /// The disk, for faults and crashes.
    pub disk: SimDisk,
    /// The random number generator of this run.
    pub chance: Rng,
    oracle: Oracle,
    core: Option<Core>,
    /// A read that began some steps ago.
    held: Option<HeldCursor>,
    numbers: u64,
    remembered: Vec<(Append, Appended)>,
    unsettled: Vec<Append>,
    report: Report,
}

impl Simulation {
    /// Creates a run of this seed on an empty disk. The first step that needs the log opens it.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self {
            disk: SimDisk::new(),
            chance: Rng::of(seed),
            oracle: Oracle::default(),
            core: None,
            held: None,
            numbers: 0,
            remembered: Vec::new(),
            unsettled: Vec::new(),
            report: Report::default(),
        }
    }

    fn options() -> LogOptions {
        LogOptions::default()
            .with_segment_bytes(64 * 1024)
            .with_segment_events(24)
            .with_log_id([7; 16])
    }

    /// Returns the report so far.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            seen: self.disk.seen(),
            trace: self.disk.trace(),
            ..self.report.clone()
        }
    }

    /// Opens the log, as often as it takes when faults or crashes hit the recovery itself.
    ///
    /// # Errors
    /// [`Violation`] if it cannot be opened or does not hold what it must.
    pub fn open(&mut self) -> Result<(), Violation> {
        while self.core.is_none() {
            let disk = Arc::new(self.disk.clone());
            let trouble = self.trouble();
            match Core::open(disk, Self::options(), Arc::new(StillClock)) {
                Ok(core) => {
                    self.core = Some(core);
                    self.report.recoveries += 1;
                }
                Err(_) if self.disk.is_crashed() => {
                    let loss = self.any_loss();
                    self.disk.restart(loss, &mut self.chance);
                    continue;
                }
                Err(_) if self.trouble() > trouble => {
                    // Someone makes room, or the log stays closed.
                    self.disk.set_capacity(None);
                    self.disk.restart(CrashKind::Killed, &mut self.chance);
                    continue;
                }
                Err(error) => {
                    return Err(Violation(format!(
                        "the log cannot be opened: {}",
                        ErrorChain(&error)
                    )));
                }
            }
            let fault = self.disk.suspend_fault();
            let events = self.read(&Read::all());
            self.disk.fail(fault);
            let events = events?;
            let head = self.head();
            self.oracle.recovered(head, &events)?;
            self.remembered
                .retain(|(_, appended)| appended.last.get() <= self.oracle.acknowledged_events());
            self.check()?;
        }
        Ok(())
    }

    /// How many faults have hit so far.
    fn trouble(&self) -> u64 {
        self.disk
            .seen()
            .iter()
            .filter(|(what, _)| what.starts_with("failed") || **what == "disk full")
            .map(|(_, n)| n)
            .sum()
    }

    fn any_loss(&mut self) -> CrashKind {
        let number = usize::try_from(self.chance.below(CrashKind::EVERY.len() as u64)).unwrap_or(0);
        CrashKind::EVERY
            .get(number)
            .copied()
            .unwrap_or(CrashKind::All)
    }

    /// Crashes and restarts the process or the machine.
    pub fn restart(&mut self, loss: CrashKind) {
        (self.core, self.held) = (None, None);
        self.disk.restart(loss, &mut self.chance);
    }

    fn read(&mut self, read: &Read) -> Result<Vec<RecordedEvent>, Violation> {
        let Some(core) = &self.core else {
            return Ok(Vec::new());
        };
        let unreadable = |error: leftfold_log::ReadError| {
            Violation(format!("the log cannot be read: {}", ErrorChain(&error)))
        };
        let [begun, given_up] = &mut self.report.in_place;
        let (mut cursor, mut events) = match core.reader().read_nowait(read) {
            Some(first) => {
                *begun += 1;
                let (cursor, events) = first.map_err(unreadable)?;
                (cursor, events.unwrap_or_default())
            }
            None => {
                *given_up += 1;
                let cursor = core.reader().read(read).map_err(unreadable)?;
                (cursor, Vec::new())
            }
        };
        while let Some(batch) = cursor.next_batch().map_err(unreadable)? {
            events.extend(batch);
        }
        Ok(events)
    }

    /// Compares what readers see with what was acknowledged, by position and by stream.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn check(&mut self) -> Result<(), Violation> {
        if self.disk.is_crashed() || self.core.is_none() {
            return Ok(());
        }
        // What readers see is looked at without faults: an error is an error, and says nothing.
        let fault = self.disk.suspend_fault();
        let checked = self.check_reads();
        self.disk.fail(fault);
        checked
    }

    fn check_reads(&mut self) -> Result<(), Violation> {
        let events = self.read(&Read::all())?;
        self.oracle.check_log(&events)?;
        let number = self.chance.below(4);
        let stream = name(number);
        let of_stream = self.read(&Read::stream(stream.clone()))?;
        self.oracle.stream_holds(&stream, &of_stream)
    }

    fn head(&self) -> Position {
        let core = self.core.as_ref();
        core.map_or(Position::START, |core| core.reader().head())
    }

    /// Commits a group and reports the outcome to the oracle.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn commit(&mut self, group: &[Append]) -> Result<(), Violation> {
        self.open()?;
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        let answers = core.commit(group);
        for (append, answer) in group.iter().zip(answers) {
            let verdict = self.oracle.verdict(append);
            match answer {
                Ok(appended) if appended.repeated => {
                    let (first, last) = (appended.first, appended.last);
                    Self::expect(append, verdict, Verdict::Repeated { first, last })?;
                    self.settle_repetition(append, &appended)?;
                    let [_, repeated, _] = &mut self.report.decided;
                    *repeated += 1;
                }
                Err(AppendError::Conflict(_)) => {
                    Self::expect(append, verdict, Verdict::Refused)?;
                    let [.., refused] = &mut self.report.decided;
                    *refused += 1;
                }
                Ok(appended) => {
                    Self::expect(append, verdict, Verdict::Written)?;
                    let [written, ..] = &mut self.report.decided;
                    *written += 1;
                    self.oracle
                        .acknowledged(append, appended.first, appended.last)?;
                    self.report.appends += 1;
                    if self.remembered.len() >= REMEMBERED {
                        self.remembered.remove(0);
                    }
                    self.remembered.push((append.clone(), appended));
                }
                Err(error) if error.is_definitely_not_written() => {
                    if self.trouble() == 0 && !self.disk.is_crashed() {
                        return Err(Violation(format!(
                            "an append was refused for no reason: {}",
                            ErrorChain(&error)
                        )));
                    }
                }
                Err(_) => {
                    self.oracle.outcome_unknown(append.clone());
                    self.unsettled.push(append.clone());
                }
            }
        }
        let head = self.head();
        if head.get() != self.oracle.acknowledged_events() {
            return Err(Violation(format!(
                "readers see {head} events, {} were acknowledged",
                self.oracle.acknowledged_events()
            )));
        }
        self.check()
    }

    /// Compares what the log decided with what the oracle did, by what was acknowledged when it answered.
    fn expect(append: &Append, expected: Verdict, found: Verdict) -> Result<(), Violation> {
        if expected == found {
            return Ok(());
        }
        Err(Violation(format!(
            "an append was answered {found:?}, not {expected:?}: {append:?}"
        )))
    }

    fn settle_repetition(&mut self, append: &Append, appended: &Appended) -> Result<(), Violation> {
        let known = self.remembered.iter().find(|(known, _)| known == append);
        let same = known
            .is_none_or(|(_, first)| (first.first, first.last) == (appended.first, appended.last));
        if same && appended.last.get() <= self.oracle.acknowledged_events() {
            return Ok(());
        }
        Err(Violation(format!(
            "a repeated append was answered {appended:?}"
        )))
    }

    /// Repeats an acknowledged append: it must be recognised and return its first positions.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn repeat(&mut self) -> Result<(), Violation> {
        self.open()?;
        let Some((append, _)) = self.remembered.first().cloned() else {
            return Ok(());
        };
        let before = self.oracle.acknowledged_events();
        self.commit(&[append])?;
        if self.oracle.acknowledged_events() == before {
            Ok(())
        } else {
            Err(Violation("a repeated append was stored twice".into()))
        }
    }

    /// Retries appends of unknown outcome: afterwards each is stored exactly once.
    ///
    /// # Errors
    /// [`Violation`].
    pub fn retry_unknown(&mut self) -> Result<(), Violation> {
        self.open()?;
        for append in std::mem::take(&mut self.unsettled) {
            self.commit(&[append])?;
        }
        Ok(())
    }

    /// Does steps of maintenance.
    ///
    /// # Errors
    /// [`Violation`] if one fails for no reason.
    pub fn maintain(&mut self, steps: u64) -> Result<(), Violation> {
        self.open()?;
        for _ in 0..steps {
            let trouble = self.trouble();
            let Some(core) = &mut self.core else {
                return Ok(());
            };
            match core.maintain() {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if self.disk.is_crashed() || self.trouble() > trouble => break,
                Err(error) => {
                    return Err(Violation(format!(
                        "maintenance failed for no reason: {}",
                        ErrorChain(&error)
                    )));
                }
            }
        }
        self.check()
    }

    /// Returns a truncation of one of the streams.
    #[must_use]
    pub fn truncation(stream: u64, before: u64) -> Truncation {
        Truncation {
            stream: name(stream),
            before: Revision::new(before),
        }
    }

    /// Erases the events below these truncations, but stops after this many segments.
    ///
    /// # Errors
    /// [`Violation`] if that fails for no reason, or not everything is gone that must be.
    pub fn scavenge(
        &mut self,
        truncations: &[Truncation],
        options: ScavengeOptions,
        segments: u64,
    ) -> Result<(), Violation> {
        self.open()?;
        let trouble = self.trouble();
        let Some(core) = &mut self.core else {
            return Ok(());
        };
        self.oracle.may_erase(truncations);
        let mut left = segments;
        let scavenged = core.scavenge(truncations, options, &mut |_| {
            left = left.saturating_sub(1);
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Ok(done) = &scavenged {
            self.report.erased += done.events_erased;
        }
        match scavenged {
            Ok(done) if done.is_finished() => self.oracle.erased(truncations, done.through),
            Ok(done) if done.segments_done == segments => {}
            Ok(done) => return Err(Violation(format!("scavenging ended early: {done:?}"))),
            Err(_) if self.disk.is_crashed() || self.trouble() > trouble => {}
            // A write or sync that failed before has latched the log.
            Err(leftfold_log::ScavengeError::ReadOnly { .. }) if trouble > 0 => {}
            Err(error) => {
                return Err(Violation(format!(
                    "scavenging failed for no reason: {}",
                    ErrorChain(&error)
                )));
            }
        }
        self.check()
    }

    /// Erases the events below all truncations so far, which completes earlier scavenges.
    ///
    /// # Errors
    /// As [`Self::scavenge`].
    pub fn finish_scavenging(&mut self) -> Result<(), Violation> {
        let truncations = self.oracle.truncations();
        if truncations.is_empty() {
            return Ok(());
        }
        self.scavenge(&truncations, ScavengeOptions::default(), u64::MAX)
    }

    /// Closes the log, and verifies every byte on the disk.
    ///
    /// # Errors
    /// [`Violation`] if there is damage.
    pub fn verify(&mut self) -> Result<(), Violation> {
        self.restart(CrashKind::Killed);
        self.disk.fail(None);
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let verified = leftfold_log::verify(&disk, &mut |_| {});
        let broken = |error| Violation(format!("the log does not verify: {}", ErrorChain(&error)));
        verified.map(drop).map_err(broken)
    }

    /// Closes the log cleanly; the next step opens it again.
    ///
    /// # Errors
    /// [`Violation`] if the stop fails for no reason.
    pub fn close(&mut self) -> Result<(), Violation> {
        // A cursor outlives the log that it reads.
        self.advance_cursor(u64::MAX)?;
        let Some(core) = self.core.take() else {
            return Ok(());
        };
        match core.close() {
            Err(error) if self.trouble() == 0 && !self.disk.is_crashed() => Err(Violation(
                format!("closing failed for no reason: {}", ErrorChain(&error)),
            )),
            _ => Ok(()),
        }
    }

    /// Plays the history of this run's seed: several processes, each with random steps and an end of some kind.
    ///
    /// # Errors
    /// [`Violation`] with the violated promise.
    pub fn play(&mut self) -> Result<(), Violation> {
        for _ in 0..2 + self.chance.below(5) {
            if self.chance.percent(70) {
                let ahead = 1 + self.chance.below(60);
                self.disk.crash_at(self.disk.ops() + ahead);
            }
            self.open()?;
            for _ in 0..1 + self.chance.below(14) {
                if self.disk.is_crashed() {
                    break;
                }
                self.step()?;
            }
            let loss = self.any_loss();
            if self.chance.percent(15) {
                self.close()?;
            }
            // A full disk may stay full.
            if self.chance.percent(60) {
                self.disk.set_capacity(None);
            }
            let fault = match self.chance.below(8) {
                0 => Some(Op::Open),
                1 => Some(Op::Read),
                2 => Some(Op::List),
                3 => Some(Op::Lock),
                _ => None,
            };
            self.restart(loss);
            let nth = 1 + self.chance.below(6);
            self.disk.fail(fault.map(|op| Fault::io(op, nth)));
        }
        self.disk.set_capacity(None);
        self.open()?;
        self.disk.fail(None);
        self.retry_unknown()?;
        self.finish_scavenging()?;
        self.check()?;
        self.verify()
    }

    fn step(&mut self) -> Result<(), Violation> {
        match self.chance.below(100) {
            0..25 => {
                let group = self.guarded_group();
                self.commit(&group)
            }
            25..55 => {
                let mut group = Vec::new();
                for _ in 0..1 + self.chance.below(4) {
                    let (streams, events) = (1 + self.chance.below(2), 1 + self.chance.below(3));
                    let bytes = match self.chance.below(100) {
                        0 => 90_000,
                        1..10 => 3_000,
                        _ => self.chance.below(200),
                    };
                    group.push(self.request(streams, events, usize::try_from(bytes).unwrap_or(0)));
                }
                self.commit(&group)
            }
            55..60 => self.hold_cursor(),
            60..66 => {
                let batches = 1 + self.chance.below(20);
                self.advance_cursor(batches)
            }
            66..75 => {
                let steps = 1 + self.chance.below(3);
                self.maintain(steps)
            }
            75..79 => {
                let truncations: Vec<Truncation> = (0..1 + self.chance.below(2))
                    .map(|_| Self::truncation(self.chance.below(4), self.chance.below(20)))
                    .collect();
                let mut options = ScavengeOptions::default();
                if self.chance.percent(40) {
                    options = options.with_seal_newest();
                }
                let segments = 1 + self.chance.below(4);
                self.scavenge(&truncations, options, segments)
            }
            79..84 => self.repeat(),
            84..87 => self.retry_unknown(),
            87..94 => {
                let fault = self.fault();
                self.disk.fail(Some(fault));
                Ok(())
            }
            94..97 => {
                let bytes = usize::try_from(self.chance.below(120_000)).unwrap_or(0);
                self.disk
                    .set_capacity(self.chance.percent(60).then_some(bytes));
                Ok(())
            }
            _ => self.close(),
        }
    }
}
