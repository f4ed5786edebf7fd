//! Decisions that rest on whatever events they need, instead of on one stream.
//!
//! Known as the dynamic consistency boundary: the boundary is drawn by each decision, not by how streams are cut.
//!
//! **Owns:** [`Decision`]: read once, fold, decide, append under what was read. **Does not know:** any domain, any store.
//! **Invariants:** all models are folded from one read; what was decided is appended only if no event was committed since
//! that would belong to the boundary (or to the narrower one given).

mod boundary;
mod model;

use futures_util::StreamExt;
use leftfold_model::{
    Append, AppendCondition, ConflictToken, ExpectedRevision, Read, StreamName, StreamWrite,
};
use tracing::Instrument;

pub use boundary::{Boundary, BoundaryError};
pub use model::{Model, Models};

use crate::{
    Committed, ExecuteError, IntoEvents, LoadError, Metadata, Store,
    command::{CommandContext, IdempotencyKey, backoff},
    load::fold,
    observe::{command_span, record_outcome},
};

/// A decision that is about to be taken; made by [`Store::decision`].
#[derive(Debug, Clone)]
pub struct Decision<M> {
    models: M,
    terms: CommandContext,
    stream: StreamName,
    void_if: Option<Boundary>,
}

impl<M: Models> Decision<M> {
    pub(crate) fn of(store: Store, models: M) -> Self {
        Self {
            models,
            terms: CommandContext::of(store),
            stream: StreamName::default_stream(),
            void_if: None,
        }
    }

    /// With at most so many attempts; 16 unless set.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.terms = self.terms.with_attempts(attempts);
        self
    }
    /// With this metadata on its events.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.terms = self.terms.with_metadata(metadata);
        self
    }
    /// Carried out once for this key, which is the decision's own throughout the store.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.terms = self.terms.with_key(key);
        self
    }
    /// With its events in this stream; in one named `default` unless set.
    #[must_use]
    pub fn with_stream(mut self, stream: StreamName) -> Self {
        self.stream = stream;
        self
    }
    /// Made void only by new events within this boundary, instead of by any that the models read.
    ///
    /// Use it where much of what is read can change and the decision still stands: a deposit does not make a withdrawal
    /// wrong. It is on you that this is so.
    #[must_use]
    pub fn fail_if_match(mut self, boundary: Boundary) -> Self {
        self.void_if = Some(boundary);
        self
    }

    /// Reads what the models need, lets `decide` decide on them, and appends what it returns, all or nothing.
    ///
    /// If events were committed in between that make the decision void, everything is read afresh and `decide` is called
    /// again. So it must do nothing but decide. No events is a success.
    ///
    /// # Errors
    /// [`ExecuteError`]; the domain's own error is [`ExecuteError::Rejected`].
    /// # Cancel safety
    /// Dropping the future does not take back an append that was handed to the store.
    /// # Cost
    /// Reads every event within the boundary, once for each attempt.
    pub async fn decide<R, E>(
        &self,
        mut decide: impl FnMut(&M) -> Result<R, E> + Send,
    ) -> Result<Committed<M::Event>, ExecuteError<E>>
    where
        R: IntoEvents<M::Event>,
    {
        let span = command_span(&self.stream, &self.terms);
        let deciding = async {
            let key = self.terms.key("")?;
            let mut attempts = 0;
            loop {
                attempts += 1;
                match self.attempt(key.as_ref(), attempts, &mut decide).await {
                    Err(error) if self.terms.should_retry(&error, attempts) => {
                        backoff(attempts).await
                    }
                    ended => return ended,
                }
            }
        };
        let ended = deciding.instrument(span.clone()).await;
        record_outcome(&span, &ended);
        ended
    }

    async fn attempt<R, E>(
        &self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
        decide: &mut (impl FnMut(&M) -> Result<R, E> + Send),
    ) -> Result<Committed<M::Event>, ExecuteError<E>>
    where
        R: IntoEvents<M::Event>,
    {
        if let Some(key) = key
            && let Some(earlier) = self.terms.find_duplicate(key, attempts).await?
        {
            return Ok(earlier);
        }
        let (models, token) = self.read().await?;
        let events = decide(&models)
            .map_err(ExecuteError::Rejected)?
            .into_events();
        let mut committed = Committed {
            events,
            revision: None,
            position: None,
            attempts,
            repeated: false,
        };
        if committed.events.is_empty() {
            return Ok(committed);
        }
        let write = StreamWrite {
            stream: self.stream.clone(),
            expected: ExpectedRevision::Any,
            events: self.terms.events(&committed.events, key, 0)?,
        };
        let boundary = self.void_if.clone().unwrap_or_else(|| self.boundary());
        let mut conditions = vec![AppendCondition::new(
            boundary.query::<M::Event>().map_err(LoadError::from)?,
            token,
        )];
        if let Some(key) = key {
            conditions.push(key.not_seen_condition()?);
        }
        let append = Append::new(vec![write], conditions)?;
        let appended = self.terms.append(&append, attempts).await?;
        committed.revision = appended.streams.first().map(|&(_, revision)| revision);
        committed.position = Some(appended.last);
        committed.repeated = appended.repeated;
        Ok(committed)
    }

    /// Everything the models are folded from.
    fn boundary(&self) -> Boundary {
        let mut boundaries = self.models.boundaries().into_iter();
        let first = boundaries.next().unwrap_or_default();
        boundaries.fold(first, Boundary::or)
    }

    /// The models, folded, and what was seen for it.
    async fn read<E>(&self) -> Result<(M, ConflictToken), ExecuteError<E>> {
        let boundaries = self.models.boundaries();
        let query = self
            .boundary()
            .query::<M::Event>()
            .map_err(LoadError::from)?;
        let mut models = self.models.clone();
        let mut token = ConflictToken::START;
        let mut batches = self.terms.store.event_store().read(Read::query(query));
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(LoadError::Store)?;
            token = batch.token;
            for stored in &batch.events {
                fold(stored, &mut |event| {
                    models.apply(&boundaries, &stored.tags, event);
                })?;
            }
        }
        Ok((models, token))
    }
}
