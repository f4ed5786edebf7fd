//! Locks, condition variables and threads of the engine.
//!
//! **Owns:** which of them the engine uses: those of the standard library. **Does not know:** what they guard.
//! **Invariants:** the engine takes them from here alone, so that `simulated` can build it over the ones of a scheduler that
//! decides which thread runs. Atomic numbers, and locks that no thread keeps while it waits, are used as they are.

use std::{io, thread};
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock},
    thread::{JoinHandle, ThreadId, current, panicking, sleep},
};

/// Starts a thread of this name.
pub(crate) fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}
