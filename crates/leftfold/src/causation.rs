//! What causes the commands of a handler.
//!
//! **Owns:** [`Cause`], and the metadata that commands take from it while a handler runs. **Does not know:** handlers, commands.
//! **Invariants:** metadata that a command was given is never replaced, only completed; a cause ends with the handler, and does
//! not reach tasks that it spawns.

use std::borrow::Cow;

use leftfold_model::{Bytes, EventId, RecordedEvent};

use crate::Metadata;

tokio::task_local! {
    static CAUSE: Cause;
}

/// What a handler acts on. Cheap to clone: metadata is parsed when a command asks for it.
#[derive(Debug, Clone)]
pub(crate) enum Cause {
    /// An event, by its id and metadata.
    Event(EventId, Bytes),
    /// Whatever this is the metadata of an effect of.
    Effect(Box<Metadata>),
}

impl Cause {
    pub(crate) fn of(event: &RecordedEvent) -> Self {
        Self::Event(event.id, event.metadata.clone())
    }

    fn metadata(&self) -> Metadata {
        match self {
            Self::Event(id, metadata) => Metadata::parse(metadata).of_effect(*id),
            Self::Effect(metadata) => (**metadata).clone(),
        }
    }
}

impl From<Metadata> for Cause {
    fn from(metadata: Metadata) -> Self {
        Self::Effect(Box::new(metadata))
    }
}

/// Runs a handler whose commands have this cause.
pub(crate) async fn scope<F: Future>(cause: Option<Cause>, handler: F) -> F::Output {
    match cause {
        Some(cause) => CAUSE.scope(cause, handler).await,
        None => handler.await,
    }
}

/// Returns the metadata of a command, completed by its cause if a handler executes it.
pub(crate) fn completed(own: &Metadata) -> Cow<'_, Metadata> {
    let Ok(cause) = CAUSE.try_with(Cause::metadata) else {
        return Cow::Borrowed(own);
    };
    let mut metadata = own.clone();
    metadata.correlation = metadata.correlation.or(cause.correlation);
    metadata.causation = metadata.causation.or(cause.causation);
    metadata.tenant = metadata.tenant.or(cause.tenant);
    metadata.traceparent = metadata.traceparent.or(cause.traceparent);
    Cow::Owned(metadata)
}
