//! Following the events that rights are made of.
//!
//! **Owns:** reading them all before the server starts, and a task that takes in what comes. **Does not know:** what they mean.
//! **Invariants:** nothing is served before everything that is stored was taken in; when the store cannot be followed, what
//! is known stays in force and the task begins again where it was.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use leftfold_model::{EventType, ModelError, Position, Query, QueryItem, Scope, StreamName};
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
    subscription: Subscription,
    directory: Arc<Directory>,
}

/// Takes in all that is stored; then goes on in a task until the handle is dropped.
pub(super) async fn start(
    store: Arc<dyn EventStore>,
    directory: Arc<Directory>,
) -> Result<AbortOnDropHandle<()>, ReadError> {
    let selections = selections().map_err(|error| ReadError::Invalid {
        reason: error.to_string(),
    })?;
    let mut followed = Vec::new();
    for subscription in selections {
        let mut next = Followed {
            subscription,
            directory: Arc::clone(&directory),
        };
        next.catch_up(&*store).await?;
        followed.push(next);
    }
    let follow = async move {
        let tasks = followed
            .into_iter()
            .map(|followed| followed.run(Arc::clone(&store)));
        stream::iter(tasks)
            .buffer_unordered(2)
            .for_each(|()| async {})
            .await;
    };
    Ok(AbortOnDropHandle::new(tokio::spawn(follow)))
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

impl Followed {
    fn take_in(&mut self, delivery: &Delivery) {
        self.directory.apply(&delivery.events);
        self.subscription.after = delivery.through;
    }

    /// Takes in what is stored.
    async fn catch_up(&mut self, store: &dyn EventStore) -> Result<(), ReadError> {
        let mut deliveries = store.subscribe(self.subscription.clone());
        while let Some(delivery) = deliveries.try_next().await? {
            self.take_in(&delivery);
            if delivery.caught_up {
                break;
            }
        }
        Ok(())
    }

    /// Takes in what comes, until the store is closed.
    async fn run(mut self, store: Arc<dyn EventStore>) {
        loop {
            let mut deliveries = store.subscribe(self.subscription.clone());
            loop {
                match deliveries.next().await {
                    Some(Ok(delivery)) => self.take_in(&delivery),
                    // The store was closed.
                    None => return,
                    Some(Err(error)) => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "access control not followed, trying again"
                        );
                        break;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
