//! A scavenge of the embedded store, with its progress.
//!
//! **Owns:** mapping truncations to a scavenge of the log. **Does not know:** why events are erased.
//! **Invariants:** if the receiver of the progress is dropped, the scavenge stops after the current segment; a scavenge that
//! panics ends with an error.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_core::Stream;
use futures_util::stream;
use leftfold_log as log;
use leftfold_log::{Log, ScavengeOptions};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
};

use super::{Rebuilds, read_error};
use crate::{ReadError, ScavengeProgress, Truncation};

/// Maximum buffered progress values.
pub(super) const PROGRESS_BUFFERED: usize = 4;

/// Returns options that also seal the newest segment if it holds truncated events.
pub(super) fn erase_options(bytes_per_second: Option<u64>) -> ScavengeOptions {
    let options = ScavengeOptions::default().with_seal_newest();
    match bytes_per_second {
        Some(bytes) => options.with_bytes_per_second(bytes),
        None => options,
    }
}

/// Scavenges the log and sends its progress, until it is done or the receiver is dropped. Where it meets a damaged index or
/// locations file, has the file rebuilt and goes on.
pub(super) fn erase(
    log: &Log,
    truncations: &[Truncation],
    options: ScavengeOptions,
    tell: &mpsc::Sender<Result<ScavengeProgress, ReadError>>,
) {
    let truncations: Vec<_> = truncations
        .iter()
        .map(|truncation| log::Truncation {
            stream: truncation.stream.clone(),
            before: truncation.before,
        })
        .collect();
    let (mut before, mut rebuilds) = (Erased::default(), Rebuilds::default());
    let last = loop {
        let mut newest = before;
        // Progress that the listener has not taken is dropped: a listener that stands still must not hold the log's maintenance.
        let ended = log.scavenge(&truncations, options, &mut |done| {
            newest = before.and(done);
            match tell.try_send(Ok(newest.progress(done))) {
                Ok(()) | Err(TrySendError::Full(_)) => ControlFlow::Continue(()),
                Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
            }
        });
        match ended {
            Ok(done) => {
                break Ok(ScavengeProgress {
                    finished: done.is_finished(),
                    ..before.and(&done).progress(&done)
                });
            }
            Err(log::ScavengeError::Storage { cause })
                if cause.is_damaged_derived_file() && rebuilds.may_go_on() =>
            {
                before = newest;
                match rebuilds.rebuild(log) {
                    Ok(done) => rebuilds = done,
                    Err(error) => break Err(read_error(error)),
                }
            }
            Err(error) => {
                break Err(ReadError::Unavailable {
                    cause: Arc::new(error),
                });
            }
        }
    };
    // Fails only if the receiver is dropped, and then nothing needs the result.
    let _ = tell.blocking_send(last);
}

/// What was erased, in the runs of a scavenge together.
#[derive(Clone, Copy, Default)]
struct Erased {
    events: u64,
    bytes: u64,
}

impl Erased {
    fn and(self, run: &log::ScavengeProgress) -> Self {
        Self {
            events: self.events + run.events_erased,
            bytes: self.bytes + run.bytes_reclaimed,
        }
    }

    fn progress(self, run: &log::ScavengeProgress) -> ScavengeProgress {
        ScavengeProgress::of(
            run.segments_done,
            run.segments_total,
            self.events,
            self.bytes,
        )
    }
}

/// The progress of a scavenge that runs as a task: what it sends, and an error if it panics.
pub(super) fn progress_of(
    receiver: mpsc::Receiver<Result<ScavengeProgress, ReadError>>,
    task: JoinHandle<()>,
) -> impl Stream<Item = Result<ScavengeProgress, ReadError>> {
    stream::unfold((receiver, Some(task)), |(mut receiver, task)| async move {
        if let Some(next) = receiver.recv().await {
            return Some((next, (receiver, task)));
        }
        let panicked = task?.await.err()?;
        let error = ReadError::Unavailable {
            cause: Arc::new(panicked),
        };
        Some((Err(error), (receiver, None)))
    })
}
