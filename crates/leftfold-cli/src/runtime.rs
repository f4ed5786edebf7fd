//! The runtime that every command runs on.
//!
//! **Owns:** [`start`], and what it says where the system has too few threads. **Does not know:** commands.
//! **Invariants:** the runtime is built only if its threads can be started: while it is built, a thread that cannot be started
//! would panic, or make the process wait forever.

use std::{
    io,
    sync::Mutex,
    thread::{self, available_parallelism},
};

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

/// Threads beside the workers of the runtime: those of a store, and a few that wait for files.
const OTHER_THREADS: usize = 8;

/// Starts the runtime.
///
/// # Errors
/// If the system starts too few threads.
pub(crate) fn start() -> anyhow::Result<Runtime> {
    let threads = available_parallelism().map_or(1, usize::from) + OTHER_THREADS;
    check_threads(threads).with_context(|| {
        format!(
            "{threads} threads cannot be started; raise the limit of the user (ulimit -u) or of the container (pids)"
        )
    })?;
    Ok(Builder::new_multi_thread().enable_all().build()?)
}

/// Starts as many threads at once, and ends them.
fn check_threads(threads: usize) -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let started: io::Result<Vec<_>> = (0..threads)
            .map(|_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())))
            .collect();
        drop(closed);
        started.map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_started_where_there_are_threads() {
        check_threads(40).unwrap();
        assert_eq!(start().unwrap().block_on(async { 7 }), 7);
    }
}
