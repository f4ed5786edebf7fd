//! The terms on which a command runs: how often it may decide, and what its events carry.
//!
//! **Owns:** [`CommandContext`]: making events of values, appending them, asking again, idempotency keys. **Does not know:** how
//! a command decides. **Invariants:** an append whose outcome is unknown is repeated with the same event ids, so it is
//! stored once; a command with a key is stored once per key, for the append is refused if the key was used before.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use leftfold_model::{
    Append, AppendCondition, Appended, ConflictToken, EventId, EventType, ModelError, NewEvent,
    Position, Query, QueryItem, Read, RecordedEvent, Revision, StreamName, Tag,
};
use leftfold_store::AppendError;

use crate::{
    Committed, Event, ExecuteError, LoadError, Metadata, Store, event::decode::restore,
    load::undecodable, metadata::derived_id,
};

/// How often a command decides, at most, unless set: contention that outlasts this is better seen by the caller.
const ATTEMPTS_MAX: u32 = 16;
/// The longest pause before the second attempt; it doubles with each, up to 64 times.
const PAUSE: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Clone)]
pub struct CommandContext {
    pub(crate) store: Store,
    attempts_max: u32,
    metadata: Arc<Metadata>,
    key: Option<Arc<str>>,
}

/// An idempotency key, as events carry it.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    id: EventId,
    tag: Tag,
}

impl IdempotencyKey {
    /// The events that carry it.
    fn query(&self) -> Result<Query, ModelError> {
        Query::items([QueryItem::tags([self.tag.clone()])?])
    }

    /// Refuses an append if the key was used before.
    pub(crate) fn not_seen_condition(&self) -> Result<AppendCondition, ModelError> {
        Ok(AppendCondition::new(self.query()?, ConflictToken::START))
    }
}

impl CommandContext {
    pub(crate) fn of(store: Store) -> Self {
        Self {
            store,
            attempts_max: ATTEMPTS_MAX,
            metadata: Arc::default(),
            key: None,
        }
    }

    pub(crate) fn with_attempts(&self, attempts: u32) -> Self {
        Self {
            attempts_max: attempts.max(1),
            ..self.clone()
        }
    }
    pub(crate) fn with_metadata(&self, metadata: Metadata) -> Self {
        Self {
            metadata: Arc::new(metadata),
            ..self.clone()
        }
    }
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.into()),
            ..self.clone()
        }
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The key of this command, which is about `place`.
    pub(crate) fn key(&self, place: &str) -> Result<Option<IdempotencyKey>, ModelError> {
        let key = self.key.as_ref().map(|key| {
            let id = derived_id(place, key);
            let tag = Tag::new(format!("$key:{id}"))?;
            Ok(IdempotencyKey { id, tag })
        });
        key.transpose()
    }

    /// Whether a command that failed like this decides again.
    pub(crate) fn should_retry<E>(&self, error: &ExecuteError<E>, attempts: u32) -> bool {
        matches!(error, ExecuteError::Conflict { .. }) && attempts < self.attempts_max
    }

    /// Events to append; `from` is the number of the first among all that the command appends.
    pub(crate) fn events<V: Event, E>(
        &self,
        events: &[V],
        key: Option<&IdempotencyKey>,
        from: usize,
    ) -> Result<Vec<NewEvent>, ExecuteError<E>> {
        let new = |(event, nth): (&V, usize)| {
            let event_type = event.event_type();
            let encoded = event.encode()?;
            let mut tags = event.tags()?;
            let mut id = self.store.next_id();
            if let Some(key) = key {
                tags.push(key.tag.clone());
                id = EventId::derived(key.id, &(nth as u64).to_le_bytes());
            }
            let metadata = self.metadata.encode(event_type, event.version())?;
            let event_type = EventType::new(event_type)?;
            let new = NewEvent::new(event_type, encoded.content_type, encoded.data);
            Ok(new.with_id(id).with_metadata(metadata).with_tags(tags)?)
        };
        events.iter().zip(from..).map(new).collect()
    }

    /// The events of an earlier command with this key, as stored.
    async fn stored<E>(&self, key: &IdempotencyKey) -> Result<Vec<RecordedEvent>, ExecuteError<E>> {
        let mut stored = Vec::new();
        let mut batches = self.store.event_store().read(Read::query(key.query()?));
        while let Some(batch) = batches.next().await {
            stored.extend(batch.map_err(LoadError::Store)?.events);
        }
        Ok(stored)
    }

    /// What an earlier command with this key did, if there was one.
    pub(crate) async fn find_duplicate<V: Event, E>(
        &self,
        key: &IdempotencyKey,
        attempts: u32,
    ) -> Result<Option<Committed<V>>, ExecuteError<E>> {
        let stored = self.stored(key).await?;
        let Some(last) = stored.last() else {
            return Ok(None);
        };
        let mut events = Vec::new();
        for event in &stored {
            restore(event, &mut |value| events.push(value))
                .map_err(|broken| undecodable(event, broken))?;
        }
        Ok(Some(Committed {
            events,
            revision: Some(last.revision),
            position: Some(last.position),
            attempts,
            repeated: true,
        }))
    }

    /// Where the events of an earlier command with this key stand, if there was one.
    pub(crate) async fn duplicate_position<E>(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<(Vec<(StreamName, Revision)>, Position)>, ExecuteError<E>> {
        let stored = self.stored(key).await?;
        let Some(position) = stored.last().map(|event| event.position) else {
            return Ok(None);
        };
        let mut streams: Vec<(StreamName, Revision)> = Vec::new();
        for event in stored {
            match streams.last_mut() {
                Some((stream, revision)) if *stream == event.stream => *revision = event.revision,
                _ => streams.push((event.stream, event.revision)),
            }
        }
        Ok(Some((streams, position)))
    }

    /// Appends, asking again with the same event ids while the outcome is unknown.
    pub(crate) async fn append<E>(
        &self,
        append: &Append,
        attempts: u32,
    ) -> Result<Appended, ExecuteError<E>> {
        let mut asked = 0;
        loop {
            asked += 1;
            match self.store.event_store().append(append.clone()).await {
                Ok(mut appended) => {
                    // Found by the first question, the events are another's with the same key; later they may be ours.
                    appended.repeated &= asked == 1;
                    return Ok(appended);
                }
                Err(AppendError::Conflict(conflict)) => {
                    metrics::counter!("leftfold_conflicts_total").increment(1);
                    tracing::debug!(%conflict, attempts, "others were faster");
                    return Err(ExecuteError::Conflict { attempts, conflict });
                }
                Err(AppendError::OutcomeUnknown { cause }) => {
                    if asked >= self.attempts_max {
                        let attempts = asked;
                        return Err(ExecuteError::OutcomeUnknown { attempts, cause });
                    }
                    backoff(asked).await;
                }
                Err(refused) => {
                    let certain = refused.is_definitely_not_written();
                    let cause = match refused {
                        AppendError::Unavailable { cause } => cause,
                        other => Arc::new(other),
                    };
                    // After an unknown outcome a refusal says nothing of the first try.
                    return Err(if certain && asked == 1 {
                        ExecuteError::Unavailable { cause }
                    } else {
                        let attempts = asked;
                        ExecuteError::OutcomeUnknown { attempts, cause }
                    });
                }
            }
        }
    }
}

/// Waits a random while, longer with each attempt, so that contenders do not meet again.
pub(crate) async fn backoff(attempt: u32) {
    let longest = PAUSE * 2_u32.pow(attempt.min(6));
    // Any source of chance will do; the random part of a fresh id is one.
    let [.., chance] = *EventId::fresh().as_bytes();
    tokio::time::sleep(longest * u32::from(chance) / 255).await;
}
