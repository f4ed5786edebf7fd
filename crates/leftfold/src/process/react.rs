//! Committing a reaction, once.
//!
//! **Owns:** [`Reactor`]: loading a process, letting it react, and the command by which that is committed.
//! **Does not know:** who carries out commands, when timers are due.
//! **Invariants:** a reaction is decided on the state before it; one that was committed before is decided again on that same
//! state, and not committed again; a state in memory may lag the log, so nothing but an append is concluded from it.

use leftfold_model::{Append, Appended, EventId, RecordedEvent, Revision, StreamName, Timestamp};
use tracing::{Instrument, field, info_span};

use super::{
    definition::Process,
    reaction::{Reaction, Seen},
    state::ProcessState,
    timers::{SetTimers, TimerChanges},
};
use crate::{
    AsOf, Event, ExecuteError, LoadError, Loaded, Metadata, Store,
    command::{Command, CommandContext, IdempotencyKey, Proposal},
    load::{replay, stream_of},
    state_cache::{StateCache, advance},
};

/// Processes whose states are kept in memory between their reactions, at most.
const STATES_MAX: usize = 16_384;

/// A reaction, and what is known of its place in the log.
pub(super) struct Reacted<P: Process> {
    pub(super) reaction: Reaction<P::Event, P::Command>,
    pub(super) timers: TimerChanges,
    /// The timers that were set before it.
    pub(super) before: SetTimers,
    /// The first event it remembered; `None` if it ignored what it saw.
    pub(super) event: Option<EventId>,
    /// It was committed before.
    pub(super) repeated: bool,
    /// What its commands are caused by.
    pub(super) metadata: Metadata,
}

/// What a process reacts to, and under which name that is known.
pub(super) struct Stimulus<'a, P: Process> {
    pub(super) seen: Seen<'a, P::Sees>,
    pub(super) time: Timestamp,
    /// The same for each repetition.
    pub(super) key: String,
    pub(super) cause: StimulusCause<'a>,
}

/// What led to a stimulus.
pub(super) enum StimulusCause<'a> {
    /// An event, by the metadata of its effects.
    Event(Metadata),
    /// The event that set the timer, by its id.
    Timer(&'a str),
}

/// What a process decided.
struct Decided<P: Process> {
    reaction: Reaction<P::Event, P::Command>,
    timers: TimerChanges,
    metadata: Metadata,
}

impl<P: Process> Stimulus<'_, P> {
    /// Reacts on a state.
    fn decide(&self, state: &ProcessState<P>) -> Decided<P> {
        let metadata = match &self.cause {
            StimulusCause::Event(metadata) => metadata.clone(),
            StimulusCause::Timer(_) => state.effect_metadata(),
        };
        let mut timers = TimerChanges::default();
        let holds = match (self.seen, &self.cause) {
            // It may have been cancelled or moved.
            (Seen::Timer(name), StimulusCause::Timer(by)) => {
                let set = state.timers.get(name);
                set.is_some_and(|set| set.by.to_string() == *by)
            }
            _ => true,
        };
        let reaction = match holds {
            true => state.process.react(self.seen),
            false => Reaction::ignore(),
        };
        if !reaction.is_ignored() {
            if let Seen::Timer(name) = self.seen {
                timers.insert(name.to_owned(), None);
            }
            for (name, when) in &reaction.timers {
                timers.insert(name.clone(), when.map(|when| when.time(self.time)));
            }
        }
        Decided {
            reaction,
            timers,
            metadata,
        }
    }
}

/// Lets processes of one kind react.
pub(super) struct Reactor<P: Process> {
    context: CommandContext,
    states: Option<StateCache<ProcessState<P>>>,
}

impl<P: Process> Reactor<P> {
    pub(super) fn new(store: Store) -> Self {
        Self {
            context: CommandContext::of(store).with_key_looked_up_last(),
            states: ProcessState::<P>::MAY_STAY.then(|| StateCache::of(STATES_MAX)),
        }
    }

    /// Lets a process react, and commits what it decides unless that was done before.
    pub(super) async fn react(
        &self,
        id: &str,
        stimulus: &Stimulus<'_, P>,
    ) -> Result<Reacted<P>, ExecuteError<std::convert::Infallible>> {
        let stream = stream_of::<P>(id)?;
        let context = self.context.with_idempotency_key("react", &stimulus.key);
        let command = React {
            reactor: self,
            context: &context,
            stream: &stream,
            stimulus,
            decided: None,
            may_be_repeated: true,
        };
        let boundary = format!("process {stream}");
        match context.run(&boundary, &stream, command).await? {
            Ended::Now(reacted) => Ok(*reacted),
            Ended::Before(event, first) => {
                self.reacted_before(&stream, stimulus, event, first).await
            }
        }
    }

    /// Decides once more what was committed before, on the state before it. In memory of its own, because it is rare.
    async fn reacted_before(
        &self,
        stream: &StreamName,
        stimulus: &Stimulus<'_, P>,
        event: EventId,
        first: Revision,
    ) -> Result<Reacted<P>, ExecuteError<std::convert::Infallible>> {
        let before = first.get().checked_sub(1).map(Revision::new);
        let state = match before {
            None => ProcessState::default(),
            Some(before) => {
                let loaded = self.load(stream, Some(before.into()));
                Box::pin(loaded).await?.into_state()
            }
        };
        let Decided {
            reaction,
            timers,
            metadata,
        } = stimulus.decide(&state);
        Ok(Reacted {
            reaction,
            timers,
            before: state.timers,
            event: Some(event),
            repeated: true,
            metadata,
        })
    }

    /// Loads the timers of a process that are set now.
    pub(super) async fn set_timers(&self, id: &str) -> Result<SetTimers, LoadError> {
        let stream = stream_of::<P>(id)?;
        Ok(self.load(&stream, None).await?.into_state().timers)
    }

    /// Keeps a state in memory for the next reaction.
    fn keep(&self, stream: &StreamName, mut loaded: Loaded<ProcessState<P>>) {
        if let Some(states) = self.states.as_ref().filter(|_| loaded.state.is_small()) {
            loaded.state.unshare();
            states.put(stream, loaded);
        }
    }

    async fn load(
        &self,
        stream: &StreamName,
        at: Option<AsOf>,
    ) -> Result<Loaded<ProcessState<P>>, LoadError> {
        let span = info_span!("leftfold.load", %stream, events_read = field::Empty);
        let store = self.context.store.event_store().as_ref();
        let loaded = replay(store, stream, at).instrument(span.clone()).await?;
        span.record("events_read", loaded.replayed);
        Ok(loaded)
    }
}

/// The command by which a process reacts.
struct React<'a, P: Process> {
    reactor: &'a Reactor<P>,
    context: &'a CommandContext,
    stream: &'a StreamName,
    stimulus: &'a Stimulus<'a, P>,
    /// The state it was decided on, and what was decided.
    decided: Option<(Loaded<ProcessState<P>>, Decided<P>)>,
    /// It is not known that it was not committed before.
    may_be_repeated: bool,
}

/// How a reaction ended.
enum Ended<P: Process> {
    Now(Box<Reacted<P>>),
    /// Committed before, with these first and last events.
    Before(EventId, Revision),
}

impl<P: Process> React<'_, P> {
    /// Decides on a state; `None` if the state is behind the reaction to this very stimulus.
    fn decide(
        &self,
        key: Option<&IdempotencyKey>,
        loaded: Loaded<ProcessState<P>>,
    ) -> Option<(Loaded<ProcessState<P>>, Decided<P>)> {
        let is_repeated = key.is_some_and(|key| loaded.state().has_event(key.event_id(0)));
        if is_repeated {
            return None;
        }
        let decided = self.stimulus.decide(loaded.state());
        Some((loaded, decided))
    }

    /// Decides on the state in memory if there is one. If nothing is to be appended, which would be refused on a state that is
    /// behind the log, the state has to be that of the log.
    async fn decide_in_memory(
        &self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
    ) -> Result<Option<(Loaded<ProcessState<P>>, Decided<P>)>, LoadError> {
        let states = self.reactor.states.as_ref().filter(|_| attempts == 1);
        let Some(loaded) = states.and_then(|states| states.take(self.stream)) else {
            return Ok(None);
        };
        let Some((loaded, decided)) = self.decide(key, loaded) else {
            return Ok(None);
        };
        let store = self.context.store.event_store().as_ref();
        if decided.reaction.is_ignored() && !loaded.is_current(store, self.stream).await? {
            return Ok(None);
        }
        Ok(Some((loaded, decided)))
    }
}

impl<P: Process> Command for React<'_, P> {
    type Refusal = std::convert::Infallible;
    type Output = Ended<P>;

    async fn propose(
        &mut self,
        key: Option<&IdempotencyKey>,
        attempts: u32,
    ) -> Result<Proposal, ExecuteError<Self::Refusal>> {
        let decided = match self.decide_in_memory(key, attempts).await? {
            Some(decided) => Some(decided),
            None => self.decide(key, self.reactor.load(self.stream, None).await?),
        };
        let Some((loaded, decided)) = decided else {
            // The key leads to the events of the reaction.
            return Ok(Proposal::default());
        };
        self.may_be_repeated = false;
        let mut proposal = Proposal::default();
        if !decided.reaction.is_ignored() {
            let metadata = decided.timers.write(decided.metadata.clone());
            let context = self.context.with_metadata(metadata);
            let events = context.events(&decided.reaction.events, key, 0)?;
            proposal.add(loaded.ground(self.stream), events);
        }
        self.decided = Some((loaded, decided));
        Ok(proposal)
    }

    fn may_be_repeated(&self) -> bool {
        self.may_be_repeated
    }

    fn finish(&mut self, append: Option<(&Append, Appended)>, _: u32) -> Ended<P> {
        let Some((loaded, decided)) = self.decided.take() else {
            // It was committed before.
            return Ended::Now(Box::new(Reacted::nothing()));
        };
        let before = match decided.timers.is_empty() {
            true => SetTimers::default(),
            false => loaded.state().timers.clone(),
        };
        let mut event = None;
        if let Some((append, appended)) = append {
            event = append.events().next().map(|event| event.id());
            self.may_be_repeated = appended.repeated;
            if !appended.repeated && self.reactor.states.is_some() {
                let versions = decided.reaction.events.iter().map(Event::version);
                let newer = advance(loaded, append.events().zip(versions), &appended);
                newer
                    .into_iter()
                    .for_each(|newer| self.reactor.keep(self.stream, newer));
            }
        } else {
            self.reactor.keep(self.stream, loaded);
        }
        Ended::Now(Box::new(Reacted {
            reaction: decided.reaction,
            timers: decided.timers,
            before,
            event,
            repeated: false,
            metadata: decided.metadata,
        }))
    }

    fn repeat(
        &self,
        stored: Vec<RecordedEvent>,
        _: u32,
    ) -> Result<Ended<P>, ExecuteError<Self::Refusal>> {
        let first = stored.first().map(|event| (event.id, event.revision));
        let (id, revision) = first.unwrap_or((EventId::fresh(), Revision::FIRST));
        Ok(Ended::Before(id, revision))
    }
}

impl<P: Process> Reacted<P> {
    fn nothing() -> Self {
        Self {
            reaction: Reaction::ignore(),
            timers: TimerChanges::default(),
            before: SetTimers::default(),
            event: None,
            repeated: false,
            metadata: Metadata::new(),
        }
    }
}
