//! Following the events that rights are made of.
//!
//! **Owns:** reading them all before the server starts, and a task that takes in what comes. **Does not know:** what they mean.
//! **Invariants:** nothing is served before everything that is stored was taken in; when the store cannot be followed, what
//! is known stays in force and the task begins again where it was, unless the log may have lost what was taken in. Then
//! everything is taken in anew, and replaces what was known.

use std::{sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{
    EventId, EventType, ModelError, Position, Query, QueryItem, Read, Scope, StreamName,
};
use leftfold_store::{Delivery, EventStore, METADATA_EVENT_TYPE, ReadError, Subscription};
use tokio_util::task::AbortOnDropHandle;

use super::{
    directory::Directory,
    record::{KEY_CHANGED, SETTINGS_STREAM, USER_CHANGED},
};

/// Pause before following begins again after an error.
const PAUSE: Duration = Duration::from_secs(1);

/// What is followed, and how far.
struct Followed {
    subscriptions: [Subscription; 2],
    /// The last event that was taken in, by which a log that lost its end is recognised.
    last: Option<(Position, EventId)>,
    directory: Arc<Directory>,
}

/// Takes in all that is stored; then goes on in a task until the handle is dropped.
pub(super) async fn start(
    store: Arc<dyn EventStore>,
    directory: Arc<Directory>,
) -> Result<AbortOnDropHandle<()>, ReadError> {
    let followed = Followed::from_start(&*store, directory).await?;
    Ok(AbortOnDropHandle::new(tokio::spawn(followed.run(store))))
}

/// The events that are of interest, wherever they stand, and the stream whose events have types of any name.
fn selections() -> Result<[Subscription; 2], ModelError> {
    let types = [METADATA_EVENT_TYPE, USER_CHANGED, KEY_CHANGED].map(EventType::new);
    let types = types.into_iter().collect::<Result<Vec<_>, _>>()?;
    let query = Query::items([QueryItem::types(types)?])?;
    let settings = Scope::Stream(StreamName::new(SETTINGS_STREAM)?);
    Ok([
        Subscription::after(Position::START).matching(query),
        Subscription::after(Position::START).scope(settings),
    ])
}

/// Deliveries of one of the subscriptions, with its number.
fn numbered(
    store: &dyn EventStore,
    nth: usize,
    subscription: &Subscription,
) -> BoxStream<'static, (usize, Result<Delivery, ReadError>)> {
    let deliveries = store.subscribe(subscription.clone());
    deliveries.map(move |delivery| (nth, delivery)).boxed()
}

impl Followed {
    /// Takes in all that is stored.
    async fn from_start(
        store: &dyn EventStore,
        directory: Arc<Directory>,
    ) -> Result<Self, ReadError> {
        let subscriptions = selections().map_err(|error| ReadError::Invalid {
            reason: error.to_string(),
        })?;
        let mut followed = Self {
            subscriptions,
            last: None,
            directory,
        };
        for nth in 0..followed.subscriptions.len() {
            followed.catch_up(store, nth).await?;
        }
        Ok(followed)
    }

    fn take_in(&mut self, nth: usize, delivery: &Delivery) {
        self.directory.apply(&delivery.events);
        let last = delivery.events.last();
        self.last = self.last.max(last.map(|last| (last.position, last.id)));
        if let Some(subscription) = self.subscriptions.get_mut(nth) {
            subscription.after = delivery.through;
        }
    }

    /// Takes in what one of the subscriptions has stored.
    async fn catch_up(&mut self, store: &dyn EventStore, nth: usize) -> Result<(), ReadError> {
        let subscription = self.subscriptions.get(nth).cloned();
        let mut deliveries = store.subscribe(subscription.unwrap_or_default());
        while let Some(delivery) = deliveries.try_next().await? {
            self.take_in(nth, &delivery);
            if delivery.caught_up {
                break;
            }
        }
        Ok(())
    }

    /// Takes in what comes, until the store is closed.
    async fn follow(&mut self, store: &dyn EventStore) -> Result<(), ReadError> {
        let [by_type, settings] = &self.subscriptions;
        let mut deliveries =
            stream::select(numbered(store, 0, by_type), numbered(store, 1, settings));
        while let Some((nth, delivery)) = deliveries.next().await {
            self.take_in(nth, &delivery?);
        }
        Ok(())
    }

    /// Prepares to follow again. What was taken in counts on if the log still has it; otherwise everything is taken in anew.
    async fn resume(&mut self, store: &dyn EventStore, is_lost: bool) -> Result<(), ReadError> {
        if !is_lost && self.has_last(store).await? {
            // Nothing that was taken in stands behind it, and what stands there now may be something else.
            let last = self.last.map_or(Position::START, |(position, _)| position);
            for subscription in &mut self.subscriptions {
                subscription.after = subscription.after.min(last);
            }
            return Ok(());
        }
        let anew = Self::from_start(store, Arc::default()).await?;
        self.directory.take_over(&anew.directory);
        (self.subscriptions, self.last) = (anew.subscriptions, anew.last);
        Ok(())
    }

    /// Whether the last event that was taken in stands where it stood.
    async fn has_last(&self, store: &dyn EventStore) -> Result<bool, ReadError> {
        let Some((position, id)) = self.last else {
            return Ok(true);
        };
        let read = Read::all().from_position(position).limit(1);
        let found = store.read(read).try_next().await?;
        let found = found.and_then(|batch| batch.events.into_iter().next());
        Ok(found.is_some_and(|found| (found.position, found.id) == (position, id)))
    }

    /// Follows until the store is closed, whatever happens meanwhile.
    async fn run(mut self, store: Arc<dyn EventStore>) {
        while let Err(mut error) = self.follow(&*store).await {
            let mut is_lost = false;
            loop {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "access control not followed, trying again"
                );
                is_lost |= matches!(error, ReadError::Invalid { .. });
                tokio::time::sleep(PAUSE).await;
                match self.resume(&*store, is_lost).await {
                    Ok(()) => break,
                    Err(next) => error = next,
                }
            }
        }
    }
}
