//! Repositories: load an aggregate, let a command decide, append what it decided.
//!
//! **Owns:** [`Repository`] and the order of its steps. **Does not know:** any domain, any store.
//! **Invariants:** a command decides on a fold of everything before it; what it decided is appended only if that is still
//! everything; after a conflict it decides anew on a fresh fold.

use std::{marker::PhantomData, sync::Arc};

use leftfold_model::{Append, StreamName};
use tracing::{Instrument, field, info_span};

use crate::{
    Aggregate, AsOf, Committed, Event, ExecuteError, IntoEvents, LoadError, Loaded, Metadata,
    Snapshot, Store,
    command::{CommandContext, IdempotencyKey, backoff},
    load::{replay, stream_of},
    observe::{command_span, record_outcome, sample},
    snapshot::Snapshotter,
    state_cache::StateCache,
    unit_of_work::AggregateRef,
};

/// Loads and changes aggregates of one kind. Cheap to clone.
#[derive(Debug)]
pub struct Repository<A> {
    terms: CommandContext,
    snapshots: Option<Arc<Snapshotter<A>>>,
    kept: Option<Arc<StateCache<A>>>,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for Repository<A> {
    fn clone(&self) -> Self {
        self.on(self.terms.clone())
    }
}

impl<A> Repository<A> {
    fn on(&self, terms: CommandContext) -> Self {
        Self {
            terms,
            snapshots: self.snapshots.clone(),
            kept: self.kept.clone(),
            of: PhantomData,
        }
    }
}

impl<A: Aggregate> Repository<A> {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            terms: CommandContext::of(store),
            snapshots: None,
            kept: None,
            of: PhantomData,
        }
    }

    /// The same repository, whose commands decide at most `attempts` times, at least once; 16 unless set.
    #[must_use]
    pub fn with_attempts(&self, attempts: u32) -> Self {
        self.on(self.terms.with_attempts(attempts))
    }

    /// The same repository, whose events carry this metadata.
    #[must_use]
    pub fn with_metadata(&self, metadata: Metadata) -> Self {
        self.on(self.terms.with_metadata(metadata))
    }

    /// The same repository, whose next command is carried out once for this key and aggregate, however often it is
    /// executed: later ones are answered with the events of the first ([`Committed::repeated`]) and do not decide.
    ///
    /// A command that was rejected, or decided on no events, leaves nothing behind and decides again. Costs one more
    /// read for each command, and a tag on its events.
    #[must_use]
    pub fn with_key(&self, key: &str) -> Self {
        self.on(self.terms.with_key(key))
    }

    /// The same repository, which begins loads with snapshots and takes them, as the state's `#[snapshot(...)]` says.
    ///
    /// Snapshots are written in the background. One that is missing, old, of another program or unreadable costs time,
    /// and nothing else.
    #[must_use]
    pub fn with_snapshots(&self) -> Self
    where
        A: Snapshot,
    {
        let kept = self.terms.store.event_store().snapshots();
        Self {
            snapshots: Some(Arc::new(Snapshotter::of(kept))),
            ..self.clone()
        }
    }

    /// The same repository, which keeps the states of at most so many aggregates in memory, for its next commands.
    ///
    /// A command then decides on the kept state first, without reading. Its events are appended only if nothing else was
    /// meanwhile, as always; a refusal, and that there is nothing to do, are believed only after a fresh load. Loads are
    /// not answered from it. Clones of the repository share it.
    ///
    /// Worth its memory where few processes, best one, execute commands on the same aggregates again and again.
    #[must_use]
    pub fn with_state_cache(&self, states: usize) -> Self {
        Self {
            kept: Some(Arc::new(StateCache::of(states))),
            ..self.clone()
        }
    }

    /// The aggregate of this id, folded from all its events; the default state if it has none.
    ///
    /// # Errors
    /// [`LoadError`].
    /// # Cost
    /// Reads and decodes every event of the aggregate, or those since its snapshot.
    pub async fn load(&self, id: &str) -> Result<Loaded<A>, LoadError> {
        let stream = stream_of::<A>(id)?;
        self.load_stream(&stream).await
    }

    /// The aggregate of this id as it was: after a revision, at a position of the log, or at a time.
    ///
    /// # Errors
    /// [`LoadError`].
    /// # Cost
    /// Reads and decodes every event up to there; snapshots do not help.
    pub async fn load_at(&self, id: &str, at: impl Into<AsOf>) -> Result<Loaded<A>, LoadError> {
        let stream = stream_of::<A>(id)?;
        let span = info_span!("leftfold.load", %stream, events_read = field::Empty);
        let replayed = replay(self.store(), &stream, Loaded::empty(), Some(at.into()));
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
                None => replay(self.store(), stream, Loaded::empty(), None).await,
            }
        };
        let loaded = loading.instrument(span.clone()).await?;
        if let Some(snapshots) = &self.snapshots
            && snapshots.is_due(&loaded)
        {
            snapshots.spawn_snapshot(&self.terms.store, stream);
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
        decide: impl FnMut(&A) -> Result<R, E> + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<E>>
    where
        R: IntoEvents<A::Event>,
    {
        self.decided(id, false, decide).await
    }

    /// Like [`Self::execute`], for an aggregate that must not have events yet.
    ///
    /// # Errors
    /// [`ExecuteError::Exists`] if it has; else as [`Self::execute`].
    pub async fn create<R, E>(
        &self,
        id: &str,
        mut decide: impl FnMut() -> Result<R, E> + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<E>>
    where
        R: IntoEvents<A::Event>,
    {
        self.decided(id, true, |_: &A| decide()).await
    }

    async fn decided<R, E>(
        &self,
        id: &str,
        new: bool,
        mut decide: impl FnMut(&A) -> Result<R, E> + Send,
    ) -> Result<Committed<A::Event>, ExecuteError<E>>
    where
        R: IntoEvents<A::Event>,
    {
        let stream = stream_of::<A>(id)?;
        let span = command_span(&stream, &self.terms);
        let deciding = async {
            let key = self.terms.key(stream.as_str())?;
            let mut attempts = 0;
            loop {
                attempts += 1;
                let tried = self
                    .attempt(&stream, key.as_ref(), attempts, new, &mut decide)
                    .await;
                match tried {
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
        stream: &StreamName,
        key: Option<&IdempotencyKey>,
        attempts: u32,
        new: bool,
        decide: &mut (impl FnMut(&A) -> Result<R, E> + Send),
    ) -> Result<Committed<A::Event>, ExecuteError<E>>
    where
        R: IntoEvents<A::Event>,
    {
        if let Some(key) = key
            && let Some(earlier) = self.terms.find_duplicate(key, attempts).await?
        {
            return Ok(earlier);
        }
        let (loaded, events) = match self.decide_on_kept(stream, new, attempts, decide) {
            Some(decided) => decided,
            None => {
                let loaded = self.load_stream(stream).await?;
                if let (true, Some(revision)) = (new, loaded.revision()) {
                    let stream = stream.clone();
                    return Err(ExecuteError::Exists { stream, revision });
                }
                let decided = decide(&loaded.state).map_err(ExecuteError::Rejected)?;
                (loaded, decided.into_events())
            }
        };
        let mut committed = Committed {
            events,
            revision: loaded.revision(),
            position: None,
            attempts,
            repeated: false,
        };
        if committed.events.is_empty() {
            return Ok(committed);
        }
        let stored = self.terms.events(&committed.events, key, 0)?;
        let mut append = Append::to(stream.clone(), loaded.expected(), stored)?;
        if let Some(key) = key {
            append = append.with_condition(key.not_seen_condition()?)?;
        }
        let appended = self.terms.append(&append, attempts).await?;
        committed.revision = appended.streams.first().map(|&(_, revision)| revision);
        committed.position = Some(appended.last);
        committed.repeated = appended.repeated;
        if let Some(kept) = &self.kept
            && !appended.repeated
        {
            let versions = committed.events.iter().map(Event::version);
            kept.put(stream, loaded, append.events().zip(versions), &appended);
        }
        Ok(committed)
    }

    /// What a command decides on the state that is kept, if that is worth appending.
    fn decide_on_kept<R, E>(
        &self,
        stream: &StreamName,
        new: bool,
        attempts: u32,
        decide: &mut (impl FnMut(&A) -> Result<R, E> + Send),
    ) -> Option<(Loaded<A>, Vec<A::Event>)>
    where
        R: IntoEvents<A::Event>,
    {
        if new || attempts > 1 {
            return None;
        }
        let loaded = self.kept.as_ref()?.take(stream)?;
        let events = decide(&loaded.state).ok()?.into_events();
        (!events.is_empty()).then_some((loaded, events))
    }

    /// The aggregate of this id, to take part in a command on several: see [`Store::unit_of_work`].
    pub fn aggregate(&self, id: impl Into<String>) -> AggregateRef<A> {
        AggregateRef::of(self.clone(), id.into())
    }

    /// The stream of the aggregate of this id.
    ///
    /// # Errors
    /// [`LoadError::InvalidId`].
    pub fn stream(&self, id: &str) -> Result<StreamName, LoadError> {
        stream_of::<A>(id)
    }

    pub(crate) fn store(&self) -> &dyn leftfold_store::EventStore {
        self.terms.store.event_store().as_ref()
    }
}
