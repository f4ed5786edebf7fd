//! Units of work: commands on several aggregates at once, and on models beside them.
//!
//! **Owns:** [`UnitOfWork`], [`AggregateRef`], [`ModelRef`] and the trait [`Participants`] for tuples.
//! **Does not know:** any domain, any store.
//! **Invariants:** all decided events are one append: all or nothing. It succeeds only if every participant is still as it was
//! read, including those that get no events.

use std::future::Future;

use leftfold_model::{
    Append, Appended, NewEvent, Position, RecordedEvent, Revision, StreamName, Tag,
};

use crate::{
    Aggregate, Data, DecodeError, EncodeError, Encoded, Event, EventKind, ExecuteError, IntoEvents,
    LoadError, Metadata, Models, Repository, Store, UnknownEventPolicy, Upcasters,
    command::{Command, CommandContext, IdempotencyKey, Proposal},
    decide::{boundary_of, read_models},
    load::{Ground, stream_of},
    stream_queue::Turn,
};

/// An aggregate that takes part in a command on several; made by [`Repository::aggregate`].
#[derive(Debug, Clone)]
pub struct AggregateRef<A> {
    repository: Repository<A>,
    id: String,
}

impl<A> AggregateRef<A> {
    pub(crate) fn of(repository: Repository<A>, id: String) -> Self {
        Self { repository, id }
    }
}

/// A model, or a tuple of models, that a command on aggregates decides on; made by [`Store::model`]. It gets no events.
#[derive(Debug, Clone)]
pub struct ModelRef<M> {
    models: M,
}

impl<M> ModelRef<M> {
    pub(crate) fn of(models: M) -> Self {
        Self { models }
    }
}

/// A command on several aggregates; made by [`Store::unit_of_work`].
///
/// ```
/// # use leftfold::{Aggregate, Event, Store};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum Moved { #[event("MoneyMoved")] Moved { cents: i64 } }
/// # #[derive(Default)]
/// # struct Account { cents: i64 }
/// # impl Aggregate for Account {
/// #     const CATEGORY: &'static str = "account";
/// #     type Event = Moved;
/// #     fn apply(&mut self, event: &Moved) { let Moved::Moved { cents } = event; self.cents += cents; }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::memory();
/// # let accounts = store.repository::<Account>();
/// let transfer = store.unit_of_work((accounts.aggregate("ann"), accounts.aggregate("bob")));
/// let moved = |cents| Moved::Moved { cents };
/// transfer.execute(|_| (moved(-30), moved(30))).await?;
/// assert_eq!(accounts.load("ann").await?.state().cents, -30);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `execute`"]
pub struct UnitOfWork<M> {
    participants: M,
    context: CommandContext,
}

/// The result of a committed command on several aggregates.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedUnitOfWork {
    /// Each stream that got events, and the revision of its last one.
    pub streams: Vec<(StreamName, Revision)>,
    /// The position of the last appended event; `None` if nothing was appended.
    pub position: Option<Position>,
    /// How often the command decided.
    pub attempts: u32,
    /// A command with this idempotency key was committed before; nothing was appended now.
    pub repeated: bool,
}

/// A participant of a command: an [`AggregateRef`] or a [`ModelRef`].
pub trait Participant: Send + Sync {
    /// Its state.
    type State: Send;
    /// The events it can get.
    type Event: Event;

    /// Returns the stream of its events, if it gets any.
    #[doc(hidden)]
    fn stream(&self) -> Result<Option<StreamName>, LoadError>;
    /// Returns its boundary, as part of an idempotency key.
    #[doc(hidden)]
    fn boundary(&self) -> Result<String, LoadError>;
    /// Returns what commands wait for that contend for a model.
    #[doc(hidden)]
    fn parts(&self) -> Vec<String> {
        Vec::new()
    }
    #[doc(hidden)]
    fn read(
        &self,
        store: &Store,
    ) -> impl Future<Output = Result<(Self::State, Ground), LoadError>> + Send;
}

impl<A: Aggregate> Participant for AggregateRef<A> {
    type State = A;
    type Event = A::Event;

    fn stream(&self) -> Result<Option<StreamName>, LoadError> {
        stream_of::<A>(&self.id).map(Some)
    }
    fn boundary(&self) -> Result<String, LoadError> {
        Ok(format!("aggregate {}", stream_of::<A>(&self.id)?))
    }
    async fn read(&self, _: &Store) -> Result<(A, Ground), LoadError> {
        let stream = stream_of::<A>(&self.id)?;
        let loaded = self.repository.load_stream(&stream).await?;
        let ground = loaded.ground(&stream);
        Ok((loaded.into_state(), ground))
    }
}

impl<M: Models> Participant for ModelRef<M> {
    type State = M;
    type Event = NoEvent;

    fn stream(&self) -> Result<Option<StreamName>, LoadError> {
        Ok(None)
    }
    fn boundary(&self) -> Result<String, LoadError> {
        Ok(format!("model {}", boundary_of(&self.models).canonical()))
    }
    fn parts(&self) -> Vec<String> {
        boundary_of(&self.models).parts()
    }
    async fn read(&self, store: &Store) -> Result<(M, Ground), LoadError> {
        read_models(store, &self.models, None).await
    }
}

/// The event type of participants that get no events. It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEvent {}

impl Event for NoEvent {
    const KINDS: &'static [EventKind] = &[];
    const UNKNOWN: UnknownEventPolicy = UnknownEventPolicy::Error;

    fn event_type(&self) -> &str {
        match *self {}
    }
    fn version(&self) -> u32 {
        match *self {}
    }
    fn tags(&self) -> Result<Vec<Tag>, leftfold_model::ModelError> {
        match *self {}
    }
    fn encode(&self) -> Result<Encoded, EncodeError> {
        match *self {}
    }
    fn decode(_: usize, _: Data<'_>) -> Result<Self, DecodeError> {
        Err(DecodeError::UnknownType { known: Vec::new() })
    }
    fn shape(_: usize) -> String {
        String::new()
    }
    fn upcasts() -> &'static Upcasters {
        static NONE: std::sync::OnceLock<Upcasters> = std::sync::OnceLock::new();
        NONE.get_or_init(Upcasters::new)
    }
}

/// One to four participants as a tuple.
pub trait Participants: Send + Sync {
    /// Their states.
    type States: Send;
    #[doc(hidden)]
    fn streams(&self) -> Result<Vec<StreamName>, LoadError>;
    #[doc(hidden)]
    fn boundary(&self) -> Result<String, LoadError>;
    #[doc(hidden)]
    fn parts(&self) -> Vec<String>;
    #[doc(hidden)]
    fn read(
        &self,
        store: &Store,
    ) -> impl Future<Output = Result<(Self::States, Vec<Ground>), LoadError>> + Send;
}

/// A tuple with the events of each participant.
#[diagnostic::on_unimplemented(
    message = "a command on several aggregates cannot return `{Self}`",
    note = "return a tuple with what each participant gets: one event, a `Vec`, an array or an `Option` of events, or `()`"
)]
pub trait IntoEventsPerAggregate<M> {
    #[doc(hidden)]
    fn encode<E>(
        self,
        context: &CommandContext,
        key: Option<&IdempotencyKey>,
    ) -> Result<Vec<Vec<NewEvent>>, ExecuteError<E>>;
}

/// What the closure of a command on several aggregates may return: a tuple with the events of each, or a `Result` of one.
#[diagnostic::on_unimplemented(
    message = "a command on several aggregates cannot return `{Self}`",
    note = "return a tuple with the events of each participant, or a `Result` of it and an error of your own"
)]
pub trait IntoDecisionPerAggregate<M> {
    /// The domain's own error.
    type Refusal;
    #[doc(hidden)]
    type Events: IntoEventsPerAggregate<M>;
    #[doc(hidden)]
    fn into_decision(self) -> Result<Self::Events, Self::Refusal>;
}

impl<M, T: IntoEventsPerAggregate<M>, E> IntoDecisionPerAggregate<M> for Result<T, E> {
    type Refusal = E;
    type Events = T;

    fn into_decision(self) -> Result<T, E> {
        self
    }
}

macro_rules! participants {
    ($(($(($participant:ident $events:ident $nth:tt)),+)),+ $(,)?) => {
        $(
        impl<$($participant: Participant),+> Participants for ($($participant,)+) {
            type States = ($($participant::State,)+);

            fn streams(&self) -> Result<Vec<StreamName>, LoadError> {
                let streams = [$(self.$nth.stream()?),+];
                Ok(streams.into_iter().flatten().collect())
            }
            fn boundary(&self) -> Result<String, LoadError> {
                let mut parts = [$(self.$nth.boundary()?),+];
                parts.sort();
                Ok(parts.join("\n"))
            }
            fn parts(&self) -> Vec<String> {
                [$(self.$nth.parts()),+].concat()
            }
            async fn read(
                &self,
                store: &Store,
            ) -> Result<(Self::States, Vec<Ground>), LoadError> {
                let mut grounds = Vec::new();
                let states = ($({
                    let (state, ground) = self.$nth.read(store).await?;
                    grounds.push(ground);
                    state
                },)+);
                Ok((states, grounds))
            }
        }

        impl<$($participant: Participant, $events: IntoEvents<$participant::Event>),+>
            IntoEventsPerAggregate<($($participant,)+)> for ($($events,)+)
        {
            fn encode<E>(
                self,
                context: &CommandContext,
                key: Option<&IdempotencyKey>,
            ) -> Result<Vec<Vec<NewEvent>>, ExecuteError<E>> {
                let mut from = 0;
                Ok(vec![$({
                    let events = self.$nth.into_events();
                    from += events.len();
                    context.events(&events, key, from - events.len())?
                }),+])
            }
        }

        impl<$($participant: Participant, $events: IntoEvents<$participant::Event>),+>
            IntoDecisionPerAggregate<($($participant,)+)> for ($($events,)+)
        {
            type Refusal = std::convert::Infallible;
            type Events = Self;

            fn into_decision(self) -> Result<Self, std::convert::Infallible> {
                Ok(self)
            }
        }
        )+
    };
}
participants! {
    ((A EventsOfA 0)),
    ((A EventsOfA 0), (B EventsOfB 1)),
    ((A EventsOfA 0), (B EventsOfB 1), (C EventsOfC 2)),
    ((A EventsOfA 0), (B EventsOfB 1), (C EventsOfC 2), (D EventsOfD 3)),
}

impl<M: Participants> UnitOfWork<M> {
    pub(crate) fn of(store: Store, participants: M) -> Self {
        Self {
            participants,
            context: CommandContext::of(store),
        }
    }

    /// Sets how often the command decides at most. Default: 64.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.context = self.context.with_attempts(attempts);
        self
    }
    /// Sets the metadata of the command's events.
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.context = self.context.with_metadata(metadata);
        self
    }
    /// Sets an idempotency key: a command of this name, on these participants together, is stored once for this key.
    pub fn with_idempotency_key(mut self, command: &str, key: &str) -> Self {
        self.context = self.context.with_idempotency_key(command, key);
        self
    }

    /// Reads all participants, lets `decide` decide on their states, and appends what it returns for each, all or nothing.
    ///
    /// The append is rejected, and the command decides again, if any participant changed meanwhile, including those that get no
    /// events.
    ///
    /// # Errors
    /// [`ExecuteError`], as [`Repository::execute`].
    /// # Cancel safety
    /// Dropping the future does not cancel an append that the store has.
    pub async fn execute<D: IntoDecisionPerAggregate<M>>(
        &self,
        decide: impl FnMut(&M::States) -> D + Send,
    ) -> Result<CommittedUnitOfWork, ExecuteError<D::Refusal>> {
        let mut streams = self.participants.streams()?;
        streams.sort();
        if let Some(stream) = streams.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some(a.clone()),
            _ => None,
        }) {
            return Err(ExecuteError::Twice { stream });
        }
        // In the order of their names, so that two commands never wait for each other.
        let mut turns = Vec::with_capacity(streams.len());
        for stream in &streams {
            turns.push(self.context.store.turn(stream).await);
        }
        let boundary = format!("unit of work {}", self.participants.boundary()?);
        let first = streams.into_iter().next();
        let first = first.unwrap_or_else(StreamName::default_stream);
        let command = UnitCommand {
            unit: self,
            decide,
            turns: Vec::new(),
        };
        let ended = self.context.run(&boundary, &first, command).await;
        drop(turns);
        ended
    }
}

/// A command on several aggregates in progress.
struct UnitCommand<'a, M, F> {
    unit: &'a UnitOfWork<M>,
    decide: F,
    /// Those on what its models rest on, once others were faster; taken after those on its streams.
    turns: Vec<Turn>,
}

impl<M, F, D> Command for UnitCommand<'_, M, F>
where
    M: Participants,
    F: FnMut(&M::States) -> D + Send,
    D: IntoDecisionPerAggregate<M>,
{
    type Refusal = D::Refusal;
    type Output = CommittedUnitOfWork;

    async fn propose(
        &mut self,
        key: Option<&IdempotencyKey>,
        _attempts: u32,
    ) -> Result<Proposal, ExecuteError<D::Refusal>> {
        let UnitOfWork {
            participants,
            context,
        } = self.unit;
        let (states, grounds) = participants.read(&context.store).await?;
        let decided = (self.decide)(&states).into_decision();
        let events = decided
            .map_err(ExecuteError::Rejected)?
            .encode(context, key)?;
        let mut proposal = Proposal::default();
        for (ground, events) in grounds.into_iter().zip(events) {
            proposal.add(ground, events);
        }
        Ok(proposal)
    }

    async fn take_turn(&mut self) {
        if self.turns.is_empty() {
            let UnitOfWork {
                participants,
                context,
            } = self.unit;
            self.turns = context.store.turns(participants.parts()).await;
        }
    }

    fn finish(
        &mut self,
        append: Option<(&Append, Appended)>,
        attempts: u32,
    ) -> CommittedUnitOfWork {
        let appended = append.map(|(_, appended)| appended);
        CommittedUnitOfWork {
            position: appended.as_ref().map(|appended| appended.last),
            repeated: appended.as_ref().is_some_and(|appended| appended.repeated),
            streams: appended
                .map(|appended| appended.streams)
                .unwrap_or_default(),
            attempts,
        }
    }

    fn repeat(
        &self,
        stored: Vec<RecordedEvent>,
        attempts: u32,
    ) -> Result<CommittedUnitOfWork, ExecuteError<D::Refusal>> {
        let position = stored.last().map(|event| event.position);
        let mut streams: Vec<(StreamName, Revision)> = Vec::new();
        for event in stored {
            match streams.last_mut() {
                Some((stream, revision)) if *stream == event.stream => *revision = event.revision,
                _ => streams.push((event.stream, event.revision)),
            }
        }
        Ok(CommittedUnitOfWork {
            streams,
            position,
            attempts,
            repeated: true,
        })
    }
}
