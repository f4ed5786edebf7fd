//! Live projections: models for reading that are kept in memory and follow the log.
//!
//! **Owns:** [`LiveProjection`], [`Live`]. **Does not know:** what a projection computes.
//! **Invariants:** a projection has exactly the events up to its position; readers never see half a delivery; an event that
//! cannot be decoded or projected stops the projection with an error that names it, and none is skipped.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::StreamExt;
use leftfold_model::{Position, RecordedEvent};
use leftfold_store::{Delivery, ReadError};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::error::ProjectionError;
use crate::{Event, LoadError, Recorded, Store, load::typed, panic_message};

/// The pause before a projection asks a store again that was not reached; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A model for reading: what the events of many streams come to, in the shape that questions need.
///
/// ```
/// use leftfold::{Event, LiveProjection, Recorded, Store};
/// use serde::{Deserialize, Serialize};
/// use std::{collections::BTreeMap, time::Duration};
/// # #[derive(Default)]
/// # struct Account;
/// # impl leftfold::Aggregate for Account {
/// #     const CATEGORY: &'static str = "account";
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, _: &AccountEvent) {}
/// # }
///
/// #[derive(Event, Serialize, Deserialize)]
/// enum AccountEvent {
///     #[event("DepositMade")]
///     DepositMade { amount: u64 },
/// }
///
/// /// What is in each account.
/// #[derive(Default)]
/// struct Balances(BTreeMap<String, u64>);
///
/// impl LiveProjection for Balances {
///     type Event = AccountEvent;
///
///     fn project(&mut self, event: &Recorded<AccountEvent>) {
///         let AccountEvent::DepositMade { amount } = event.event;
///         *self.0.entry(event.aggregate_id().to_owned()).or_default() += amount;
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::memory();
/// let balances = store.live::<Balances>();
///
/// let deposit = |_: &Account| Ok::<_, String>(AccountEvent::DepositMade { amount: 100 });
/// let committed = store.repository::<Account>().execute("ann", deposit).await?;
/// balances.wait_for(committed.position.unwrap_or_default(), Duration::from_secs(2)).await?;
/// assert_eq!(balances.read(|balances| balances.0["ann"]), 100);
/// # Ok(())
/// # }
/// ```
pub trait LiveProjection: Default + Send + Sync + 'static {
    /// The events it is made of: all types of this enum, in the whole log.
    type Event: Event;

    /// Takes an event into the model. The event happened: there is nothing to refuse.
    fn project(&mut self, event: &Recorded<Self::Event>);
}

/// A projection in memory that follows the log; made by [`Store::live`]. It ends when it is dropped.
///
/// # Cost
/// Reads the whole log once for its types of events, then each new one. Holds the model, and one delivery at a time.
#[derive(Debug)]
#[must_use = "a live projection ends when it is dropped"]
pub struct Live<P> {
    shared: Arc<Shared<P>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared<P> {
    model: RwLock<P>,
    reached: watch::Sender<Reached>,
}

#[derive(Debug, Clone, Default)]
struct Reached {
    position: Position,
    ended: Option<ProjectionError>,
}

impl<P> Drop for Live<P> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<P: LiveProjection> Live<P> {
    /// Begins to follow the log, in a task of the current runtime.
    pub(crate) fn spawn(store: Store) -> Self {
        let shared = Arc::new(Shared {
            model: RwLock::new(P::default()),
            reached: watch::Sender::default(),
        });
        let following = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let ended = following.follow(&store).await;
            if !matches!(ended, ProjectionError::Closed) {
                tracing::error!(
                    error = &ended as &dyn std::error::Error,
                    "projection stopped"
                );
            }
            let ended = Some(ended);
            following
                .reached
                .send_modify(|reached| reached.ended = ended);
        });
        Self { shared, task }
    }

    /// Asks the model. It does not change meanwhile, so be quick.
    pub fn read<R>(&self, question: impl FnOnce(&P) -> R) -> R {
        let model = self.shared.model.read();
        question(&model.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the position up to which the model has every event.
    #[must_use]
    pub fn position(&self) -> Position {
        self.shared.reached.borrow().position
    }

    /// Returns why the projection ended; `None` while it follows the log.
    #[must_use]
    pub fn error(&self) -> Option<ProjectionError> {
        self.shared.reached.borrow().ended.clone()
    }

    /// Waits until the model has everything up to `position`: give it [`Committed::position`](crate::Committed) to read what
    /// you wrote.
    ///
    /// # Errors
    /// [`ProjectionError`].
    pub async fn wait_for(
        &self,
        position: Position,
        within: Duration,
    ) -> Result<(), ProjectionError> {
        let mut reached = self.shared.reached.subscribe();
        let there = |now: &Reached| now.position >= position || now.ended.is_some();
        match timeout(within, reached.wait_for(there)).await {
            Ok(Ok(now)) if now.position >= position => Ok(()),
            Ok(Ok(now)) => Err(now.ended.clone().unwrap_or(ProjectionError::Closed)),
            // The sender lives as long as this.
            Ok(Err(_)) => Err(ProjectionError::Closed),
            Err(_) => Err(ProjectionError::TimedOut {
                reached: self.position(),
                expected: position,
                timeout: within,
            }),
        }
    }
}

impl<P: LiveProjection> Shared<P> {
    /// Follows the log until that cannot go on.
    async fn follow(&self, store: &Store) -> ProjectionError {
        let mut pause = PAUSE;
        loop {
            let position = self.reached.borrow().position;
            let stopped = |source| ProjectionError::Faulted { position, source };
            let events = store.events::<P::Event>().after(position);
            let subscription = match events.subscription() {
                Ok(subscription) => subscription,
                Err(error) => return stopped(error),
            };
            let mut deliveries = store.event_store().subscribe(subscription);
            loop {
                match deliveries.next().await {
                    None => return ProjectionError::Closed,
                    Some(Ok(delivery)) => {
                        pause = PAUSE;
                        if let Err(error) = self.take(&delivery) {
                            return error;
                        }
                    }
                    Some(Err(error @ ReadError::Unavailable { .. })) => {
                        tracing::warn!(%error, "projection is interrupted and will go on");
                        break;
                    }
                    Some(Err(error)) => {
                        let position = self.reached.borrow().position;
                        let source = LoadError::Store(error);
                        return ProjectionError::Faulted { position, source };
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Takes in a delivery, as far as that is possible.
    fn take(&self, delivery: &Delivery) -> Result<(), ProjectionError> {
        let mut model = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let mut position = self.reached.borrow().position;
        let mut taken = Ok(());
        for event in &delivery.events {
            taken = project(&mut *model, event);
            if taken.is_err() {
                break;
            }
            position = event.position;
        }
        if taken.is_ok() {
            position = delivery.through;
        }
        // Under the lock, so that who sees the position sees the model.
        self.reached.send_if_modified(|reached| {
            let moved = reached.position != position;
            reached.position = position;
            moved
        });
        taken.map_err(|source| ProjectionError::Faulted { position, source })
    }
}

fn project<P: LiveProjection>(model: &mut P, stored: &RecordedEvent) -> Result<(), LoadError> {
    for value in typed::<P::Event>(stored)? {
        let projected = panic::catch_unwind(AssertUnwindSafe(|| model.project(&value)));
        projected.map_err(|panic| LoadError::ApplyPanicked {
            stream: stored.stream.clone(),
            revision: stored.revision,
            event_type: stored.event_type.clone(),
            message: panic_message::message(panic.as_ref()),
        })?;
    }
    Ok(())
}
