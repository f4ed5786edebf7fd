//! Appends whose lookups take long, on their way to the commit queue.
//!
//! **Owns:** [`SlowLane`]: the appends that wait for their lookups, and which streams they touch. **Does not know:** what makes
//! an append slow; what becomes of it.
//! **Invariants:** bounded in appends and bytes; appends leave in the order they came; an append that touches a stream of one
//! before it never overtakes that one.

use std::{
    collections::{HashMap, VecDeque},
    sync::PoisonError,
};

use foldhash::fast::RandomState;
use leftfold_model::{Append, StreamName};

use super::{
    queue::Answer,
    sync::{Condvar, Mutex, MutexGuard},
};

/// Appends that may wait.
const APPENDS_MAX: usize = 1_024;
/// Bytes that may wait, one append more or less.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct SlowLane {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<(Append, Answer)>,
    bytes: usize,
    /// How many appends that wait, or are looked up at this moment, touch a stream.
    streams: HashMap<StreamName, usize, RandomState>,
    closed: bool,
}

/// The streams that an append writes or checks.
fn streams(append: &Append) -> impl Iterator<Item = &StreamName> {
    let written = append.writes().iter().map(|write| &write.stream);
    written.chain(append.checks().iter().map(|check| &check.stream))
}

impl SlowLane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an append has to wait for one that is on its way.
    pub(crate) fn holds_up(&self, append: &Append) -> bool {
        let state = self.lock();
        !state.streams.is_empty()
            && streams(append).any(|stream| state.streams.contains_key(stream))
    }

    /// Adds an append; waits for room. If the lane is closed, its caller learns that the writer is gone.
    pub(crate) fn push(&self, append: Append, answer: Answer) {
        let mut state = self.lock();
        while !state.closed && (state.jobs.len() >= APPENDS_MAX || state.bytes >= BYTES_MAX) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        for stream in streams(&append) {
            *state.streams.entry(stream.clone()).or_default() += 1;
        }
        state.bytes += append.size();
        state.jobs.push_back((append, answer));
        self.changed.notify_all();
    }

    /// Takes the oldest append; waits for one. `None`: the lane is closed and empty.
    pub(crate) fn pop(&self) -> Option<(Append, Answer)> {
        let mut state = self.lock();
        loop {
            if let Some((append, answer)) = state.jobs.pop_front() {
                state.bytes = state.bytes.saturating_sub(append.size());
                self.changed.notify_all();
                return Some((append, answer));
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes note that an append that was taken is staged, or settled.
    pub(crate) fn done(&self, touched: &[StreamName]) {
        let mut state = self.lock();
        for stream in touched {
            if let Some(count) = state.streams.get_mut(stream) {
                *count -= 1;
                if *count == 0 {
                    state.streams.remove(stream);
                }
            }
        }
    }

    /// The streams to give to [`Self::done`] later.
    pub(crate) fn touched(append: &Append) -> Vec<StreamName> {
        streams(append).cloned().collect()
    }

    /// Ends [`Self::pop`] once everything was taken.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Drops what waits: callers learn that the writer is gone.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }
}
