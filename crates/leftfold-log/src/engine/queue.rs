//! The queue of appends whose callers await instead of blocking.
//!
//! **Owns:** [`Queue`], [`Ticket`]. **Does not know:** how appends are decided.
//! **Invariants:** bounded in appends and bytes; every accepted append is answered, or its caller learns that the writer is
//! gone; appends leave in the order in which they entered.

use std::{
    collections::VecDeque,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll},
};

use leftfold_model::{Append, Appended};

use super::{
    error::AppendError,
    sync::{Condvar, Mutex, MutexGuard},
};

/// Maximum number of queued appends. Each waits for at most one group before its own.
const QUEUE_APPENDS_MAX: usize = 8_192;
/// Maximum bytes of queued appends, one append more or less.
const QUEUE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Maximum number of appends that leave at once.
const SOME: usize = 256;

/// Where the outcome of an append goes.
pub(crate) type Answer = oneshot::Sender<Result<Appended, AppendError>>;

/// Appends that wait for the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<(Append, Answer)>,
    bytes: usize,
    closed: bool,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.jobs.len() >= QUEUE_APPENDS_MAX || self.bytes >= QUEUE_BYTES_MAX
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an append, if the queue is not full.
    pub(crate) fn push(&self, append: Append) -> Result<Ticket, AppendError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(AppendError::Closed);
        }
        if waiting.is_full() {
            return Err(AppendError::Busy);
        }
        let (answer, answered) = oneshot::channel();
        waiting.bytes += append.size();
        waiting.jobs.push_back((append, answer));
        drop(waiting);
        self.filled.notify_one();
        Ok(Ticket(answered))
    }

    /// Returns some of the queued appends, oldest first, and blocks while there is none; `None` if the queue is closed and empty.
    pub(crate) fn pop_batch(&self) -> Option<Vec<(Append, Answer)>> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self
                .filled
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = waiting.jobs.len().min(SOME);
        let some: Vec<_> = waiting.jobs.drain(..count).collect();
        let bytes: usize = some.iter().map(|(append, _)| append.size()).sum();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        Some(some)
    }

    /// Refuses further appends; queued ones still leave.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    /// Drops the queued appends: callers learn that the writer is gone.
    pub(crate) fn abandon(&self) {
        self.close();
        self.lock().jobs.clear();
    }
}

/// An accepted append whose outcome is pending. Wait for it, or await it.
///
/// Dropping a ticket does not cancel the append.
#[derive(Debug)]
#[must_use = "the outcome of the append is only known through its ticket"]
pub struct Ticket(oneshot::Receiver<Result<Appended, AppendError>>);

impl Ticket {
    /// Blocks until the append is durable or refused.
    ///
    /// # Errors
    /// [`AppendError`].
    pub fn wait(self) -> Result<Appended, AppendError> {
        self.0.recv().unwrap_or(Err(AppendError::WriterLost))
    }
}

impl IntoFuture for Ticket {
    type Output = Result<Appended, AppendError>;
    type IntoFuture = TicketFuture;
    fn into_future(self) -> TicketFuture {
        TicketFuture(self.0.into_future())
    }
}

/// The future of a [`Ticket`].
#[derive(Debug)]
pub struct TicketFuture(oneshot::AsyncReceiver<Result<Appended, AppendError>>);

impl Future for TicketFuture {
    type Output = Result<Appended, AppendError>;
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|answer| answer.unwrap_or(Err(AppendError::WriterLost)))
    }
}
