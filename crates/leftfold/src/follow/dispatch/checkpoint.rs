//! Moving the checkpoint of a listener behind what was handled.
//!
//! **Owns:** when checkpoint and changes are written, and that handlers go on meanwhile. **Does not know:** how
//! events are handled.
//! **Invariants:** one write at a time; what is written is below every event that was neither handled nor parked when the write
//! began; after [`Dispatcher::checkpoint`] nothing is left to write.

use std::{future::pending, sync::Arc};

use futures_util::future::BoxFuture;
use leftfold_model::Position;
use leftfold_store::consumers::{Claim, ConsumerChange, ConsumerError};

use super::{Dispatcher, FollowError, Listener};

/// A write of the checkpoint; the claim as it is then.
pub(super) type Writing = BoxFuture<'static, Result<Claim, ConsumerError>>;

/// Waits until the checkpoint is written that is being written.
pub(super) async fn written(writing: &mut Option<Writing>) -> Result<Claim, ConsumerError> {
    match writing {
        Some(writing) => writing.await,
        None => pending().await,
    }
}

impl<L: Listener> Dispatcher<L> {
    /// Returns the position up to which everything is handled or parked.
    pub(super) fn reached(&self) -> Position {
        self.under_way
            .first()
            .map_or(self.taken, |first| first.previous())
    }

    pub(super) fn publish(&mut self) {
        let handled = std::mem::take(&mut self.handled);
        self.handler.progress.handled(handled);
        self.handler.progress.parked(self.parked.events());
        self.handler.progress.reached(self.reached());
    }

    /// Begins to write the checkpoint and the changes, unless a write is under way.
    pub(super) async fn begin_checkpoint(&mut self) -> Result<(), FollowError> {
        if self.writing.is_some() {
            return Ok(());
        }
        self.take_changes();
        let to = self.reached();
        if to == self.claim.position && self.changes.is_empty() {
            return Ok(());
        }
        if ConsumerChange::count_within_limits(&self.changes) < self.changes.len() {
            // Too many for one write, so what was handled waits for them.
            return self.checkpoint().await;
        }
        let changes = std::mem::take(&mut self.changes);
        let (consumers, mut claim) = (Arc::clone(&self.consumers), self.claim.clone());
        self.writing = Some(Box::pin(async move {
            consumers.advance(&mut claim, to, changes).await?;
            Ok(claim)
        }));
        Ok(())
    }

    /// Notes how a write ended.
    pub(super) fn note_written(
        &mut self,
        written: Result<Claim, ConsumerError>,
    ) -> Result<(), FollowError> {
        self.writing = None;
        self.claim = written?;
        Ok(())
    }

    fn take_changes(&mut self) {
        for change in self.handler.listener.take_changes() {
            if let ConsumerChange::SetTimer(timer) = &change {
                self.timers.set(timer.due);
            }
            self.changes.push(change);
        }
    }

    /// Writes the checkpoint and the changes, if there are any.
    pub(in super::super) async fn checkpoint(&mut self) -> Result<(), FollowError> {
        if self.writing.is_some() {
            let written = written(&mut self.writing).await;
            self.note_written(written)?;
        }
        self.take_changes();
        let to = self.reached();
        if to == self.claim.position && self.changes.is_empty() {
            return Ok(());
        }
        loop {
            let fit = ConsumerChange::count_within_limits(&self.changes);
            if fit == self.changes.len() {
                break;
            }
            let rest = self.changes.split_off(fit);
            let changes = std::mem::replace(&mut self.changes, rest);
            let stay = self.claim.position;
            self.consumers
                .advance(&mut self.claim, stay, changes)
                .await?;
        }
        let changes = std::mem::take(&mut self.changes);
        self.consumers.advance(&mut self.claim, to, changes).await?;
        Ok(())
    }
}
