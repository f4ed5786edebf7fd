//! Appending and deleting, under the rules of a stream's lifecycle.
//!
//! **Owns:** executing plans, and planning again while the lifecycles of the streams change.
//! **Does not know:** reads; what a lifecycle means for an append, which is in `plan`.
//! **Invariants:** an append is rejected only after the lifecycles it depends on were read again; a cached lifecycle may let an
//! append pass, because the back end checks it, and never rejects one.

use std::sync::Arc;

use leftfold_model::{
    Append, Appended, Conflict, CurrentRevision, ExpectedRevision, NewEvent, Revision, StreamCheck,
    StreamName, StreamWrite,
};

use super::{
    BackendStore,
    lifecycle::{Phase, StreamLifecycle},
    plan::{AppendContext, Plan, Recreation, deleted, exactly, invalid, marked, unread},
};
use crate::{
    AppendError, AppendTransaction, Backend, Delete,
    contract::stream_metadata::{metadata_type, tombstone_type},
};

/// Maximum attempts of an append while the lifecycle of its streams changes.
const ATTEMPTS: u32 = 64;

/// A plan that was refused.
type Refused = Box<(Append, Conflict)>;

/// Appends within a transaction of an application's own, under the rules of a stream's life as that transaction sees it.
///
/// # Errors
/// As [`EventStore::append`](crate::EventStore::append).
pub async fn append_in_transaction(
    door: &dyn AppendTransaction,
    append: Append,
) -> Result<Appended, AppendError> {
    write_on(&TransactionContext(door), &append, None).await
}

/// Appends on a ground; `refused` is a plan of which it is known that it was refused.
async fn write_on(
    ground: &impl AppendContext,
    append: &Append,
    mut refused: Option<Refused>,
) -> Result<Appended, AppendError> {
    let mut attempt = 0;
    loop {
        let plan = Plan::of(ground, append, Recreation::No).await?;
        let outcome = match refused.take() {
            // Looked up again after the refusal, the assumptions still held, so the conflict is the caller's.
            Some(same) if same.0 == plan.append => Err(AppendError::Conflict(same.1)),
            _ => ground.execute(&plan).await,
        };
        match outcome {
            Ok(appended) => return Ok(plan.answer(appended)),
            Err(conflict) if attempt < ATTEMPTS && plan.is_invalidated(&conflict) => {
                attempt += 1;
                ground.forget(&plan.assumed);
            }
            Err(AppendError::Conflict(conflict)) => {
                let conflict = plan.told(conflict);
                // Rare, and in memory of its own, so that every other append needs less.
                return Box::pin(repeated(ground, append, conflict)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// A refused append that expects "no stream" may be the repetition of one that brought a deleted stream back, whose
/// events do not stand at its beginning.
async fn repeated(
    ground: &impl AppendContext,
    append: &Append,
    conflict: Conflict,
) -> Result<Appended, AppendError> {
    let expects_none = |write: &StreamWrite| write.expected == ExpectedRevision::NoStream;
    let refused = Err(AppendError::Conflict(conflict));
    if !append.writes().iter().any(expects_none) || ground.knows_no_metadata().await? {
        return refused;
    }
    let plan = Plan::of(ground, append, Recreation::Maybe).await?;
    match ground.execute(&plan).await {
        Ok(appended) if appended.repeated => Ok(plan.answer(appended)),
        _ => refused,
    }
}

impl<B: Backend> BackendStore<B> {
    pub(super) async fn write(&self, append: Append) -> Result<Appended, AppendError> {
        let attempt = self.outcomes.begin(&append);
        let outcome = self.plan(&append).await;
        attempt.end(outcome)
    }

    /// Appends by a plan; by the next one if what the first rests on has changed.
    async fn plan(&self, append: &Append) -> Result<Appended, AppendError> {
        let mut refused = None;
        if !self.backend.is_exclusive() {
            match Box::pin(self.write_from_memory(append)).await? {
                Ok(appended) => return Ok(appended),
                Err(plan) => refused = plan,
            }
        }
        write_on(&self.looking(), append, refused).await
    }

    /// Appends by the lives that are remembered: nothing has to be asked where they still hold. A refusal is not final.
    async fn write_from_memory(
        &self,
        append: &Append,
    ) -> Result<Result<Appended, Option<Refused>>, AppendError> {
        let ground = StoreContext {
            store: self,
            from_memory: true,
        };
        let plan = match Plan::of(&ground, append, Recreation::No).await {
            Err(AppendError::Conflict(_) | AppendError::Invalid { .. }) => return Ok(Err(None)),
            plan => plan?,
        };
        match ground.execute(&plan).await {
            Ok(appended) => Ok(Ok(plan.answer(appended))),
            // Conditions come after checks: what was remembered does hold.
            Err(AppendError::Conflict(conflict))
                if !matches!(conflict, Conflict::ConditionFailed { .. }) =>
            {
                Ok(Err(Some(Box::new((plan.append, conflict)))))
            }
            Err(error) => Err(error),
        }
    }

    fn looking(&self) -> StoreContext<'_, B> {
        StoreContext {
            store: self,
            from_memory: false,
        }
    }

    pub(super) async fn end(&self, delete: Delete) -> Result<Appended, AppendError> {
        let stream = &delete.stream;
        let metadata_stream = stream
            .metadata_stream()
            .ok_or_else(|| AppendError::Invalid {
                reason: format!("stream {stream} has no metadata stream, so it cannot be deleted"),
            })?;
        let ground = self.looking();
        let mut attempt = 0;
        loop {
            let lifecycle = ground.lifecycle(stream).await?;
            let last = CurrentRevision(ground.last_revision(stream).await?);
            allow(&delete, &lifecycle, last)?;
            let event = if delete.permanent {
                tombstone_type().map(|name| NewEvent::json(name, "{}"))
            } else {
                let json = lifecycle.metadata().deleted().to_json();
                metadata_type().map(|name| NewEvent::json(name, json))
            };
            let assumed = StreamCheck {
                stream: metadata_stream.clone(),
                expected: lifecycle.expectation(),
            };
            let events = vec![marked(event.map_err(invalid)?, stream)];
            let append = Append::to(metadata_stream.clone(), assumed.expected, events);
            let check = match delete.expected {
                ExpectedRevision::Exact(_) => delete.expected,
                ExpectedRevision::NoStream => exactly(last.0),
                ExpectedRevision::Any | ExpectedRevision::StreamExists => ExpectedRevision::Any,
            };
            let append = append.and_then(|append| append.with_check(stream.clone(), check));
            let plan = Plan {
                append: append.map_err(invalid)?,
                added: 0,
                changed: vec![stream.clone()],
                assumed: vec![assumed],
                existence: None,
            };
            match ground.execute(&plan).await {
                Err(conflict) if attempt < ATTEMPTS && plan.is_invalidated(&conflict) => {
                    attempt += 1;
                    ground.forget(&plan.assumed);
                }
                Ok(deleted) => {
                    // A snapshot of what is gone must not come back with the stream. It is disposable, so not being able
                    // to remove it is no reason to call the deletion failed.
                    let _ = self.backend.snapshots().remove(stream).await;
                    return Ok(deleted);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The store itself.
struct StoreContext<'a, B> {
    store: &'a BackendStore<B>,
    /// Whether lives are taken as they were seen last, and never asked for.
    from_memory: bool,
}

impl<B: Backend> AppendContext for StoreContext<'_, B> {
    async fn lifecycle(&self, stream: &StreamName) -> Result<Arc<StreamLifecycle>, AppendError> {
        let lifecycles = &self.store.lifecycles;
        if self.from_memory {
            return Ok(lifecycles.peek(stream));
        }
        lifecycles
            .of(&*self.store.backend, stream)
            .await
            .map_err(unread)
    }

    async fn last_revision(&self, stream: &StreamName) -> Result<Option<Revision>, AppendError> {
        let current = self.store.backend.current(stream.clone()).await;
        Ok(current.map_err(unread)?.0)
    }

    async fn execute(&self, plan: &Plan) -> Result<Appended, AppendError> {
        let change = self.store.lifecycles.change(plan.changed.clone());
        let outcome = self.store.backend.append(plan.append.clone()).await;
        if !matches!(outcome, Err(AppendError::OutcomeUnknown { .. })) {
            change.finish();
        }
        outcome
    }

    fn forget(&self, assumed: &[StreamCheck]) {
        for check in assumed {
            let described = check.stream.described_stream();
            let stream = described.as_ref().unwrap_or(&check.stream);
            self.store.lifecycles.forget(stream);
        }
    }

    async fn knows_no_metadata(&self) -> Result<bool, AppendError> {
        let none = self
            .store
            .lifecycles
            .is_known_empty(&*self.store.backend)
            .await;
        none.map_err(unread)
    }
}

/// An application's own transaction.
struct TransactionContext<'a>(&'a dyn AppendTransaction);

impl AppendContext for TransactionContext<'_> {
    async fn lifecycle(&self, stream: &StreamName) -> Result<Arc<StreamLifecycle>, AppendError> {
        let Some(metadata_stream) = stream.metadata_stream() else {
            return Ok(Arc::default());
        };
        let newest = self.0.newest(metadata_stream).await.map_err(unread)?;
        Ok(Arc::new(StreamLifecycle::from_metadata_event(newest)))
    }

    async fn last_revision(&self, stream: &StreamName) -> Result<Option<Revision>, AppendError> {
        Ok(self.0.current(stream.clone()).await.map_err(unread)?.0)
    }

    async fn execute(&self, plan: &Plan) -> Result<Appended, AppendError> {
        self.0.append(plan.append.clone()).await
    }

    fn forget(&self, _assumed: &[StreamCheck]) {}

    async fn knows_no_metadata(&self) -> Result<bool, AppendError> {
        Ok(false)
    }
}

/// Whether a stream can be deleted as it is.
fn allow(
    delete: &Delete,
    lifecycle: &StreamLifecycle,
    last: CurrentRevision,
) -> Result<(), AppendError> {
    let (stream, expected) = (&delete.stream, delete.expected);
    if lifecycle.phase == Phase::Tombstoned {
        return Err(deleted(stream));
    }
    let known = last.0.is_some() || lifecycle.revision.0.is_some();
    let gone = lifecycle.phase == Phase::Deleted;
    let allowed = match expected {
        ExpectedRevision::Any => known || delete.permanent,
        // A stream with metadata alone has no events, and can be deleted.
        ExpectedRevision::NoStream => gone || (last.0.is_none() && (known || delete.permanent)),
        ExpectedRevision::StreamExists if gone => return Err(deleted(stream)),
        ExpectedRevision::StreamExists => known,
        ExpectedRevision::Exact(_) => expected.allows(last),
    };
    if allowed {
        return Ok(());
    }
    Err(AppendError::Conflict(Conflict::WrongRevision {
        stream: stream.clone(),
        expected,
        actual: last,
    }))
}

#[cfg(test)]
mod tests {
    use leftfold_model::ModelError;

    use super::*;
    use crate::MemoryStore;

    /// Allocators have pieces of up to a KiB at hand, and look for larger ones.
    #[test]
    fn what_an_append_needs_while_it_is_under_way_fits_a_small_piece_of_memory()
    -> Result<(), ModelError> {
        let store = MemoryStore::new();
        let event = NewEvent::json("T".try_into()?, "{}");
        let append = Append::to(StreamName::new("a")?, ExpectedRevision::Any, vec![event])?;
        let bytes = size_of_val(&store.write(append));
        assert!(bytes <= 1024, "{bytes}");
        Ok(())
    }
}
