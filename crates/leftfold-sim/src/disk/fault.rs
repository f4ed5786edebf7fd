//! What can go wrong in a simulated disk.
//!
//! **Owns:** the operations that can fail, the kinds of failures and crashes, and what may happen between operations.
//! **Does not know:** files; what a failure leaves behind.

use std::io;

use super::broken;

/// Operations that can fail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Op {
    /// A file is created.
    Create,
    /// Bytes are written.
    Write,
    /// A length is set.
    SetLen,
    /// A file is synced.
    Sync,
    /// A file gets another name.
    Rename,
    /// A name is removed.
    Remove,
    /// The directory is synced.
    SyncDir,
    /// A file is opened. This and what follows changes nothing, so that no crash is counted in it.
    Open,
    /// Bytes are read.
    Read,
    /// The directory is listed.
    List,
    /// The directory is locked.
    Lock,
}

/// What happens to what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashKind {
    /// The power goes: all of it is lost.
    All,
    /// The power goes, but everything had reached the disk.
    Nothing,
    /// The power goes: each sector is lost or kept on its own, and some tear.
    Sectors,
    /// The power goes: what was written first is kept.
    Prefix,
    /// Only the process is killed.
    Killed,
}

impl CrashKind {
    /// All of them.
    pub const EVERY: [CrashKind; 5] = [
        CrashKind::All,
        CrashKind::Nothing,
        CrashKind::Sectors,
        CrashKind::Prefix,
        CrashKind::Killed,
    ];
}

/// An operation that is going to fail: the `nth` of its kind from now on, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Which operations count.
    pub op: Op,
    /// Which of them fails.
    pub nth: u64,
    /// With which error.
    pub error: FaultError,
}

impl Fault {
    /// An I/O error of the `nth` operation of this kind.
    #[must_use]
    pub fn io(op: Op, nth: u64) -> Self {
        let error = FaultError::Io;
        Self { op, nth, error }
    }

    /// A full disk at the `nth` operation of this kind.
    #[must_use]
    pub fn full(op: Op, nth: u64) -> Self {
        let error = FaultError::Full;
        Self { op, nth, error }
    }
}

/// The error of an operation that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultError {
    /// An I/O error.
    Io,
    /// The disk is full.
    Full,
}

impl FaultError {
    pub(super) fn error(self) -> io::Error {
        match self {
            Self::Io => broken(),
            Self::Full => io::ErrorKind::StorageFull.into(),
        }
    }
}

/// What happens in a program while its disk works: called before each operation that changes something.
pub trait Interruption: std::fmt::Debug + Send + Sync {
    /// An operation begins. No lock of the disk is held.
    fn before(&self, op: Op);
}
