//! Reading stored events as values of an enum, as read models do.
//!
//! **Owns:** [`EventReader`]: the selection of events, and decoding each into [`Recorded`] values.
//! **Does not know:** what readers do with events.
//! **Invariants:** events come in the order of the log, each exactly once; an event that cannot be decoded ends the stream
//! with an error that names it.

use std::marker::PhantomData;

use futures_util::{StreamExt, TryStreamExt, future, stream, stream::BoxStream};
use leftfold_model::{
    Category, Position, Query, Read, RecordedEvent, Scope, StreamName, Timestamp,
};
use leftfold_store::{ReadBatch, ReadError, Subscription};

use crate::{
    Aggregate, Boundary, Event, LoadError, Recorded, Store,
    load::{check_category, typed},
};

/// A selection of stored events, read as values of the enum `E`; made by [`Store::events`].
///
/// Unless narrowed, it selects the events of all types that `E` knows, in the whole log.
///
/// ```
/// # use leftfold::{Event, Store};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
/// # enum AccountEvent { #[event("DepositMade")] DepositMade { amount: u64 } }
/// # #[derive(Default)]
/// # struct Account;
/// # impl leftfold::Aggregate for Account {
/// #     const CATEGORY: &'static str = "account";
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, _: &AccountEvent) {}
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = Store::memory();
/// # let deposit = |amount| move |_: &Account| Ok::<_, String>(AccountEvent::DepositMade { amount });
/// # store.repository::<Account>().execute("ann", deposit(100)).await?;
/// # store.repository::<Account>().execute("bob", deposit(20)).await?;
/// let mut total = 0;
/// for deposit in store.events::<AccountEvent>().with_aggregates::<Account>().collect().await? {
///     let AccountEvent::DepositMade { amount } = deposit.event;
///     println!("{} paid {amount} at {:?}", deposit.aggregate_id(), deposit.time);
///     total += amount;
/// }
/// assert_eq!(total, 120);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is read before `read`, `collect` or `subscribe`"]
pub struct EventReader<E> {
    store: Store,
    scope: Scope,
    boundary: Option<Boundary>,
    after: Position,
    since: Timestamp,
    limit: Option<u64>,
    newest_first: bool,
    of: PhantomData<fn() -> E>,
}

impl<E: Event> EventReader<E> {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            scope: Scope::All,
            boundary: None,
            after: Position::START,
            since: Timestamp::from_micros(0),
            limit: None,
            newest_first: false,
            of: PhantomData,
        }
    }

    /// Selects the events of one stream. Events of unknown types follow the policy of `E`.
    pub fn stream(mut self, stream: StreamName) -> Self {
        self.scope = Scope::Stream(stream);
        self
    }

    /// Selects the events of all streams of a category. Events of unknown types follow the policy of `E`.
    pub fn with_category(mut self, category: Category) -> Self {
        self.scope = Scope::Category(category);
        self
    }

    /// Selects the events of all aggregates of one kind: those of the category [`Aggregate::CATEGORY`].
    ///
    /// As with [`Store::repository`], a program does not compile if no stream can have that category:
    ///
    /// ```compile_fail,E0080
    /// # #[derive(leftfold::Event, serde::Serialize, serde::Deserialize)]
    /// # enum RoomEvent { #[event("RoomBooked")] Booked }
    /// # #[derive(Default)]
    /// # struct Room;
    /// impl leftfold::Aggregate for Room {
    ///     const CATEGORY: &'static str = "hotel-room";
    /// #   type Event = RoomEvent;
    /// #   fn apply(&mut self, _: &RoomEvent) {}
    /// }
    /// let rooms = leftfold::Store::memory().events::<RoomEvent>().with_aggregates::<Room>();
    /// ```
    pub fn with_aggregates<A: Aggregate<Event = E>>(self) -> Self {
        const { check_category(A::CATEGORY) };
        match Category::new(A::CATEGORY) {
            Ok(category) => self.with_category(category),
            // Such an aggregate has no streams: repositories refuse every id of it.
            Err(_) => self.limit(0),
        }
    }

    /// Selects only events within this boundary: by tags and types.
    pub fn with_boundary(mut self, boundary: Boundary) -> Self {
        self.boundary = Some(boundary);
        self
    }

    /// Selects only events after this position (exclusive): the [`Recorded::position`] of the last handled event.
    pub fn after(mut self, position: Position) -> Self {
        self.after = position;
        self
    }

    /// Selects only events that were recorded at this time or later. Times order nothing, so a read looks at earlier events too
    /// and leaves them out: begin [`Self::after`] a position if one is known.
    pub fn since(mut self, time: Timestamp) -> Self {
        self.since = time;
        self
    }

    /// Sets the maximum number of stored events to read. Subscriptions have no limit.
    pub fn limit(mut self, events: u64) -> Self {
        self.limit = Some(events);
        self
    }

    /// Reads the newest event first. Subscriptions always deliver the oldest first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Reads the events that are stored at the moment of the first poll.
    ///
    /// # Errors
    /// Each item may be a [`LoadError`], which ends the stream.
    /// # Cost
    /// Holds one batch of events in memory at a time.
    pub fn read(self) -> BoxStream<'static, Result<Recorded<E>, LoadError>> {
        let query = match self.query() {
            Ok(query) => query,
            Err(error) => return failed(error),
        };
        let mut read = Read::all().matching(query);
        read.scope = self.scope;
        let (after, since) = (self.after, self.since);
        let all = since == Timestamp::from_micros(0);
        read.limit = self.limit.filter(|_| all);
        if self.newest_first {
            read = read.backwards();
        } else if after > Position::START {
            read = read.from_position(after.next());
        }
        let batches = self.store.event_store().read(read);
        let newer = move |event: &RecordedEvent| event.position > after;
        // Only a read of the newest first comes to older ones, and then goes no further.
        let batches = batches
            .try_take_while(move |batch| future::ready(Ok(batch.events.first().is_none_or(newer))));
        let mut left = self.limit.filter(|_| !all).unwrap_or(u64::MAX);
        let selected = move |batch: ReadBatch| {
            let events = batch.events.into_iter().take_while(newer);
            let count = usize::try_from(left).unwrap_or(usize::MAX);
            let events = events.filter(|event| event.time >= since).take(count);
            let events: Vec<_> = events.collect();
            left -= events.len() as u64;
            (events, left)
        };
        let mut ended = false;
        let events = batches
            .map_err(LoadError::Store)
            .map_ok(selected)
            .try_take_while(move |(_, left)| {
                let goes_on = !ended;
                ended = *left == 0;
                future::ready(Ok(goes_on))
            })
            .map_ok(|(events, _)| values(events.into_iter()))
            .try_flatten();
        until_error(events.boxed())
    }

    /// Reads the events that are stored now, all of them into memory.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn collect(self) -> Result<Vec<Recorded<E>>, LoadError> {
        self.read().try_collect().await
    }

    /// Delivers stored events, then new ones as they are committed, without a gap or a repetition.
    ///
    /// The stream ends after an error, and when the store is closed. To resume later, start [`Self::after`] the position of
    /// the last handled event.
    ///
    /// # Errors
    /// Each item may be a [`LoadError`], which ends the stream.
    pub fn subscribe(self) -> BoxStream<'static, Result<Recorded<E>, LoadError>> {
        let subscription = match self.subscription() {
            Ok(subscription) => subscription,
            Err(error) => return failed(error),
        };
        let deliveries = self.store.event_store().subscribe(subscription);
        let since = self.since;
        let selected = move |event: &RecordedEvent| event.time >= since;
        let events = deliveries
            .map_err(LoadError::Store)
            .map_ok(move |delivery| values(delivery.events.into_iter().filter(selected)))
            .try_flatten();
        until_error(events.boxed())
    }

    /// Returns the subscription of [`Self::subscribe`], for callers that need checkpoints: pass it to
    /// [`leftfold_store::EventStore::subscribe`], and decode what is delivered with [`Recorded::of`]. It does not know
    /// [`Self::since`].
    ///
    /// # Errors
    /// [`LoadError::Boundary`].
    pub fn subscription(&self) -> Result<Subscription, LoadError> {
        let subscription = Subscription::after(self.after).scope(self.scope.clone());
        Ok(subscription.matching(self.query()?))
    }

    fn query(&self) -> Result<Query, LoadError> {
        match (&self.boundary, &self.scope) {
            (Some(boundary), _) => Ok(boundary.query::<E>()?),
            (None, Scope::All) => Ok(Boundary::types([]).query::<E>()?),
            // What is unknown there is not for a query to hide.
            (None, _) => Ok(Query::All),
        }
    }
}

type Values<E> = BoxStream<'static, Result<Recorded<E>, LoadError>>;

/// Decodes some stored events into values.
fn values<E: Event>(events: impl Iterator<Item = RecordedEvent> + Send + 'static) -> Values<E> {
    let each = events.flat_map(|stored| match typed::<E>(&stored) {
        Ok(values) => values.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    });
    stream::iter(each).boxed()
}

fn failed<E: Event>(error: LoadError) -> Values<E> {
    stream::iter([Err(error)]).boxed()
}

/// Ends a stream after its first error.
fn until_error<E: Event>(events: Values<E>) -> Values<E> {
    let step = |events: Option<Values<E>>| async move {
        let mut events = events?;
        let item = events.next().await?;
        let rest = item.is_ok().then_some(events);
        Some((item, rest))
    };
    stream::unfold(Some(events), step).boxed()
}

/// Reads the event at a position; `None` if it was scavenged.
pub(crate) async fn stored_event(
    store: &Store,
    position: Position,
) -> Result<Option<RecordedEvent>, ReadError> {
    let mut batches = store
        .event_store()
        .read(Read::all().from_position(position).limit(1));
    while let Some(batch) = batches.next().await {
        if let Some(event) = batch?.events.into_iter().next() {
            return Ok(Some(event).filter(|event| event.position == position));
        }
    }
    Ok(None)
}
