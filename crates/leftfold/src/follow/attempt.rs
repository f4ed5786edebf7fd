//! Handling one event: attempts, backoff, panics, timeouts.
//!
//! **Owns:** the attempts of one event until it is handled or fails. **Does not know:** keys, parking, checkpoints.
//! **Invariants:** a panic and a timeout are failed attempts; a part that was handled is not handled again because a later
//! part of the same event failed; only an attempt occupies a slot, a pause does not; a listener that stops does not wait for
//! pauses.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use leftfold_model::RecordedEvent;
use leftfold_store::consumers::REASON_BYTES_MAX;
use tokio::{sync::Semaphore, time};

use super::{handle::Progress, listener::Listener, settings::Settings};
use crate::{Recorded, load::typed, panic_message};

/// The state that all attempts share.
pub(super) struct Handler<L> {
    pub(super) listener: Arc<L>,
    pub(super) settings: Settings,
    pub(super) slots: Semaphore,
    pub(super) progress: Arc<Progress>,
}

/// An event, ready to be handled.
pub(super) struct Prepared<E> {
    pub(super) key: String,
    /// Its decoded values, or why it cannot be decoded.
    values: Result<Vec<Recorded<E>>, String>,
}

/// The attempts failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) attempts: u32,
    pub(super) reason: String,
    /// The listener was stopped before the last attempt: the event is neither handled nor failed.
    pub(super) interrupted: bool,
}

impl Failure {
    pub(super) fn new(attempts: u32, reason: &str) -> Self {
        Self {
            attempts,
            reason: bounded(reason),
            interrupted: false,
        }
    }
}

impl<L: Listener> Handler<L> {
    /// Decodes an event, and turns an error or a panic into a failure.
    pub(super) fn prepare(&self, stored: &RecordedEvent) -> Prepared<L::Event> {
        let prepared = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let values = typed::<L::Event>(stored).map_err(|error| chain(&error))?;
            let key = values.first().map(L::key);
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
        Prepared {
            key: key.unwrap_or_else(|| stored.stream.to_string()),
            values,
        }
    }

    /// Handles an event, with retries as the settings say.
    pub(super) async fn handle(&self, prepared: Prepared<L::Event>) -> Result<(), Failure> {
        let values = prepared.values.map_err(|reason| Failure::new(1, &reason))?;
        let mut values = values.iter();
        let mut next = values.next();
        let mut attempts = 0;
        while let Some(value) = next {
            attempts += 1;
            match self.attempt(value).await {
                Ok(()) => {
                    next = values.next();
                    attempts = 0;
                }
                Err(reason) if attempts >= self.settings.backoff.attempts => {
                    return Err(Failure::new(attempts, &reason));
                }
                Err(reason) => {
                    self.progress.retried();
                    tracing::warn!(
                        consumer = L::NAME, stream = %value.stream, revision = %value.revision, attempts, reason,
                        "attempt failed, event will be retried"
                    );
                    tokio::select! {
                        biased;
                        () = self.progress.stopped() => {
                            return Err(Failure { interrupted: true, ..Failure::new(attempts, &reason) });
                        }
                        () = time::sleep(self.settings.backoff.pause(attempts)) => {}
                    }
                }
            }
        }
        Ok(())
    }

    async fn attempt(&self, value: &Recorded<L::Event>) -> Result<(), String> {
        let _slot = match self.slots.try_acquire() {
            Ok(slot) => Some(slot),
            // Never closed.
            Err(_) => self.slots.acquire().await.ok(),
        };
        let handled = AssertUnwindSafe(async { self.listener.on(value).await }).catch_unwind();
        match time::timeout(self.settings.timeout, handled).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(chain(error.as_ref())),
            Ok(Err(panic)) => Err(format!(
                "handler panicked: {}",
                panic_message::message(panic.as_ref())
            )),
            Err(_) => Err(format!(
                "handler timed out after {:?}",
                self.settings.timeout
            )),
        }
    }
}

/// An error and its sources on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Shortens a reason to the length that consumers store.
fn bounded(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}
