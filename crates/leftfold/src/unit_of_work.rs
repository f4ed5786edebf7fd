//! Commands on several aggregates at once.
//!
//! **Owns:** [`UnitOfWork`], [`AggregateRef`] and the trait [`Participants`] for tuples.
//! **Does not know:** any domain, any store.
//! **Invariants:** everything decided is one append: all or nothing; each aggregate that gets events is still as it was
//! loaded when they are written.

use std::future::Future;

use leftfold_model::{
    Append, ExpectedRevision, NewEvent, Position, Revision, StreamName, StreamWrite,
};
use tracing::Instrument;

use crate::{
    Aggregate, ExecuteError, IntoEvents, LoadError, Metadata, Repository, Store,
    command::{CommandContext, IdempotencyKey, backoff},
    load::stream_of,
    observe::command_span,
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

/// A command on several aggregates; made by [`Store::unit_of_work`].
#[derive(Debug, Clone)]
pub struct UnitOfWork<M> {
    members: M,
    terms: CommandContext,
}

/// A command on several aggregates went through.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommittedUnitOfWork {
    /// Each stream that got events, and the revision of its last one.
    pub streams: Vec<(StreamName, Revision)>,
    /// The position of the last appended event; `None` if nothing was appended.
    pub position: Option<Position>,
    /// How often the command decided.
    pub attempts: u32,
    /// A command with this idempotency key went through before; nothing was appended now.
    pub repeated: bool,
}

/// Two to four aggregates as a tuple.
pub trait Participants: Send + Sync {
    /// Their states.
    type States: Send;
    /// Their streams, and the events decided for each.
    #[doc(hidden)]
    fn streams(&self) -> Result<Vec<StreamName>, LoadError>;
    #[doc(hidden)]
    fn load(
        &self,
        streams: &[StreamName],
    ) -> impl Future<Output = Result<(Self::States, Vec<ExpectedRevision>), LoadError>> + Send;
}

/// What a command on several aggregates may return: a tuple with the events of each.
pub trait IntoEventsPerAggregate<M> {
    #[doc(hidden)]
    fn encode<E>(
        self,
        terms: &CommandContext,
        key: Option<&IdempotencyKey>,
    ) -> Result<Vec<Vec<NewEvent>>, ExecuteError<E>>;
}

macro_rules! members {
    ($(($(($aggregate:ident $events:ident $nth:tt)),+)),+ $(,)?) => {
        $(
        impl<$($aggregate: Aggregate),+> Participants for ($(AggregateRef<$aggregate>,)+) {
            type States = ($($aggregate,)+);

            fn streams(&self) -> Result<Vec<StreamName>, LoadError> {
                Ok(vec![$(stream_of::<$aggregate>(&self.$nth.id)?),+])
            }
            async fn load(
                &self,
                streams: &[StreamName],
            ) -> Result<(Self::States, Vec<ExpectedRevision>), LoadError> {
                let mut streams = streams.iter();
                let mut expected = Vec::new();
                let states = ($(match streams.next() {
                    Some(stream) => {
                        let loaded = self.$nth.repository.load_stream(stream).await?;
                        expected.push(loaded.expected());
                        loaded.into_state()
                    }
                    None => <$aggregate>::default(),
                },)+);
                Ok((states, expected))
            }
        }

        impl<$($aggregate: Aggregate, $events: IntoEvents<$aggregate::Event>),+>
            IntoEventsPerAggregate<($(AggregateRef<$aggregate>,)+)> for ($($events,)+)
        {
            fn encode<E>(
                self,
                terms: &CommandContext,
                key: Option<&IdempotencyKey>,
            ) -> Result<Vec<Vec<NewEvent>>, ExecuteError<E>> {
                let mut from = 0;
                Ok(vec![$({
                    let events = self.$nth.into_events();
                    from += events.len();
                    terms.events(&events, key, from - events.len())?
                }),+])
            }
        }
        )+
    };
}
members! {
    ((A EventsOfA 0), (B EventsOfB 1)),
    ((A EventsOfA 0), (B EventsOfB 1), (C EventsOfC 2)),
    ((A EventsOfA 0), (B EventsOfB 1), (C EventsOfC 2), (D EventsOfD 3)),
}

impl<M: Participants> UnitOfWork<M> {
    pub(crate) fn of(store: Store, members: M) -> Self {
        Self {
            members,
            terms: CommandContext::of(store),
        }
    }

    /// As [`Repository::with_attempts`].
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.terms = self.terms.with_attempts(attempts);
        self
    }
    /// As [`Repository::with_metadata`].
    #[must_use]
    pub fn with_metadata(mut self, metadata: Metadata) -> Self {
        self.terms = self.terms.with_metadata(metadata);
        self
    }
    /// As [`Repository::with_key`], for these aggregates together.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.terms = self.terms.with_key(key);
        self
    }

    /// Loads the aggregates, lets `decide` decide on all their states, and appends what it returns for each, all or nothing.
    ///
    /// An aggregate that gets no events is not guarded: another command may change it meanwhile. Where a decision rests on
    /// something it does not change, use [`Store::decide`].
    ///
    /// # Errors
    /// [`ExecuteError`], as [`Repository::execute`].
    /// # Cancel safety
    /// Dropping the future does not take back an append that was handed to the store.
    pub async fn execute<R, E>(
        &self,
        mut decide: impl FnMut(&M::States) -> Result<R, E> + Send,
    ) -> Result<CommittedUnitOfWork, ExecuteError<E>>
    where
        R: IntoEventsPerAggregate<M>,
    {
        let streams = self.members.streams()?;
        let mut sorted: Vec<_> = streams.iter().collect();
        sorted.sort();
        let twice = sorted.windows(2).find_map(|pair| match pair {
            [a, b] if a == b => Some((*a).clone()),
            _ => None,
        });
        if let Some(stream) = twice {
            return Err(ExecuteError::Twice { stream });
        }
        let names: Vec<_> = sorted.iter().map(|stream| stream.as_str()).collect();
        let key = self.terms.key(&names.join("\n"))?;
        let Some(first) = streams.first() else {
            return Ok(nothing(0));
        };
        let deciding = async {
            let mut attempts = 0;
            loop {
                attempts += 1;
                match self
                    .attempt(&streams, key.as_ref(), attempts, &mut decide)
                    .await
                {
                    Err(error) if self.terms.should_retry(&error, attempts) => {
                        backoff(attempts).await
                    }
                    ended => return ended,
                }
            }
        };
        deciding.instrument(command_span(first, &self.terms)).await
    }

    async fn attempt<R, E>(
        &self,
        streams: &[StreamName],
        key: Option<&IdempotencyKey>,
        attempts: u32,
        decide: &mut (impl FnMut(&M::States) -> Result<R, E> + Send),
    ) -> Result<CommittedUnitOfWork, ExecuteError<E>>
    where
        R: IntoEventsPerAggregate<M>,
    {
        if let Some(key) = key
            && let Some((streams, position)) = self.terms.duplicate_position(key).await?
        {
            return Ok(CommittedUnitOfWork {
                streams,
                position: Some(position),
                attempts,
                repeated: true,
            });
        }
        let (states, expected) = self.members.load(streams).await?;
        let decided = decide(&states).map_err(ExecuteError::Rejected)?;
        let events = decided.encode(&self.terms, key)?;
        let writes: Vec<_> = streams
            .iter()
            .zip(expected)
            .zip(events)
            .filter(|(_, events)| !events.is_empty())
            .map(|((stream, expected), events)| StreamWrite {
                stream: stream.clone(),
                expected,
                events,
            })
            .collect();
        if writes.is_empty() {
            return Ok(nothing(attempts));
        }
        let conditions = key.map(IdempotencyKey::not_seen_condition).transpose()?;
        let append = Append::new(writes, conditions.into_iter().collect())?;
        let appended = self.terms.append(&append, attempts).await?;
        Ok(CommittedUnitOfWork {
            streams: appended.streams,
            position: Some(appended.last),
            attempts,
            repeated: appended.repeated,
        })
    }
}

fn nothing(attempts: u32) -> CommittedUnitOfWork {
    CommittedUnitOfWork {
        streams: Vec::new(),
        position: None,
        attempts,
        repeated: false,
    }
}
