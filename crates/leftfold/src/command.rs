//! The engine of all commands: read, decide, append under what was read, retry after a conflict.
//!
//! **Owns:** [`CommandContext`]: attempts, metadata, idempotency keys, encoding events, unknown outcomes.
//! [`Command`] is what a kind of command adds. **Does not know:** aggregates, models, what a command decides.
//! **Invariants:**
//! - Decided events are appended only if all that was read still holds: revisions, stream lifecycles, conditions.
//! - An append of unknown outcome is retried with the same event ids, so it is stored once.
//! - A command with an idempotency key is stored once per key: the append fails if the key was used before.
//! - Events that cannot be decoded again are not stored.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt;
use leftfold_model::{
    Append, AppendCondition, Appended, Conflict, ConflictToken, EventId, EventType,
    ExpectedRevision, ModelError, NewEvent, Position, Query, QueryItem, Read, RecordedEvent,
    StreamCheck, StreamName, StreamWrite, Tag,
};
use leftfold_store::AppendError;
use tracing::Instrument;

use crate::{
    Committed, Data, DecodeError, EncodeError, Encoded, Event, ExecuteError, LoadError, Metadata,
    Store, causation,
    erasure::{mark, revealed},
    event::{
        codec,
        decode::{kind_of, restore},
    },
    load::{Ground, undecodable},
    metadata::derived_id,
    observe::{Ended, command_span, record_outcome},
};

/// Default maximum of attempts: about two seconds of backoff. Contention that outlasts them is better reported to the caller.
///
/// A process that won knows the new state, and begins its next command before those that lost have loaded it. So a burst of
/// commands of one process can hold up another's for as long as it lasts. Commands of one process wait for their turn.
const ATTEMPTS_MAX: u32 = 64;
/// Maximum backoff before the second attempt; it doubles with each, up to 64 times.
const BACKOFF: Duration = Duration::from_millis(1);

/// The context of a command: its store, attempts, metadata and idempotency key.
#[derive(Debug, Clone)]
pub struct CommandContext {
    pub(crate) store: Store,
    attempts_max: u32,
    metadata: Arc<Metadata>,
    key: Option<Arc<(String, String)>>,
    looking: KeyLooking,
}

/// When a command looks up whether its idempotency key was used before. The append is refused in any case if it was.
#[derive(Debug, Clone)]
enum KeyLooking {
    /// Before it decides.
    First,
    /// Only if it cannot append what it decided, or decides on nothing: for a command that itself recognizes a repetition.
    Last,
    /// Last in the first command, first in those behind it: for a key that is new.
    LastOnce(Arc<AtomicBool>),
}

impl KeyLooking {
    fn is_first(&self) -> bool {
        match self {
            Self::First => true,
            Self::Last => false,
            Self::LastOnce(used) => used.swap(true, Ordering::Relaxed),
        }
    }
}

/// An idempotency key, as events store it.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    id: EventId,
    tag: Tag,
}

impl IdempotencyKey {
    /// Returns the id of an event that a command with this key appends, by its number among them.
    pub(crate) fn event_id(&self, nth: usize) -> EventId {
        EventId::derived(self.id, &(nth as u64).to_le_bytes())
    }

    /// Selects the events that carry the key.
    fn query(&self) -> Result<Query, ModelError> {
        Query::items([QueryItem::tags([self.tag.clone()])?])
    }

    /// Returns the condition that refuses an append if the key was used before.
    fn not_seen_condition(&self) -> Result<AppendCondition, ModelError> {
        Ok(AppendCondition::new(self.query()?, ConflictToken::START))
    }
}

/// The events that a command would append, and all that must hold for them.
#[derive(Debug, Default)]
pub(crate) struct Proposal {
    pub(crate) writes: Vec<StreamWrite>,
    pub(crate) checks: Vec<StreamCheck>,
    pub(crate) conditions: Vec<AppendCondition>,
}

impl Proposal {
    /// Adds a decision: its events as a write, or, without events, a check that the state it was made on is current.
    pub(crate) fn add(&mut self, ground: Ground, events: Vec<NewEvent>) {
        if let Some((stream, expected)) = ground.write {
            if !events.is_empty() {
                self.writes.push(StreamWrite {
                    stream,
                    expected,
                    events,
                });
            } else if expected != ExpectedRevision::Any {
                self.checks.push(StreamCheck { stream, expected });
            }
        }
        self.checks.extend(ground.checks);
        self.conditions.extend(ground.conditions);
    }

    /// Returns the append; `None` if there is nothing to append.
    pub(crate) fn into_append(
        mut self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Append>, ModelError> {
        if self.writes.is_empty() {
            return Ok(None);
        }
        if let Some(key) = key {
            self.conditions.push(key.not_seen_condition()?);
        }
        let append = Append::new(self.writes, self.conditions)?;
        Ok(Some(append.with_checks(self.checks)?))
    }
}

/// A kind of command.
pub(crate) trait Command: Send {
    /// The domain's own error.
    type Refusal;
    /// The result for the caller.
    type Output: Send;

    /// Reads and decides.
    fn propose(
        &mut self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
    ) -> impl Future<Output = Result<Proposal, ExecuteError<Self::Refusal>>> + Send;

    /// Waits until it is this command's turn among those of this process that contend with it, after one of them was faster.
    fn take_turn(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Returns the output after an append, or after there was nothing to append.
    fn finish(&mut self, append: Option<(&Append, Appended)>, attempts: u32) -> Self::Output;

    /// Whether a command that appended nothing may be the repetition of one that did.
    fn may_be_repeated(&self) -> bool {
        true
    }

    /// Returns the output of an earlier command with the same key, whose events these are.
    fn repeat(
        &self,
        stored: Vec<RecordedEvent>,
        attempts: u32,
    ) -> Result<Self::Output, ExecuteError<Self::Refusal>>;
}

impl CommandContext {
    pub(crate) fn of(store: Store) -> Self {
        Self {
            store,
            attempts_max: ATTEMPTS_MAX,
            metadata: Arc::default(),
            key: None,
            looking: KeyLooking::First,
        }
    }

    pub(crate) fn with_attempts(&self, attempts: u32) -> Self {
        Self {
            attempts_max: attempts.max(1),
            ..self.clone()
        }
    }
    pub(crate) fn with_metadata(&self, metadata: Metadata) -> Self {
        self.with_shared_metadata(Arc::new(metadata))
    }
    pub(crate) fn with_shared_metadata(&self, metadata: Arc<Metadata>) -> Self {
        Self {
            metadata,
            ..self.clone()
        }
    }
    pub(crate) fn with_idempotency_key(&self, command: &str, key: &str) -> Self {
        Self {
            key: Some(Arc::new((command.to_owned(), key.to_owned()))),
            ..self.clone()
        }
    }

    /// Returns a context whose commands look their idempotency key up last, because they recognize most repetitions themselves:
    /// see [`Command::may_be_repeated`].
    pub(crate) fn with_key_looked_up_last(&self) -> Self {
        Self {
            looking: KeyLooking::Last,
            ..self.clone()
        }
    }

    /// Returns a context with a key that is new, so that the first command does not look it up before it decides.
    pub(crate) fn with_new_key(&self) -> Self {
        Self {
            looking: KeyLooking::LastOnce(Arc::default()),
            ..self.clone()
        }
    }

    /// Returns the key of this command on `boundary`: keys of different commands never collide.
    pub(crate) fn key(&self, boundary: &str) -> Result<Option<IdempotencyKey>, ModelError> {
        let key = self.key.as_deref().map(|(command, key)| {
            let id = derived_id(&[boundary, command, key]);
            let tag = Tag::new(format!("$key:{id}"))?;
            Ok(IdempotencyKey { id, tag })
        });
        key.transpose()
    }

    /// Encodes events to append; `from` is the number of the first among all that the command appends.
    pub(crate) fn events<V: Event, E>(
        &self,
        events: &[V],
        key: Option<&IdempotencyKey>,
        from: usize,
    ) -> Result<Vec<NewEvent>, ExecuteError<E>> {
        let metadata = causation::completed(&self.metadata);
        let new = |(event, nth): (&V, usize)| {
            let encoded = self.encoded(event)?;
            let mut tags = event.tags()?;
            let mut id = self.store.next_id();
            if let Some(key) = key {
                tags.push(key.tag.clone());
                id = key.event_id(nth);
            }
            let event_type = event.event_type();
            let metadata = metadata.encode(event_type, event.version())?;
            let event_type = EventType::new(event_type)?;
            let new = NewEvent::new(event_type, encoded.content_type, encoded.data);
            Ok(new.with_id(id).with_metadata(metadata).with_tags(tags)?)
        };
        events.iter().zip(from..).map(new).collect()
    }

    /// Encodes an event, with its personal fields marked for being sealed.
    fn encoded<V: Event>(&self, event: &V) -> Result<Encoded, EncodeError> {
        if V::PERSONAL.is_empty() {
            return encode_readable(event);
        }
        let has_keys = self.store.erasure().is_some();
        let mut encoded = revealed(|| encode_readable(event))?;
        encoded.data = mark(V::PERSONAL, event.event_type(), encoded.data, has_keys)?;
        Ok(encoded)
    }

    /// Runs a command about `boundary`, whose span names `stream`.
    pub(crate) async fn run<C: Command>(
        &self,
        boundary: &str,
        stream: &StreamName,
        command: C,
    ) -> Result<C::Output, ExecuteError<C::Refusal>> {
        let span = command_span(stream, &self.metadata);
        let deciding = async {
            let key = self.key(boundary)?;
            self.attempts(key.as_ref(), command).await
        };
        let ended = deciding.instrument(span.clone()).await;
        record_outcome(&span, ended.as_ref().map(|(_, ended)| ended));
        ended.map(|(output, _)| output)
    }

    async fn attempts<C: Command>(
        &self,
        key: Option<&IdempotencyKey>,
        mut command: C,
    ) -> Result<(C::Output, Ended), ExecuteError<C::Refusal>> {
        let (mut attempts, mut used) = (0, None);
        loop {
            attempts += 1;
            match self.attempt(key, attempts, &mut used, &mut command).await {
                Err(ExecuteError::Conflict { .. }) if attempts < self.attempts_max => {
                    command.take_turn().await;
                    backoff(attempts).await;
                }
                ended => return ended,
            }
        }
    }

    /// Makes one attempt; `used`: where the log has an event of the key, if an earlier attempt was refused for it.
    async fn attempt<C: Command>(
        &self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
        used: &mut Option<Position>,
        command: &mut C,
    ) -> Result<(C::Output, Ended), ExecuteError<C::Refusal>> {
        let looks_first = attempts > 1 || self.looking.is_first();
        if looks_first
            && let Some(repeated) = self.repetition(key, *used, attempts, command).await?
        {
            return Ok(repeated);
        }
        let outcome = self.decide_and_append(key, attempts, used, command).await;
        let may_be_repeated = match &outcome {
            Ok((_, ended)) => !ended.is_new() && command.may_be_repeated(),
            Err(error) => matches!(
                error,
                ExecuteError::Conflict { .. }
                    | ExecuteError::Rejected(_)
                    | ExecuteError::Exists { .. }
            ),
        };
        if looks_first || !may_be_repeated {
            return outcome;
        }
        // Rare, and in memory of its own, so that every other command needs less.
        let repeated = Box::pin(self.repetition(key, *used, attempts, command)).await?;
        repeated.map_or(outcome, Ok)
    }

    /// Returns the outcome of an earlier command with this key, if there was one; `used`: as of [`Self::attempt`].
    async fn repetition<C: Command>(
        &self,
        key: Option<&IdempotencyKey>,
        used: Option<Position>,
        attempts: u32,
        command: &C,
    ) -> Result<Option<(C::Output, Ended)>, ExecuteError<C::Refusal>> {
        let Some(key) = key else {
            return Ok(None);
        };
        let mut stored = self.stored(key).await?;
        if let Some(position) = used.filter(|_| stored.is_empty()) {
            let head = self.store.event_store().head().await;
            // What is refused may be told before it can be read.
            if head.map_err(LoadError::Store)? >= position {
                stored = self.stored(key).await?;
                if stored.is_empty() {
                    return Err(ExecuteError::KeyUsed { position });
                }
            }
        }
        if stored.is_empty() {
            return Ok(None);
        }
        let events = stored.len();
        let output = command.repeat(stored, attempts)?;
        Ok(Some((output, Ended::new(attempts, events, true))))
    }

    async fn decide_and_append<C: Command>(
        &self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
        used: &mut Option<Position>,
        command: &mut C,
    ) -> Result<(C::Output, Ended), ExecuteError<C::Refusal>> {
        let proposal = command.propose(key, attempts).await?;
        let Some(append) = proposal.into_append(key)? else {
            let output = command.finish(None, attempts);
            return Ok((output, Ended::new(attempts, 0, false)));
        };
        let appended = self.append(&append, attempts).await;
        if let (Some(_), Err(ExecuteError::Conflict { conflict, .. })) = (key, &appended) {
            match conflict {
                // That of the key is the last one.
                Conflict::ConditionFailed {
                    condition,
                    position,
                } if condition + 1 == append.conditions().len() => *used = Some(*position),
                // The ids are made of the key.
                Conflict::PartlyStored { position, .. } => *used = Some(*position),
                _ => {}
            }
        }
        let appended = appended?;
        let ended = Ended::new(attempts, append.event_count(), appended.repeated);
        let output = command.finish(Some((&append, appended)), attempts);
        Ok((output, ended))
    }

    /// Reads the events of an earlier command with this key.
    async fn stored<E>(&self, key: &IdempotencyKey) -> Result<Vec<RecordedEvent>, ExecuteError<E>> {
        let mut stored = Vec::new();
        let mut batches = self.store.event_store().read(Read::query(key.query()?));
        while let Some(batch) = batches.next().await {
            stored.extend(batch.map_err(LoadError::Store)?.events);
        }
        Ok(stored)
    }

    /// Appends, and repeats the append with the same event ids while its outcome is unknown.
    async fn append<E>(&self, append: &Append, attempts: u32) -> Result<Appended, ExecuteError<E>> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.store.event_store().append(append.clone()).await {
                Ok(mut appended) => {
                    // Found by the first try, the events are another's with the same key; later they may be ours.
                    appended.repeated &= tries == 1;
                    return Ok(appended);
                }
                Err(AppendError::Conflict(conflict)) => {
                    metrics::counter!("leftfold_conflicts_total").increment(1);
                    tracing::debug!(%conflict, attempts, "others were faster");
                    return Err(ExecuteError::Conflict { attempts, conflict });
                }
                Err(AppendError::OutcomeUnknown { cause }) => {
                    if tries >= self.attempts_max {
                        let attempts = tries;
                        return Err(ExecuteError::OutcomeUnknown { attempts, cause });
                    }
                    backoff(tries).await;
                }
                // After an unknown outcome a refusal says nothing of the first try.
                Err(refused) if tries > 1 || !refused.is_definitely_not_written() => {
                    return Err(ExecuteError::OutcomeUnknown {
                        attempts: tries,
                        cause: Arc::new(refused),
                    });
                }
                Err(AppendError::Unavailable { cause }) => {
                    return Err(ExecuteError::Unavailable { cause });
                }
                Err(refused) => {
                    let cause = Arc::new(refused);
                    return Err(ExecuteError::Refused { cause });
                }
            }
        }
    }
}

/// Encodes an event, and makes sure that this program decodes it again as it is.
pub(crate) fn encode_readable<V: Event>(event: &V) -> Result<Encoded, EncodeError> {
    let encoded = event.encode()?;
    // An event of an unknown type is stored as it was read.
    if let Some(kind) = kind_of::<V>(event.event_type(), event.version()) {
        let data = Data::Stored(encoded.content_type, &encoded.data);
        let undecodable = |source| EncodeError::Undecodable {
            event_type: event.event_type().to_owned(),
            source: Box::new(source),
        };
        let read = V::decode(kind, data).map_err(undecodable)?;
        if read.presences() != event.presences() {
            return Err(undecodable(DecodeError::Data(codec::ABSENT.into())));
        }
        let again = read.encode()?;
        if !codec::is_same(encoded.content_type, &encoded.data, &again.data) {
            return Err(undecodable(DecodeError::Data(codec::CHANGED.into())));
        }
    }
    Ok(encoded)
}

/// Returns what an earlier command committed, from its events as they are stored.
pub(crate) fn repeated<V: Event>(
    stored: &[RecordedEvent],
    attempts: u32,
) -> Result<Committed<V>, LoadError> {
    let mut events = Vec::new();
    for event in stored {
        restore(event, &mut |value| events.push(value))
            .map_err(|broken| undecodable(event, broken))?;
    }
    let last = stored.last();
    Ok(Committed {
        events,
        revision: last.map(|last| last.revision),
        position: last.map(|last| last.position),
        attempts,
        repeated: true,
    })
}

/// Waits a random time, longer with each attempt, so that contenders do not collide again.
async fn backoff(attempt: u32) {
    let longest = BACKOFF * 2_u32.pow(attempt.min(6));
    // Any source of chance will do; the random part of a fresh id is one.
    let [.., chance] = *EventId::fresh().as_bytes();
    tokio::time::sleep(longest * u32::from(chance) / 255).await;
}
