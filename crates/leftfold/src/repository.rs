//! Repositories: load an aggregate, let a command decide, append its events.
//!
//! **Owns:** [`Repository`] and the order of its steps. **Does not know:** any domain, any store.
//! **Invariants:** a command decides on a fold of all events of its stream; its events are appended only if no other event was
//! appended to the stream since; after a conflict it decides again on a fresh fold.

use std::{marker::PhantomData, sync::Arc};

use leftfold_model::{Append, Appended, RecordedEvent, StreamName};
use tracing::{Instrument, field, info_span};

use crate::{
    Aggregate, AsOf, Committed, Event, ExecuteError, IntoDecision, LoadError, Loaded, Metadata,
    Snapshot, Store,
    command::{Command, CommandContext, IdempotencyKey, Proposal, repeated},
    load::{replay, stream_of},
    observe::sample,
    snapshot::Snapshotter,
    state_cache::{StateCache, advance},
    stream_queue::Turn,
    unit_of_work::AggregateRef,
};

/// Loads and changes aggregates of one kind. Cheap to clone.
#[derive(Debug)]
pub struct Repository<A> {
    context: CommandContext,
    snapshots: Option<Arc<Snapshotter<A>>>,
    cache: Option<Arc<StateCache<A>>>,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for Repository<A> {
    fn clone(&self) -> Self {
        self.on(self.context.clone())
    }
}

impl<A> Repository<A> {
    fn on(&self, context: CommandContext) -> Self {
        Self {
            context,
            snapshots: self.snapshots.clone(),
            cache: self.cache.clone(),
            of: PhantomData,
        }
    }
}

impl<A: Aggregate> Repository<A> {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            context: CommandContext::of(store),
            snapshots: None,
            cache: None,
            of: PhantomData,
        }
    }

    /// Returns a clone whose commands decide at most `attempts` times, and at least once. Default: 64.
    #[must_use]
    pub fn with_attempts(&self, attempts: u32) -> Self {
        self.on(self.context.with_attempts(attempts))
    }

    /// Returns a clone whose commands append events with this metadata.
    #[must_use]
    pub fn with_metadata(&self, metadata: Metadata) -> Self {
        self.on(self.context.with_metadata(metadata))
    }

    pub(crate) fn with_shared_metadata(&self, metadata: Arc<Metadata>) -> Self {
        self.on(self.context.with_shared_metadata(metadata))
    }

    /// Sets an idempotency key: a command of this name with this key changes an aggregate once, however often it is executed.
    /// Later ones return the events of the first ([`Committed::repeated`]) and do not decide.
    ///
    /// The key belongs to the command's name and to the aggregate: one request may carry out several commands with one key.
    /// A command that was rejected, or decided on no events, leaves nothing behind and decides again. Costs one more
    /// read for each command, and a tag on its events.
    #[must_use]
    pub fn with_idempotency_key(&self, command: &str, key: &str) -> Self {
        self.on(self.context.with_idempotency_key(command, key))
    }

    /// Returns a clone whose idempotency key is new: see [`CommandContext::with_new_key`].
    pub(crate) fn with_new_key(&self) -> Self {
        self.on(self.context.with_new_key())
    }

    /// Returns a clone whose loads begin with snapshots, and that takes snapshots as the state's `#[snapshot(...)]` says.
    ///
    /// A background task writes them. A snapshot that is missing, old, unreadable or of another program costs time and
    /// nothing else. Snapshots of aggregates with personal fields are sealed as a whole, and worthless once any
    /// subject of the store is forgotten; they are then taken again.
    #[must_use]
    pub fn with_snapshots(&self) -> Self
    where
        A: Snapshot,
    {
        Self {
            snapshots: Some(Arc::new(Snapshotter::of(&self.context.store))),
            ..self.clone()
        }
    }

    /// Returns a clone that keeps the states of at most `states` aggregates in memory for later commands.
    ///
    /// A command first decides on the cached state, without a read. It appends under the cached revision, so a newer event is
    /// a conflict. A rejection, or a decision on no events, is returned only after a fresh load. [`Self::load`] does not use
    /// the cache. Clones of the repository share it.
    ///
    /// States of aggregates with personal fields are not cached.
    ///
    /// A cache pays off where one process, or a few, execute many commands on the same aggregates.
    #[must_use]
    pub fn with_state_cache(&self, states: usize) -> Self {
        Self {
            cache: Some(Arc::new(StateCache::of(states))),
            ..self.clone()
        }
    }

    /// Loads the aggregate of this id, folded from all its events; the default state if it has none.
    ///
    /// # Errors
    /// [`LoadError`].
    /// # Cost
    /// Reads and decodes every event of the aggregate, or those since its snapshot.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        let stream = stream_of::<A>(id)?;
        self.load_stream(&stream).await
    }

    /// Loads the aggregate of this id as it was: after a revision, at a position of the log, or at a time.
    ///
    /// # Errors
    /// [`LoadError`].
    /// # Cost
    /// Reads and decodes every event up to there; snapshots do not help.
    pub async fn load_at(&self, id: &str, at: impl Into<AsOf>) -> Result<Loaded<A>, LoadError> {
        let stream = stream_of::<A>(id)?;
        let span = info_span!("leftfold.load", %stream, events_read = field::Empty);
        let replayed = replay(self.store(), &stream, Some(at.into()));
        let loaded = replayed.instrument(span.clone()).await?;
        span.record("events_read", loaded.replayed);
        Ok(loaded)
    }

    pub(crate) async fn load_stream(&self, stream: &StreamName) -> Result<Loaded<A>, LoadError> {
        let span = info_span!(
            "leftfold.load",
            %stream,
            events_read = field::Empty,
            snapshot = field::Empty
        );
        let loading = async {
            match &self.snapshots {
                Some(snapshots) => snapshots.load(self.store(), stream).await,
                None => replay(self.store(), stream, None).await,
            }
        };
        let loaded = loading.instrument(span.clone()).await?;
        if let Some(snapshots) = &self.snapshots
            && snapshots.is_due(&loaded)
        {
            snapshots.spawn_snapshot(&self.context.store, stream);
        }
        span.record("events_read", loaded.replayed);
        span.record("snapshot", loaded.from_snapshot);
        metrics::histogram!("leftfold_events_read").record(sample(loaded.replayed));
        Ok(loaded)
    }

    /// Takes a snapshot of the aggregate of this id now, if it has events and the repository has snapshots. `true`: one
    /// was taken.
    ///
    /// # Errors
    /// [`LoadError`]; that the snapshot could not be kept is `false`.
    pub async fn snapshot(&self, id: &str) -> Result<bool, LoadError> {
        let stream = stream_of::<A>(id)?;
        let loaded = self.load_stream(&stream).await?;
        match &self.snapshots {
            Some(snapshots) => Ok(snapshots.take(&stream, &loaded).await),
            None => Ok(false),
        }
    }

    /// Loads the aggregate, lets `decide` decide, and appends what it returns, all or nothing.
    ///
    /// `decide` returns events, or a `Result` of events and an error of your own: see [`IntoDecision`]. No events is a success.
    ///
    /// Commands of this process on one aggregate wait for each other. If another process changes the aggregate in between,
    /// or its stream is deleted, the aggregate is loaded again and `decide` is called again, up to 64 times with short random
    /// pauses (see [`Self::with_attempts`]). So `decide` must do nothing but decide.
    ///
    /// # Errors
    /// [`ExecuteError`]; the domain's own error is [`ExecuteError::Rejected`].
    /// # Cancel safety
    /// Dropping the future does not take back an append that was handed to the store.
    pub async fn execute<D: IntoDecision<A::Event>>(
        &self,
        id: &str,
        decide: impl FnMut(&A) -> D + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<D::Refusal>> {
        self.decided(id, false, decide).await
    }

    /// Lets `decide` decide on an aggregate that must not have events yet, and appends what it returns.
    ///
    /// # Errors
    /// [`ExecuteError::Exists`] if it has; else as [`Self::execute`].
    pub async fn create<D: IntoDecision<A::Event>>(
        &self,
        id: &str,
        mut decide: impl FnMut() -> D + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<D::Refusal>> {
        self.decided(id, true, |_: &A| decide()).await
    }

    async fn decided<D: IntoDecision<A::Event>>(
        &self,
        id: &str,
        new: bool,
        decide: impl FnMut(&A) -> D + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<D::Refusal>> {
        let stream = stream_of::<A>(id)?;
        let command = AggregateCommand {
            turn: self.context.store.turn(&stream).await,
            repository: self,
            stream: &stream,
            new,
            decide,
            decided: None,
        };
        let boundary = format!("aggregate {stream}");
        self.context.run(&boundary, &stream, command).await
    }

    /// Loads the aggregate and lets `decide` decide, and appends nothing: what would be appended is returned.
    ///
    /// For an append that is part of something else, such as an application's own PostgreSQL transaction
    /// (`PostgresStore::append_in`). The append is refused there if the aggregate, or its stream's life, changed since, and if
    /// the repository's key was used before. The caller decides whether to prepare again. No events is `None`. For a
    /// [`Store::tenant`], the append has the stored names, because the transaction is one of the store that tenants share.
    ///
    /// # Errors
    /// [`ExecuteError`]; the domain's own error is [`ExecuteError::Rejected`].
    pub async fn prepare<D: IntoDecision<A::Event>>(
        &self,
        id: &str,
        mut decide: impl FnMut(&A) -> D + Send,
    ) -> Result<Option<Append>, ExecuteError<D::Refusal>> {
        let stream = stream_of::<A>(id)?;
        let key = self.context.key(&format!("aggregate {stream}"))?;
        let loaded = self.load_stream(&stream).await?;
        let events = decide(&loaded.state).into_decision();
        let events = events.map_err(ExecuteError::Rejected)?;
        let mut proposal = Proposal::default();
        let new = self.context.events(&events, key.as_ref(), 0)?;
        proposal.add(loaded.ground(&stream), new);
        let Some(append) = proposal.into_append(key.as_ref())? else {
            return Ok(None);
        };
        let append = match self.context.store.erasure() {
            None => append,
            Some(erasure) => {
                let sealed = erasure.seal(append).await;
                sealed.map_err(|error| ExecuteError::Unavailable {
                    cause: Arc::new(error),
                })?
            }
        };
        let stored = self.context.store.stored_append(append);
        let stored = stored.map_err(|error| ExecuteError::Refused {
            cause: Arc::new(error),
        })?;
        Ok(Some(stored))
    }

    /// Returns the aggregate of this id as a participant of a [`Store::unit_of_work`].
    pub fn aggregate(&self, id: impl Into<String>) -> AggregateRef<A> {
        AggregateRef::of(self.clone(), id.into())
    }

    /// Returns the stream of the aggregate of this id.
    ///
    /// # Errors
    /// [`LoadError::InvalidId`].
    pub fn stream(&self, id: &str) -> Result<StreamName, LoadError> {
        stream_of::<A>(id)
    }

    pub(crate) fn shared_store(&self) -> Arc<dyn leftfold_store::EventStore> {
        Arc::clone(self.context.store.event_store())
    }
    pub(crate) fn store(&self) -> &dyn leftfold_store::EventStore {
        self.context.store.event_store().as_ref()
    }
}

/// A command on one aggregate.
struct AggregateCommand<'a, A: Aggregate, F> {
    repository: &'a Repository<A>,
    stream: &'a StreamName,
    turn: Turn,
    /// Whether the aggregate must not have events yet.
    new: bool,
    decide: F,
    /// The state it was decided on, and the events.
    decided: Option<(Loaded<A>, Vec<A::Event>)>,
}

impl<A, F, D> AggregateCommand<'_, A, F>
where
    A: Aggregate,
    F: FnMut(&A) -> D + Send,
    D: IntoDecision<A::Event>,
{
    /// Decides on a state in memory, if there is one, and if what comes of it is worth appending: a refusal may rest on a
    /// state that is behind the log.
    fn decide_in_memory(&mut self, attempts: u32) -> Option<(Loaded<A>, Vec<A::Event>)> {
        if self.new || attempts > 1 {
            return None;
        }
        let left = self.turn.take_state::<Loaded<A>>();
        let cache = self.repository.cache.as_ref();
        let loaded = left.or_else(|| cache?.take(self.stream))?;
        let events = (self.decide)(&loaded.state).into_decision().ok()?;
        (!events.is_empty()).then_some((loaded, events))
    }

    async fn load_and_decide(
        &mut self,
    ) -> Result<(Loaded<A>, Vec<A::Event>), ExecuteError<D::Refusal>> {
        let loaded = self.repository.load_stream(self.stream).await?;
        if let (true, Some(revision)) = (self.new, loaded.revision()) {
            let stream = self.stream.clone();
            return Err(ExecuteError::Exists { stream, revision });
        }
        let decided = (self.decide)(&loaded.state).into_decision();
        Ok((loaded, decided.map_err(ExecuteError::Rejected)?))
    }
}

impl<A, F, D> Command for AggregateCommand<'_, A, F>
where
    A: Aggregate,
    F: FnMut(&A) -> D + Send,
    D: IntoDecision<A::Event>,
{
    type Refusal = D::Refusal;
    type Output = Committed<A::Event>;

    async fn propose(
        &mut self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
    ) -> Result<Proposal, ExecuteError<D::Refusal>> {
        let (loaded, events) = match self.decide_in_memory(attempts) {
            Some(decided) => decided,
            None => self.load_and_decide().await?,
        };
        let mut proposal = Proposal::default();
        let new = self.repository.context.events(&events, key, 0)?;
        proposal.add(loaded.ground(self.stream), new);
        self.decided = Some((loaded, events));
        Ok(proposal)
    }

    fn finish(
        &mut self,
        append: Option<(&Append, Appended)>,
        attempts: u32,
    ) -> Committed<A::Event> {
        let (mut loaded, events) = match self.decided.take() {
            Some((loaded, events)) => (Some(loaded), events),
            None => (None, Vec::new()),
        };
        let mut committed = Committed {
            events,
            revision: loaded.as_ref().and_then(Loaded::revision),
            position: None,
            attempts,
            repeated: false,
        };
        let Some((append, appended)) = append else {
            return committed;
        };
        committed.revision = appended.streams.first().map(|&(_, revision)| revision);
        committed.position = Some(appended.last);
        committed.repeated = appended.repeated;
        if !appended.repeated
            && let Some(loaded) = loaded.take()
        {
            let versions = committed.events.iter().map(Event::version);
            let cache = self.repository.cache.as_ref();
            // What is personal stays in memory no longer than a command.
            let may_stay = A::Event::PERSONAL.is_empty();
            if may_stay && (cache.is_some() || self.turn.is_waited_for()) {
                let newer = advance(loaded, append.events().zip(versions), &appended);
                match (newer, cache) {
                    (Some(newer), Some(cache)) => cache.put(self.stream, newer),
                    (Some(newer), None) => self.turn.leave_state(newer),
                    (None, _) => {}
                }
            }
        }
        committed
    }

    fn repeat(
        &self,
        stored: Vec<RecordedEvent>,
        attempts: u32,
    ) -> Result<Committed<A::Event>, ExecuteError<D::Refusal>> {
        Ok(repeated(&stored, attempts)?)
    }
}
