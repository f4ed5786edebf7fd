//! Tests of projections: given events, then what is in the view.
//!
//! **Owns:** [`GivenProjection`], [`GivenLive`]. **Does not know:** stores, how projections are run.
//! **Invariants:** events pass through their stored form; a view gets each event in a transaction of its own, behind `set_up`, as
//! from a store; the first failure ends the test and names the event.

use std::fmt::Debug;

use futures_util::FutureExt;
use leftfold_model::{ErrorChain, Position, RecordedEvent, StreamName, Timestamp};

use super::{
    decision_result::{fail, same},
    stored,
};
use crate::{
    Event, LiveProjection, MemoryView, Projection, ProjectionId, Recorded, View, ViewChanges,
    ViewError, load::typed,
};

/// Events of any streams, in the order of the log.
#[derive(Debug)]
struct GivenStreams {
    events: Vec<RecordedEvent>,
    time: Option<Timestamp>,
}

impl GivenStreams {
    fn new() -> Self {
        Self {
            events: Vec::new(),
            time: None,
        }
    }

    #[track_caller]
    fn add<E: Event>(&mut self, stream: &str, event: &E) {
        let stream = match StreamName::new(stream) {
            Ok(stream) => stream,
            Err(error) => fail(&ErrorChain(&error).to_string()),
        };
        let place = self.events.len() as u64;
        let of_stream = self.events.iter().filter(|event| event.stream == stream);
        let of_stream = of_stream.count() as u64;
        let mut stored = stored(event, of_stream);
        stored.position = Position::new(place + 1);
        stored.time = self.time.unwrap_or(Timestamp::from_micros(place));
        stored.stream = stream;
        self.events.push(stored);
    }

    #[track_caller]
    fn values<E: Event>(&self) -> Vec<Recorded<E>> {
        let values = self.events.iter().map(|event| match typed::<E>(event) {
            Ok(values) => values,
            Err(error) => fail(&ErrorChain(&error).to_string()),
        });
        values.flatten().collect()
    }
}

/// The events before a live projection is asked.
///
/// ```
/// use leftfold::{Event, LiveProjection, Recorded, testing::GivenLive};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { #[event("DepositMade")] DepositMade { amount: u64 } }
/// # use AccountEvent::DepositMade;
/// #[derive(Default)]
/// struct Total(u64);
///
/// impl LiveProjection for Total {
///     type Event = AccountEvent;
///     fn project(&mut self, event: &Recorded<AccountEvent>) {
///         let DepositMade { amount } = event.event;
///         self.0 += amount;
///     }
/// }
///
/// GivenLive::<Total>::nothing()
///     .and("account-ann", DepositMade { amount: 5 })
///     .and("account-bob", DepositMade { amount: 2 })
///     .then(|total| assert_eq!(total.0, 7));
/// ```
#[derive(Debug)]
pub struct GivenLive<P> {
    given: GivenStreams,
    model: P,
}

impl<P: LiveProjection> GivenLive<P> {
    /// Starts with no events.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            given: GivenStreams::new(),
            model: P::default(),
        }
    }

    /// Adds an event of this stream.
    ///
    /// # Panics
    /// If it cannot be stored or read again, or the name of the stream is not valid.
    #[must_use]
    #[track_caller]
    pub fn and(mut self, stream: &str, event: P::Event) -> Self {
        self.given.add(stream, &event);
        self
    }

    /// Sets the time of the events that are added from here on.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.given.time = Some(time);
        self
    }

    /// Projects the events and shows the model.
    ///
    /// # Panics
    /// If an event cannot be read, or the projection panics.
    #[track_caller]
    pub fn then<R>(mut self, check: impl FnOnce(&P) -> R) -> R {
        for event in self.given.values() {
            self.model.project(&event);
        }
        check(&self.model)
    }
}

/// The events before a view is read.
///
/// ```
/// use leftfold::{
///     Event, HandlerError, MemoryTransaction, MemoryView, Projection, Recorded, testing::GivenProjection,
/// };
/// use std::collections::BTreeMap;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Event, Serialize, Deserialize)]
/// # enum AccountEvent { #[event("DepositMade")] DepositMade { amount: u64 } }
/// # use AccountEvent::DepositMade;
/// struct Balances;
///
/// impl Projection for Balances {
///     type Event = AccountEvent;
///     type View = MemoryView<BTreeMap<String, u64>>;
///     const NAME: &'static str = "balances";
///     const VERSION: u32 = 1;
///
///     async fn project(
///         &self,
///         balances: &mut MemoryTransaction<BTreeMap<String, u64>>,
///         event: &Recorded<AccountEvent>,
///     ) -> Result<(), HandlerError> {
///         let DepositMade { amount } = event.event;
///         *balances.entry(event.aggregate_id().to_owned()).or_default() += amount;
///         Ok(())
///     }
/// }
///
/// GivenProjection::new(Balances)
///     .and("account-ann", DepositMade { amount: 5 })
///     .and("account-ann", DepositMade { amount: 2 })
///     .then_view(BTreeMap::from([("ann".to_owned(), 7)]));
/// ```
///
/// A projection into a database is tested on one: `given.project_into(&view).await`, then read its tables.
#[derive(Debug)]
pub struct GivenProjection<P> {
    given: GivenStreams,
    projection: P,
}

impl<P: Projection> GivenProjection<P> {
    /// Starts with no events.
    #[must_use]
    pub fn new(projection: P) -> Self {
        Self {
            given: GivenStreams::new(),
            projection,
        }
    }

    /// Adds an event of this stream.
    ///
    /// # Panics
    /// If it cannot be stored or read again, or the name of the stream is not valid.
    #[must_use]
    #[track_caller]
    pub fn and(mut self, stream: &str, event: P::Event) -> Self {
        self.given.add(stream, &event);
        self
    }

    /// Sets the time of the events that are added from here on.
    #[must_use]
    pub fn at(mut self, time: Timestamp) -> Self {
        self.given.time = Some(time);
        self
    }

    /// Sets the version up in a view that does not know it, projects the events, and makes the version active.
    ///
    /// # Panics
    /// If the view knows the version already or is not reached, or an event cannot be read or projected.
    pub async fn project_into(self, view: &P::View) {
        let of = ProjectionId {
            name: P::NAME,
            version: P::VERSION,
        };
        let (mut transaction, checkpoint) = reached(view.begin(of).await);
        if !checkpoint.is_new {
            fail(&format!("view knows {of} already; expected an empty view"));
        }
        if let Err(error) = self.projection.set_up(&mut transaction).await {
            fail(&format!("set_up failed: {}", ErrorChain(&*error)));
        }
        let changes = ViewChanges {
            activate: true,
            ..ViewChanges::default()
        };
        reached(view.commit(of, transaction, changes).await);
        for event in self.given.values::<P::Event>() {
            let (mut transaction, _) = reached(view.begin(of).await);
            if let Err(error) = self.projection.project(&mut transaction, &event).await {
                let (revision, stream) = (event.revision, &event.stream);
                let error = ErrorChain(&*error);
                fail(&format!(
                    "event {revision} of stream {stream} failed: {error}"
                ));
            }
            let changes = ViewChanges {
                position: event.position,
                event: Some(event.id),
                ..ViewChanges::default()
            };
            reached(view.commit(of, transaction, changes).await);
        }
    }
}

fn reached<T>(result: Result<T, ViewError>) -> T {
    match result {
        Ok(reached) => reached,
        Err(error) => fail(&ErrorChain(&error).to_string()),
    }
}

impl<P, T> GivenProjection<P>
where
    P: Projection<View = MemoryView<T>>,
    T: Clone + Default + Send + Sync + 'static,
{
    /// Projects the events and shows the model.
    ///
    /// # Panics
    /// As [`Self::project_into`], and if the projection waits for something, which this test has no runtime for.
    #[track_caller]
    pub fn then<R>(self, check: impl FnOnce(&T) -> R) -> R {
        let view = MemoryView::new();
        if self.project_into(&view).now_or_never().is_none() {
            fail("projection waits for something; expected one that only writes to its view");
        }
        view.read(check)
    }

    /// Asserts the model.
    ///
    /// # Panics
    /// As [`Self::then`], and if the model differs.
    #[track_caller]
    pub fn then_view(self, expected: T)
    where
        T: Debug + PartialEq,
    {
        self.then(|model| same("view", &expected, model));
    }
}
