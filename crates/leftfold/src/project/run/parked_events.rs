//! Parking the events of a projection, and retrying those that are parked.
//!
//! **Owns:** what happens to an event whose attempts all failed. **Does not know:** batches.
//! **Invariants:** the view records a parked event in the transaction that moves the checkpoint past it; a parked event is
//! projected only if it is still parked under the lock of that transaction.

use leftfold_model::{Position, RecordedEvent};
use leftfold_store::consumers::ParkedEvent;

use super::{Interrupted, Runner, key_of, superseded};
use crate::{
    event_reader::stored_event,
    project::{
        error::ProjectionError,
        parking::parked,
        projection::Projection,
        view::{View, ViewChanges},
    },
    reason::bounded,
};

impl<P: Projection> Runner<P> {
    /// Ends the projection at an event, or parks the event.
    pub(super) async fn give_up(
        &mut self,
        event: &RecordedEvent,
        reason: &str,
        attempts: u32,
    ) -> Result<(), Interrupted> {
        let position = event.position;
        if !self.settings.park {
            return Err(Interrupted::Ended(ProjectionError::Failed {
                projection: P::NAME,
                stream: event.stream.clone(),
                revision: event.revision,
                position,
                attempts,
                reason: bounded(reason),
            }));
        }
        let keys = self.parked.keys();
        if keys >= self.settings.stop_at_parked_keys {
            return Err(Interrupted::Ended(ProjectionError::TooManyParked {
                projection: P::NAME,
                keys,
                position,
                reason: bounded(reason),
            }));
        }
        let Some((transaction, _)) = self.begin(position).await? else {
            return Ok(());
        };
        let key = key_of::<P>(event);
        tracing::error!(
            projection = P::NAME, stream = %event.stream, revision = %event.revision, %position, attempts, reason,
            "event parked"
        );
        let changes = ViewChanges {
            position,
            event: Some(event.id),
            park: vec![parked(position, key, reason, attempts)],
            ..ViewChanges::default()
        };
        self.commit(transaction, changes, &[]).await
    }

    pub(super) fn parked_behind(&self, position: Position, key: String) -> ParkedEvent {
        let first = self.parked.first_of(&key).unwrap_or_default();
        let reason = format!("waits behind event {first} of its key");
        parked(position, key, &reason, 0)
    }

    /// Retries parked events, of each key in order until one fails.
    pub(super) async fn retry_parked(&mut self) -> Result<(), Interrupted> {
        for key in self.parked.all_keys() {
            while let Some(position) = self.parked.first_of(&key) {
                if self.progress.is_stopping() {
                    return Err(Interrupted::Stopped);
                }
                if !self.retry(&key, position).await? {
                    break;
                }
            }
        }
        let reached = *self.progress.position.borrow();
        self.publish(reached);
        Ok(())
    }

    /// Retries one parked event; `true` if it is no longer parked.
    async fn retry(&mut self, key: &str, position: Position) -> Result<bool, Interrupted> {
        let stored = match stored_event(&self.store, position).await {
            Ok(stored) => stored,
            Err(error) => return Err(self.unreadable(error)),
        };
        let (mut transaction, checkpoint) = self.view.begin(Self::ID).await?;
        if let Some(by) = checkpoint.superseded_by {
            self.view.roll_back(transaction).await;
            return Err(superseded::<P>(by));
        }
        let looked_up = self.view.is_parked(Self::ID, &mut transaction, position);
        if !looked_up.await? {
            // Another process retried it.
            self.view.roll_back(transaction).await;
            self.parked.remove(key, position);
            return Ok(true);
        }
        let mut changes = ViewChanges {
            position: checkpoint.position,
            event: checkpoint.event,
            unpark: vec![position],
            ..ViewChanges::default()
        };
        let projected = match &stored {
            // A scavenged event has nothing to project.
            None => Ok(Vec::new()),
            Some(event) => self.values(&mut transaction, event).await,
        };
        match projected {
            Ok(values) => {
                self.view.commit(Self::ID, transaction, changes).await?;
                self.parked.remove(key, position);
                self.progress.projected(values.len() as u64);
                self.notify(&values);
                Ok(true)
            }
            Err(failure) => {
                self.view.roll_back(transaction).await;
                let (transaction, checkpoint) = self.view.begin(Self::ID).await?;
                changes.position = checkpoint.position;
                changes.unpark.clear();
                changes
                    .park
                    .push(parked(position, key.to_owned(), &failure.reason, 1));
                self.view.commit(Self::ID, transaction, changes).await?;
                Ok(false)
            }
        }
    }
}
