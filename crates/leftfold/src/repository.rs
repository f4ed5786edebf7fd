//! Repositories: load an aggregate, let a command decide, append what it decided.
//!
//! **Owns:** [`Repository`] and the rules of trying again. **Does not know:** any domain, any store.
//! **Invariants:** a command decides on a fold of everything before it; what it decided is appended only if that is still
//! everything; after a conflict it decides anew on a fresh fold; an append whose outcome is unknown is repeated
//! with the same event ids, so it is stored once.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use leftfold_model::{Append, EventId, EventType, NewEvent, StreamName};
use leftfold_store::{AppendError, EventStore};

use crate::{
    Aggregate, Committed, Event, ExecuteError, IntoEvents, LoadError, Loaded,
    load::{load, stream_of},
};

/// How often a command decides, at most, unless set: contention that outlasts this is better seen by the caller.
const ATTEMPTS_MAX: u32 = 16;
/// The longest pause before the second attempt; it doubles with each, up to 64 times.
const PAUSE: Duration = Duration::from_millis(1);

/// Loads and changes aggregates of one kind. Cheap to clone.
#[derive(Debug)]
pub struct Repository<A> {
    store: Arc<dyn EventStore>,
    attempts_max: u32,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            attempts_max: self.attempts_max,
            of: PhantomData,
        }
    }
}

impl<A: Aggregate> Repository<A> {
    pub(crate) fn over(store: Arc<dyn EventStore>) -> Self {
        Self {
            store,
            attempts_max: ATTEMPTS_MAX,
            of: PhantomData,
        }
    }

    /// The same repository, whose commands decide at most `attempts` times, at least once.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// The aggregate of this id, folded from all its events; the default state if it has none.
    ///
    /// # Errors
    /// [`LoadError`].
    /// # Cost
    /// Reads and decodes every event of the aggregate.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        load(self.store.as_ref(), &stream_of::<A>(id)?).await
    }

    /// Loads the aggregate, lets `decide` decide, and appends what it returns, all or nothing.
    ///
    /// If others change the aggregate in between, it is loaded afresh and `decide` is called again, up to 16 times with
    /// short random pauses (see [`Self::with_attempts`]). So `decide` must do nothing but decide. No events is a success.
    ///
    /// # Errors
    /// [`ExecuteError`]; the domain's own error is [`ExecuteError::Rejected`].
    /// # Cancel safety
    /// Dropping the future does not take back an append that was handed to the store.
    pub async fn execute<R, E>(
        &self,
        id: &str,
        mut decide: impl FnMut(&A) -> Result<R, E> + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<E>>
    where
        R: IntoEvents<A::Event>,
    {
        let stream = stream_of::<A>(id)?;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let loaded: Loaded<A> = load(self.store.as_ref(), &stream).await?;
            let events = decide(loaded.state())
                .map_err(ExecuteError::Rejected)?
                .into_events();
            if events.is_empty() {
                return Ok(Committed {
                    events,
                    revision: loaded.revision,
                    position: None,
                    attempts,
                });
            }
            let append = Append::to(stream.clone(), loaded.expected(), encode(&events)?)?;
            match self.append(append, attempts).await {
                Ok((revision, position)) => {
                    return Ok(Committed {
                        events,
                        revision: Some(revision),
                        position: Some(position),
                        attempts,
                    });
                }
                Err(ExecuteError::Conflict { .. }) if attempts < self.attempts_max => {
                    pause(attempts).await
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Appends, asking again with the same event ids while the outcome is unknown.
    async fn append<E>(
        &self,
        append: Append,
        attempts: u32,
    ) -> Result<(leftfold_model::Revision, leftfold_model::Position), ExecuteError<E>> {
        let mut asked = 0;
        loop {
            asked += 1;
            match self.store.append(append.clone()).await {
                Ok(appended) => {
                    let revision = appended
                        .streams
                        .first()
                        .map(|&(_, revision)| revision)
                        .unwrap_or_default();
                    return Ok((revision, appended.last));
                }
                Err(AppendError::Conflict(conflict)) => {
                    return Err(ExecuteError::Conflict { attempts, conflict });
                }
                Err(AppendError::OutcomeUnknown { .. }) if asked < self.attempts_max => {
                    pause(asked).await
                }
                Err(AppendError::OutcomeUnknown { cause }) => {
                    return Err(ExecuteError::OutcomeUnknown {
                        attempts: asked,
                        cause,
                    });
                }
                // After an unknown outcome a refusal says nothing of the first try.
                Err(AppendError::Unavailable { cause }) if asked > 1 => {
                    return Err(ExecuteError::OutcomeUnknown {
                        attempts: asked,
                        cause,
                    });
                }
                Err(AppendError::Unavailable { cause }) => {
                    return Err(ExecuteError::Unavailable { cause });
                }
                Err(other) => {
                    return Err(ExecuteError::OutcomeUnknown {
                        attempts: asked,
                        cause: Arc::new(other),
                    });
                }
            }
        }
    }

    /// The stream of the aggregate of this id.
    ///
    /// # Errors
    /// [`LoadError::InvalidId`].
    pub fn stream(&self, id: &str) -> Result<StreamName, LoadError> {
        stream_of::<A>(id)
    }
}

fn encode<V: Event, E>(events: &[V]) -> Result<Vec<NewEvent>, ExecuteError<E>> {
    let new = |event: &V| {
        Ok(NewEvent::json(
            EventType::new(event.event_type())?,
            event.encode()?,
        ))
    };
    events.iter().map(new).collect()
}

/// Waits a random while, longer with each attempt, so that contenders do not meet again.
async fn pause(attempt: u32) {
    let longest = PAUSE * 2_u32.pow(attempt.min(6));
    // Any source of chance will do; the random part of a fresh id is one.
    let [.., chance] = *EventId::fresh().as_bytes();
    tokio::time::sleep(longest * u32::from(chance) / 255).await;
}
