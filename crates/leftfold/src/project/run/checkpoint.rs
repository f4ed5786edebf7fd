//! The checkpoint of a projection: opening a view, and passing over the events of others.
//!
//! **Owns:** setting a version up, and recognising the log that a view was filled from. **Does not know:** batches, attempts.
//! **Invariants:** a version is set up in the transaction that notes it; the event at the checkpoint is the one that the view was
//! filled up to, or the projection ends.

use leftfold_model::Position;

use super::{Interrupted, Runner, guarded, superseded};
use crate::{
    event_reader::stored_event,
    project::{
        error::ProjectionError,
        parking::ParkedKeys,
        projection::Projection,
        view::{View, ViewChanges, ViewCheckpoint},
    },
};

impl<P: Projection> Runner<P> {
    /// Reads the checkpoint of the version, and sets the version up if it is new.
    pub(super) async fn open(&mut self) -> Result<(), Interrupted> {
        self.head = match self.store.event_store().head().await {
            Ok(head) => head,
            Err(error) => return Err(self.unreadable(error)),
        };
        let (mut transaction, checkpoint) = self.view.begin(Self::ID).await?;
        if let Some(by) = checkpoint.superseded_by {
            self.view.roll_back(transaction).await;
            return Err(superseded::<P>(by));
        }
        if checkpoint.is_new {
            let set_up = guarded(self.projection.set_up(&mut transaction)).await;
            if let Err(reason) = set_up {
                self.view.roll_back(transaction).await;
                return Err(Interrupted::Ended(ProjectionError::NotSetUp {
                    projection: P::NAME,
                    version: P::VERSION,
                    reason,
                }));
            }
        }
        if let Some(other) = self.other_log(&checkpoint).await? {
            self.view.roll_back(transaction).await;
            return Err(other);
        }
        let activate = !checkpoint.caught_up && checkpoint.position == self.head;
        if checkpoint.is_new || activate {
            let changes = ViewChanges {
                position: checkpoint.position,
                event: checkpoint.event,
                activate,
                ..ViewChanges::default()
            };
            self.view.commit(Self::ID, transaction, changes).await?;
        } else {
            self.view.roll_back(transaction).await;
        }
        self.checkpoint = checkpoint.position;
        self.caught_up = checkpoint.caught_up || activate;
        self.parked = ParkedKeys::load(&*self.view, Self::ID).await?;
        self.publish(self.checkpoint);
        Ok(())
    }

    /// Returns the error of a view that was filled from another log than this one: the log was restored to an earlier state, and
    /// other events were appended since.
    async fn other_log(
        &self,
        checkpoint: &ViewCheckpoint,
    ) -> Result<Option<Interrupted>, Interrupted> {
        let Some(expected) = checkpoint.event else {
            return Ok(None);
        };
        let stored = stored_event(&self.store, checkpoint.position).await;
        let stored = stored.map_err(|error| self.unreadable(error))?;
        // A log that ends before the checkpoint cannot be followed from there, which is an error of its own.
        let other = stored.filter(|stored| stored.id != expected);
        Ok(other.map(|stored| {
            Interrupted::Ended(ProjectionError::OtherLog {
                projection: P::NAME,
                checkpoint: checkpoint.position,
                expected,
                found: stored.id,
            })
        }))
    }

    /// Moves the checkpoint past positions that hold no event of the projection.
    pub(super) async fn advance_checkpoint(
        &mut self,
        through: Position,
        caught_up: bool,
    ) -> Result<(), Interrupted> {
        let at = stored_event(&self.store, through).await;
        let at = at.map_err(|error| self.unreadable(error))?;
        let at = at.map(|event| event.id);
        let (transaction, checkpoint) = self.view.begin(Self::ID).await?;
        if let Some(by) = checkpoint.superseded_by {
            self.view.roll_back(transaction).await;
            return Err(superseded::<P>(by));
        }
        if checkpoint.position < self.checkpoint {
            self.view.roll_back(transaction).await;
            return Err(Interrupted::Moved);
        }
        let position = checkpoint.position.max(through);
        let changes = ViewChanges {
            position,
            event: match position == checkpoint.position {
                true => checkpoint.event,
                false => at,
            },
            activate: caught_up && !checkpoint.caught_up,
            ..ViewChanges::default()
        };
        self.checkpoint = changes.position;
        self.view.commit(Self::ID, transaction, changes).await?;
        self.caught_up |= caught_up;
        Ok(())
    }
}
