//! A scavenge of the embedded store, with its progress.
//!
//! **Owns:** mapping truncations to a scavenge of the log. **Does not know:** why events are erased.
//! **Invariants:** if the receiver of the progress is dropped, the scavenge stops after the current segment.

use std::ops::ControlFlow;
use std::sync::Arc;

use leftfold_log as log;
use leftfold_log::{Log, ScavengeOptions};
use tokio::sync::mpsc::{self, error::TrySendError};

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

/// Scavenges the log and sends its progress, until it is done or the receiver is dropped.
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
    let progress = |done: &log::ScavengeProgress| {
        ScavengeProgress::of(
            done.segments_done,
            done.segments_total,
            done.events_erased,
            done.bytes_reclaimed,
        )
    };
    // Progress that the listener has not taken is dropped: a listener that stands still must not hold the log's maintenance.
    let ended = log.scavenge(&truncations, options, &mut |done| match tell
        .try_send(Ok(progress(done)))
    {
        Ok(()) | Err(TrySendError::Full(_)) => ControlFlow::Continue(()),
        Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
    });
    let last = match ended {
        Ok(done) => Ok(ScavengeProgress {
            finished: done.is_finished(),
            ..progress(&done)
        }),
        Err(error) => Err(ReadError::Unavailable {
            cause: Arc::new(error),
        }),
    };
    // Fails only if the receiver is dropped, and then nothing needs the result.
    let _ = tell.blocking_send(last);
}
