//! Locks, condition variables and threads that a scheduler of `shuttle` runs, one at a time.
//!
//! **Owns:** the same names as `crate::sync`. **Does not know:** what they guard; in which order threads run.
//! **Invariants:** a panic ends its thread and not the execution, as threads of a program end.

pub(crate) use std::thread::panicking;
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{self, PoisonError},
};

use shuttle::thread;
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread::{JoinHandle, ThreadId, current, sleep},
};

/// Starts a thread of this name.
pub(crate) fn spawn(name: &str, body: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    let run = move || {
        // Its handle would report the panic; the engine learns of it from what its threads leave behind.
        let _ = catch_unwind(AssertUnwindSafe(body));
    };
    thread::Builder::new().name(name.to_owned()).spawn(run)
}

/// A value that is set once, for which other threads can wait.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: sync::OnceLock<T>,
    lock: Mutex<()>,
    set: Condvar,
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self {
            value: sync::OnceLock::new(),
            lock: Mutex::default(),
            set: Condvar::default(),
        }
    }
}

impl<T> OnceLock<T> {
    /// Returns the value, if it is set.
    pub(crate) fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// Sets the value; returns it if one was set before.
    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let set = self.value.set(value);
        self.set.notify_all();
        set
    }

    /// Waits until the value is set.
    pub(crate) fn wait(&self) -> &T {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = self.value.get() {
                return value;
            }
            lock = self.set.wait(lock).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
