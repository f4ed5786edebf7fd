//! Spans and metrics of commands.
//!
//! **Owns:** the span `leftfold.execute`, the outcomes of commands, and their metrics. **Does not know:** how a command decides.
//! **Invariants:** every command that ends is counted once, under one outcome.

use leftfold_model::StreamName;
use tracing::{Span, field, info_span};

use crate::{Committed, ExecuteError, command::CommandContext};

/// Returns the span of a command on the stream `place`.
pub(crate) fn command_span(place: &StreamName, terms: &CommandContext) -> Span {
    let metadata = terms.metadata();
    info_span!(
        "leftfold.execute",
        stream = %place,
        correlation = metadata.correlation.as_deref(),
        traceparent = metadata.traceparent.as_deref(),
        attempts = field::Empty,
        events = field::Empty,
        outcome = field::Empty,
    )
}

/// Records how a command ended, in its span and in the metrics.
pub(crate) fn record_outcome<V, E>(span: &Span, ended: &Result<Committed<V>, ExecuteError<E>>) {
    let outcome = match ended {
        Ok(committed) => {
            span.record("attempts", committed.attempts);
            span.record("events", committed.events.len());
            metrics::histogram!("leftfold_command_attempts").record(f64::from(committed.attempts));
            match (committed.repeated, committed.events.is_empty()) {
                (true, _) => "repeated",
                (false, true) => "nothing to do",
                (false, false) => "committed",
            }
        }
        Err(ExecuteError::Rejected(_)) => "rejected",
        Err(ExecuteError::Conflict { .. }) => "conflict",
        Err(ExecuteError::OutcomeUnknown { .. }) => "unknown",
        Err(_) => "failed",
    };
    span.record("outcome", outcome);
    metrics::counter!("leftfold_commands_total", "outcome" => outcome).increment(1);
}

/// Converts a count to the type of a histogram's samples.
pub(crate) fn sample(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
