//! Handling one event: attempts, backoff, panics, timeouts.
//!
//! **Owns:** the attempts of one event until it is handled or fails. **Does not know:** keys, parking, checkpoints.
//! **Invariants:** no attempt begins behind the end of the claim; a panic and a timeout are failed attempts; a part that was
//! handled is not handled again because a later part of the same event failed; only an attempt occupies a slot, a pause does not;
//! a listener that stops does not wait for pauses.

use std::{future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, task::Poll};

use futures_util::FutureExt;
use leftfold_model::RecordedEvent;
use leftfold_store::consumers::{KEY_BYTES_MAX, Timer};
use tokio::{
    sync::{Semaphore, watch},
    time::{self, Instant},
};

use super::{error::HandlerError, handle::Progress, listener::Listener, settings::Settings};
use crate::{
    Recorded,
    causation::{self, Cause},
    load::typed,
    panic_message,
    reason::{bounded, chain},
};

/// The state that all attempts share.
pub(super) struct Handler<L> {
    pub(super) listener: Arc<L>,
    pub(super) settings: Settings,
    pub(super) slots: Semaphore,
    pub(super) progress: Arc<Progress>,
    /// When the claim expires by this process's own clock.
    pub(super) deadline: watch::Sender<Instant>,
}

/// An event or a timer, ready to be handled.
pub(super) struct Prepared<E> {
    work: Work<E>,
    /// What commands of the handler are caused by.
    cause: Option<Cause>,
}

enum Work<E> {
    /// The decoded values of an event, or why it cannot be decoded.
    Event(Result<Vec<Recorded<E>>, String>),
    Timer(Timer),
}

/// The attempts failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) attempts: u32,
    pub(super) reason: String,
    /// Why there was no last attempt: the event is neither handled nor failed.
    pub(super) interrupted: Option<Interrupted>,
}

/// Why no further attempt of an event begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// The listener was stopped.
    Stopped,
    /// The claim expired.
    Expired,
}

impl Failure {
    pub(super) fn new(attempts: u32, reason: &str) -> Self {
        Self {
            attempts,
            reason: bounded(reason),
            interrupted: None,
        }
    }

    fn interrupted(attempts: u32, interrupted: Interrupted, reason: &str) -> Self {
        Self {
            interrupted: Some(interrupted),
            ..Self::new(attempts, reason)
        }
    }
}

/// Why an attempt failed.
enum AttemptError {
    Failed(String),
    /// It did not begin.
    Expired,
}

impl<L: Listener> Handler<L> {
    /// Whether each handler has a task of its own: those of a process, which compute more than they wait.
    pub(super) fn has_tasks(&self) -> bool {
        L::IS_PROCESS && self.settings.parallel > 1
    }

    /// Decodes an event, and turns an error or a panic into a failure.
    pub(super) fn prepare(&self, stored: &RecordedEvent) -> Prepared<L::Event> {
        self.prepare_with(stored, |_| ()).1
    }

    /// Decodes an event, as [`Self::prepare`], and returns its key too.
    pub(super) fn prepare_keyed(&self, stored: &RecordedEvent) -> (String, Prepared<L::Event>) {
        let (key, prepared) = self.prepare_with(stored, L::key);
        let mut key = key.unwrap_or_else(|| stored.stream.as_str().to_owned());
        key.truncate(key.floor_char_boundary(KEY_BYTES_MAX));
        (key, prepared)
    }

    fn prepare_with<K>(
        &self,
        stored: &RecordedEvent,
        key: impl FnOnce(&Recorded<L::Event>) -> K,
    ) -> (Option<K>, Prepared<L::Event>) {
        let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let values = typed::<L::Event>(stored).map_err(|error| chain(&error))?;
            let key = values.first().map(key);
            Ok((key, values))
        }));
        let (key, values) = match prepared {
            Ok(Ok((key, values))) => (key, Ok(values)),
            Ok(Err(reason)) => (None, Err(reason)),
            Err(panic) => {
                let message = panic_message::message(panic.as_ref());
                (None, Err(format!("decoding panicked: {message}")))
            }
        };
        let prepared = Prepared {
            work: Work::Event(values),
            // The commands of a process have causes of their own.
            cause: (!L::IS_PROCESS).then(|| Cause::of(stored)),
        };
        (key, prepared)
    }

    /// Prepares a timer that is due. Returns its key too.
    pub(super) fn prepare_timer(&self, timer: Timer) -> (String, Prepared<L::Event>) {
        let key = L::timer_key(&timer);
        let prepared = Prepared {
            work: Work::Timer(timer),
            cause: None,
        };
        (key, prepared)
    }

    /// Handles an event or a timer, with retries as the settings say.
    pub(super) async fn handle(
        self: Arc<Self>,
        prepared: Prepared<L::Event>,
    ) -> Result<(), Failure> {
        let values = match prepared.work {
            Work::Event(values) => values.map_err(|reason| Failure::new(1, &reason))?,
            Work::Timer(timer) => {
                let attempt = || self.attempt(async { self.listener.on_timer(&timer).await });
                return self
                    .attempts(attempt, || format!("timer {}", timer.id))
                    .await;
            }
        };
        for value in &values {
            let cause = || prepared.cause.clone();
            let attempt =
                || self.attempt(async { causation::scope(cause(), self.listener.on(value)).await });
            let event = || format!("event {} of stream {}", value.revision, value.stream);
            self.attempts(attempt, event).await?;
        }
        Ok(())
    }

    async fn attempts<A>(
        &self,
        mut attempt: impl FnMut() -> A,
        of: impl Fn() -> String,
    ) -> Result<(), Failure>
    where
        A: Future<Output = Result<(), AttemptError>>,
    {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let reason = match attempt().await {
                Ok(()) => return Ok(()),
                Err(AttemptError::Failed(reason)) => reason,
                Err(AttemptError::Expired) => {
                    let reason = "claim expired";
                    return Err(Failure::interrupted(attempts, Interrupted::Expired, reason));
                }
            };
            // In memory of its own, so that events that do not fail need less.
            Box::pin(self.pause(attempts, &reason, &of())).await?;
        }
    }

    /// Waits for the next attempt, if there is to be one.
    async fn pause(&self, attempts: u32, reason: &str, of: &str) -> Result<(), Failure> {
        if attempts >= self.settings.backoff.attempts {
            return Err(Failure::new(attempts, reason));
        }
        self.progress.retried();
        tracing::warn!(
            consumer = L::NAME,
            of,
            attempts,
            reason,
            "attempt failed, will be retried"
        );
        tokio::select! {
            biased;
            () = self.progress.stopped() => {
                Err(Failure::interrupted(attempts, Interrupted::Stopped, reason))
            }
            () = time::sleep(self.settings.backoff.pause(attempts)) => Ok(()),
        }
    }

    async fn attempt(
        &self,
        work: impl Future<Output = Result<(), HandlerError>>,
    ) -> Result<(), AttemptError> {
        // Attempts of a listener are polled by one task, so a slot that is free now stays free until this one waits,
        // unless each has a task of its own.
        let mut slot = match self.slots.available_permits() {
            free if free > 0 && !self.has_tasks() => None,
            // Never closed.
            _ => self.slots.acquire().await.ok(),
        };
        // The process may have stood still for longer than the claim lasts, while this waited for a slot or for its next attempt.
        if Instant::now() >= *self.deadline.borrow() {
            return Err(AttemptError::Expired);
        }
        let mut handled = pin!(AssertUnwindSafe(work).catch_unwind());
        // A handler that waits for nothing needs neither slot nor timeout.
        let ended = match poll_fn(|cx| Poll::Ready(handled.as_mut().poll(cx))).await {
            Poll::Ready(ended) => Ok(ended),
            Poll::Pending => {
                slot = slot.or_else(|| self.slots.try_acquire().ok());
                time::timeout(self.settings.timeout, handled).await
            }
        };
        drop(slot);
        let reason = match ended {
            Ok(Ok(Ok(()))) => return Ok(()),
            Ok(Ok(Err(error))) => chain(error.as_ref()),
            Ok(Err(panic)) => {
                let message = panic_message::message(panic.as_ref());
                format!("handler panicked: {message}")
            }
            Err(_) => format!("handler timed out after {:?}", self.settings.timeout),
        };
        Err(AttemptError::Failed(reason))
    }
}
