//! What causes the commands of a handler.
//!
//! **Owns:** [`Cause`], and the metadata that commands take from it while a handler runs. **Does not know:** handlers, commands.
//! **Invariants:** metadata that a command was given is never replaced, only completed; a cause ends with the handler, and does
//! not reach tasks that it spawns.

use std::{borrow::Cow, sync::Arc};

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
    Effect(Arc<Metadata>),
}

impl Cause {
    pub(crate) fn of(event: &RecordedEvent) -> Self {
        Self::Event(event.id, event.metadata.clone())
    }

    /// Returns metadata of a command that this completes.
    fn complete<'m>(&self, own: &'m Metadata) -> Cow<'m, Metadata> {
        match self {
            Self::Event(id, metadata) => add(own, &Metadata::parse(metadata).of_effect(*id)),
            Self::Effect(metadata) => add(own, metadata),
        }
    }
}

/// Adds to the metadata of a command what it lacks.
fn add<'m>(own: &'m Metadata, cause: &Metadata) -> Cow<'m, Metadata> {
    let lacks = |own: &Option<String>, cause: &Option<String>| own.is_none() && cause.is_some();
    let is_complete = !lacks(&own.correlation, &cause.correlation)
        && !lacks(&own.causation, &cause.causation)
        && !lacks(&own.tenant, &cause.tenant)
        && !lacks(&own.traceparent, &cause.traceparent);
    if is_complete {
        return Cow::Borrowed(own);
    }
    let or =
        |own: &Option<String>, cause: &Option<String>| own.as_ref().or(cause.as_ref()).cloned();
    Cow::Owned(Metadata {
        correlation: or(&own.correlation, &cause.correlation),
        causation: or(&own.causation, &cause.causation),
        tenant: or(&own.tenant, &cause.tenant),
        traceparent: or(&own.traceparent, &cause.traceparent),
        actor: own.actor.clone(),
        custom: own.custom.clone(),
    })
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
    let completed = CAUSE.try_with(|cause| cause.complete(own));
    completed.unwrap_or(Cow::Borrowed(own))
}
