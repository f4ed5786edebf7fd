//! A disk that does everything a real one may do to what was not synced.
//!
//! **Owns:** [`SimDisk`]: files, the directory, what is cached and what is durable, faults. **Does not know:** logs.
//! **Invariants:** reads see the cache; a sync makes durable what was written since the last one, never the cache itself; a
//! failed sync forgets what was written, and later ones succeed (Rebello et al., 2020); a file's name is durable
//! only after a sync of the directory; a power cut keeps any part of what was not synced, in sectors of 512 bytes
//! that may tear; a killed process loses nothing that was written.

mod fault;
mod file;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use leftfold_log::disk::{Disk, DiskFile, DiskLock, FileName, LockError};

pub use fault::{CrashKind, Fault, FaultError, Interruption, Op};
use file::SimFile;

use crate::Rng;

/// Bytes that are written together or not, most of the time.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Clone)]
enum Pending {
    Write { at: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Clone)]
enum DirPending {
    Link(FileName, u64),
    Rename(FileName, FileName, u64),
    Unlink(FileName),
}

#[derive(Debug, Default)]
struct File {
    cache: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

impl File {
    fn write(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
        let end = at + written.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(place) = bytes.get_mut(at..end) {
            place.copy_from_slice(written);
        }
    }

    fn apply(&mut self, pending: &Pending) {
        match pending {
            Pending::Write { at, bytes } => Self::write(&mut self.durable, *at, bytes),
            Pending::SetLen(len) => self.durable.resize(*len, 0),
        }
    }

    /// Keeps some sectors of a write; some of those kept tear at a byte.
    fn apply_sectors(&mut self, at: usize, bytes: &[u8], chance: &mut Rng) {
        let mut from = 0;
        while from < bytes.len() {
            let sector_end = (at + from + 1).next_multiple_of(SECTOR_BYTES) - at;
            let to = sector_end.min(bytes.len());
            if chance.percent(50) {
                let torn = chance.percent(5);
                let keep = if torn {
                    usize::try_from(chance.below((to - from) as u64)).unwrap_or(0)
                } else {
                    to - from
                };
                Self::write(
                    &mut self.durable,
                    at + from,
                    bytes.get(from..from + keep).unwrap_or_default(),
                );
            }
            from = to;
        }
    }
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, File>,
    live: BTreeMap<FileName, u64>,
    durable: BTreeMap<FileName, u64>,
    pending: Vec<DirPending>,
    next_file: u64,
    ops: u64,
    /// Number of queries whether bytes are in memory.
    residency_queries: u64,
    crash_at: Option<u64>,
    crashed: bool,
    /// The number of restarts; handles of an earlier process have a lower one.
    incarnation: u64,
    locked: bool,
    fault: Option<Fault>,
    capacity: Option<usize>,
    trace: u64,
    seen: BTreeMap<&'static str, u64>,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    interruption: Option<Arc<dyn Interruption>>,
}

#[derive(Debug)]
struct Held {
    state: Arc<Mutex<State>>,
    incarnation: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.incarnation == self.incarnation {
            state.locked = false;
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn broken() -> io::Error {
    io::Error::other("simulated I/O error")
}

/// The fate of an operation.
enum Fate {
    Done,
    /// The machine stops in it: it may have reached the cache.
    Last,
    Failed(FaultError),
}

impl Fate {
    fn result(self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Last => Err(broken()),
            Self::Failed(error) => Err(error.error()),
        }
    }
}

impl State {
    fn fate(&mut self, op: Op, name: u64) -> io::Result<Fate> {
        if self.crashed {
            return Err(broken());
        }
        self.ops += 1;
        self.trace = (self.trace ^ (op as u64) ^ (name << 8))
            .wrapping_mul(0x0100_0000_01b3)
            .rotate_left(5);
        if self.crash_at.is_some_and(|at| self.ops >= at) {
            self.crashed = true;
            self.see("crash inside an operation");
            return Ok(Fate::Last);
        }
        if let Some(fault) = &mut self.fault
            && fault.op == op
        {
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth == 0 {
                let error = fault.error;
                self.fault = None;
                self.see(match op {
                    Op::Sync => "failed sync",
                    Op::SyncDir => "failed directory sync",
                    Op::Write => "failed write",
                    _ => "failed other operation",
                });
                return Ok(Fate::Failed(error));
            }
        }
        Ok(Fate::Done)
    }

    /// Fails an operation that changes nothing, if it is the one that is to fail.
    fn look(&mut self, op: Op) -> io::Result<()> {
        let Some(fault) = self.fault.as_mut().filter(|fault| fault.op == op) else {
            return Ok(());
        };
        fault.nth = fault.nth.saturating_sub(1);
        if fault.nth > 0 {
            return Ok(());
        }
        self.fault = None;
        self.see(match op {
            Op::Open => "failed open",
            Op::Read => "failed read",
            Op::List => "failed listing",
            _ => "failed lock",
        });
        Err(broken())
    }

    fn see(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn link(&mut self, pending: DirPending) {
        Self::apply_dir(&mut self.live, &pending);
        self.pending.push(pending);
    }

    fn apply_dir(directory: &mut BTreeMap<FileName, u64>, pending: &DirPending) {
        match pending {
            DirPending::Link(name, file) => {
                directory.insert(*name, *file);
            }
            DirPending::Rename(from, to, file) => {
                directory.remove(from);
                directory.insert(*to, *file);
            }
            DirPending::Unlink(name) => {
                directory.remove(name);
            }
        }
    }

    /// A change of the directory, which a crash inside of it may or may not have made.
    fn change(&mut self, op: Op, pending: DirPending) -> io::Result<()> {
        let number = self.ops;
        match self.fate(op, number)? {
            Fate::Done => {
                self.link(pending);
                Ok(())
            }
            Fate::Last => {
                if number.is_multiple_of(2) {
                    self.link(pending);
                }
                Err(broken())
            }
            Fate::Failed(error) => Err(error.error()),
        }
    }

    fn find(&self, name: &FileName) -> io::Result<u64> {
        self.live
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check_running(&self, incarnation: u64) -> io::Result<()> {
        if self.crashed || self.incarnation != incarnation {
            Err(broken())
        } else {
            Ok(())
        }
    }

    fn allocated(&self) -> usize {
        self.live
            .values()
            .filter_map(|file| self.files.get(file))
            .map(|file| file.cache.len())
            .sum()
    }
}

impl SimDisk {
    /// Creates an empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a disk with these files, all of it durable; see [`Self::contents`].
    #[must_use]
    pub fn holding(files: &[(FileName, Vec<u8>)]) -> Self {
        let disk = Self::new();
        let mut state = disk.lock_state();
        for (name, bytes) in files {
            state.next_file += 1;
            let file = state.next_file;
            state.live.insert(*name, file);
            state.durable.insert(*name, file);
            let (cache, durable, pending) = (bytes.clone(), bytes.clone(), Vec::new());
            state.files.insert(
                file,
                File {
                    cache,
                    durable,
                    pending,
                },
            );
        }
        drop(state);
        disk
    }

    /// Lets something happen before each operation of this clone that changes something, and of the files it opens.
    #[must_use]
    pub fn interrupted_by(mut self, interruption: Arc<dyn Interruption>) -> Self {
        self.interruption = Some(interruption);
        self
    }

    fn interrupt(&self, op: Op) {
        if let Some(interruption) = &self.interruption {
            interruption.before(op);
        }
    }

    fn file(&self, state: &State, file: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            file,
            incarnation: state.incarnation,
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Returns how many operations changed something so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.lock_state().ops
    }

    /// Returns a number that two histories share only if they did equal operations in equal order.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.lock_state().trace
    }

    /// Stops the machine in the operation with this number; see [`Self::ops`].
    pub fn crash_at(&self, op: u64) {
        self.lock_state().crash_at = Some(op);
    }

    /// Returns whether the machine has stopped.
    #[must_use]
    pub fn is_crashed(&self) -> bool {
        self.lock_state().crashed
    }

    /// Lets an operation fail.
    pub fn fail(&self, fault: Option<Fault>) {
        self.lock_state().fault = fault;
    }

    /// Takes back the fault that has not hit yet, for [`Self::fail`] to set again.
    #[must_use]
    pub fn suspend_fault(&self) -> Option<Fault> {
        self.lock_state().fault.take()
    }

    /// Bounds the bytes of all files together.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.lock_state().capacity = bytes;
    }

    /// Returns the kinds of faults, and how often each occurred.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.lock_state().seen.clone()
    }

    /// Stops the machine or the process now, and starts it again.
    pub fn restart(&self, loss: CrashKind, chance: &mut Rng) {
        let mut state = self.lock_state();
        state.see(match loss {
            CrashKind::Killed => "process killed",
            CrashKind::All => "power cut, everything unsynced lost",
            CrashKind::Nothing => "power cut, nothing lost",
            CrashKind::Sectors => "power cut, sectors lost",
            CrashKind::Prefix => "power cut, a prefix kept",
        });
        state.incarnation += 1;
        (state.crashed, state.crash_at, state.locked, state.fault) = (false, None, false, None);
        if loss == CrashKind::Killed {
            return;
        }
        let state = &mut *state;
        for file in state.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            let kept = usize::try_from(chance.below(pending.len() as u64 + 1)).unwrap_or(0);
            for (index, pending) in pending.iter().enumerate() {
                match (loss, pending) {
                    (CrashKind::Nothing, _) => file.apply(pending),
                    (CrashKind::Prefix, _) if index < kept => file.apply(pending),
                    (CrashKind::Sectors, Pending::Write { at, bytes }) => {
                        file.apply_sectors(*at, bytes, chance)
                    }
                    (CrashKind::Sectors, Pending::SetLen(_)) if chance.percent(50) => {
                        file.apply(pending)
                    }
                    _ => {}
                }
            }
            file.cache = file.durable.clone();
        }
        let pending = std::mem::take(&mut state.pending);
        let kept = usize::try_from(chance.below(pending.len() as u64 + 1)).unwrap_or(0);
        for (index, pending) in pending.iter().enumerate() {
            let keeps = match loss {
                CrashKind::Nothing => true,
                CrashKind::Prefix => index < kept,
                CrashKind::Sectors => chance.percent(50),
                CrashKind::All | CrashKind::Killed => false,
            };
            if keeps {
                State::apply_dir(&mut state.durable, pending);
            }
        }
        state.live = state.durable.clone();
        let State { files, live, .. } = state;
        files.retain(|file, _| live.values().any(|named| named == file));
    }

    /// Returns the bytes of all files as a reader would see them, to be compared.
    #[must_use]
    pub fn contents(&self) -> Vec<(FileName, Vec<u8>)> {
        let state = self.lock_state();
        let bytes = |file: &u64| {
            state
                .files
                .get(file)
                .map(|file| file.cache.clone())
                .unwrap_or_default()
        };
        state
            .live
            .iter()
            .map(|(name, file)| (*name, bytes(file)))
            .collect()
    }
}

impl Disk for SimDisk {
    fn create(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        self.interrupt(Op::Create);
        let mut state = self.lock_state();
        if state.live.contains_key(name) && !state.crashed {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.next_file += 1;
        let file = state.next_file;
        state.files.insert(file, File::default());
        state.change(Op::Create, DirPending::Link(*name, file))?;
        Ok(self.file(&state, file))
    }

    fn open(&self, name: &FileName) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock_state();
        state.check_running(state.incarnation)?;
        let file = state.find(name)?;
        state.look(Op::Open)?;
        Ok(self.file(&state, file))
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.interrupt(Op::Rename);
        let mut state = self.lock_state();
        let file = state.find(from)?;
        state.change(Op::Rename, DirPending::Rename(*from, *to, file))
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.interrupt(Op::Remove);
        let mut state = self.lock_state();
        state.find(name)?;
        state.change(Op::Remove, DirPending::Unlink(*name))
    }

    fn list(&self) -> io::Result<Vec<Result<FileName, String>>> {
        let mut state = self.lock_state();
        state.check_running(state.incarnation)?;
        state.look(Op::List)?;
        Ok(state.live.keys().map(|name| Ok(*name)).collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.interrupt(Op::SyncDir);
        let mut state = self.lock_state();
        match state.fate(Op::SyncDir, 0)? {
            Fate::Done => {
                let pending = std::mem::take(&mut state.pending);
                pending
                    .iter()
                    .for_each(|pending| State::apply_dir(&mut state.durable, pending));
                Ok(())
            }
            Fate::Last => Err(broken()),
            Fate::Failed(error) => {
                state.pending.clear();
                Err(error.error())
            }
        }
    }

    fn lock(&self) -> Result<DiskLock, LockError> {
        let mut state = self.lock_state();
        state.check_running(state.incarnation)?;
        if state.locked {
            return Err(LockError::Held);
        }
        state.look(Op::Lock)?;
        state.locked = true;
        Ok(DiskLock::new(Held {
            state: Arc::clone(&self.state),
            incarnation: state.incarnation,
        }))
    }
}
