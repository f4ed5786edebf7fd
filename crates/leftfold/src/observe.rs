//! Spans and metrics of commands.
//!
//! **Owns:** the span `leftfold.execute`, the outcomes of commands, and their metrics. **Does not know:** how a command decides.
//! **Invariants:** every command that ends is counted once, under one outcome.

use leftfold_model::StreamName;
use tracing::{Span, field, info_span};

use crate::{ExecuteError, Metadata};

/// How a command that went through ended.
#[derive(Debug)]
pub(crate) struct Ended {
    attempts: u32,
    events: usize,
    repeated: bool,
}

impl Ended {
    pub(crate) fn new(attempts: u32, events: usize, repeated: bool) -> Self {
        Self {
            attempts,
            events,
            repeated,
        }
    }

    /// Whether the command appended events, and no other with its key did before.
    pub(crate) fn is_new(&self) -> bool {
        self.events > 0 && !self.repeated
    }
}

/// Returns the span of a command on a stream.
pub(crate) fn command_span(stream: &StreamName, metadata: &Metadata) -> Span {
    info_span!(
        "leftfold.execute",
        %stream,
        correlation = metadata.correlation.as_deref(),
        traceparent = metadata.traceparent.as_deref(),
        attempts = field::Empty,
        events = field::Empty,
        outcome = field::Empty,
    )
}

/// Records how a command ended, in its span and in the metrics.
pub(crate) fn record_outcome<E>(span: &Span, ended: Result<&Ended, &ExecuteError<E>>) {
    let outcome = match ended {
        Ok(ended) => {
            span.record("attempts", ended.attempts);
            span.record("events", ended.events);
            metrics::histogram!("leftfold_command_attempts").record(f64::from(ended.attempts));
            match (ended.repeated, ended.events) {
                (true, _) => "repeated",
                (false, 0) => "nothing to do",
                (false, _) => "committed",
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
