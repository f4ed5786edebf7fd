//! Moving the checkpoint of a listener behind what was handled.
//!
//! **Owns:** when checkpoint and changes are written, when timers are read behind them, and that handlers go on meanwhile.
//! **Does not know:** how events are handled.
//! **Invariants:** one write at a time; what is written is below every event that was neither handled nor parked when the write
//! began; a timer fires only after the store has it, so that it fires again if its handler does not end; after
//! [`Dispatcher::checkpoint`] nothing is left to write.

use std::{future::pending, sync::Arc};

use futures_util::future::BoxFuture;
use leftfold_model::{Position, Timestamp};
use leftfold_store::consumers::{
    Claim, ConsumerChange, ConsumerError, ConsumerName, Consumers, LIST_MAX, Timer,
};

use super::{Dispatcher, FollowError, Listener};

/// A write of the checkpoint.
pub(super) type Writing = BoxFuture<'static, Result<Written, ConsumerError>>;

/// The claim behind a write, what was written, and the earliest timers if they were read behind it.
pub(super) struct Written {
    claim: Claim,
    changes: Vec<ConsumerChange>,
    timers: Option<Vec<Timer>>,
}

/// Reads the earliest timers.
async fn earliest(
    consumers: &dyn Consumers,
    consumer: &ConsumerName,
) -> Result<Vec<Timer>, ConsumerError> {
    let all = Timestamp::from_micros(u64::MAX);
    consumers.due_timers(consumer, all, LIST_MAX).await
}

/// Waits until the checkpoint is written that is being written.
pub(super) async fn written(writing: &mut Option<Writing>) -> Result<Written, ConsumerError> {
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

    /// Begins to write the checkpoint and the changes, and to read timers behind that if more are wanted, unless a write is under
    /// way.
    pub(super) async fn begin_checkpoint(&mut self) -> Result<(), FollowError> {
        if self.writing.is_some() {
            return Ok(());
        }
        self.take_changes();
        if ConsumerChange::count_within_limits(&self.changes) < self.changes.len() {
            // Too many for one write, so what was handled waits for them.
            self.checkpoint().await?;
        }
        let to = self.reached();
        let stays = to == self.claim.position && self.changes.is_empty();
        let reads = L::IS_PROCESS && self.timers.wants_page(self.looked);
        if stays && !reads {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.changes);
        let (consumers, mut claim) = (Arc::clone(&self.consumers), self.claim.clone());
        self.writing = Some(Box::pin(async move {
            if !stays {
                consumers.advance(&mut claim, to, changes.clone()).await?;
            }
            let timers = match reads {
                true => Some(earliest(&*consumers, &claim.consumer).await?),
                false => None,
            };
            Ok(Written {
                claim,
                changes,
                timers,
            })
        }));
        Ok(())
    }

    /// Writes what there is to be written, and reads the earliest timers.
    pub(super) async fn load_timers(&mut self) -> Result<(), FollowError> {
        self.checkpoint().await?;
        let page = earliest(&*self.consumers, &self.claim.consumer).await?;
        self.timers.take_page(page);
        Ok(())
    }

    /// Notes how a write ended.
    pub(super) fn note_written(
        &mut self,
        written: Result<Written, ConsumerError>,
    ) -> Result<(), FollowError> {
        self.writing = None;
        let Written {
            claim,
            changes,
            timers,
        } = written?;
        self.claim = claim;
        match timers {
            Some(page) => self.timers.take_page(page),
            None => changes.iter().for_each(|change| self.timers.change(change)),
        }
        // They are behind what was written.
        self.take_changes();
        self.cancel_timers(0);
        Ok(())
    }

    /// Takes the changes that belong to what was handled. A timer that is cancelled does not fire any more; one that is set waits
    /// until the store has it.
    pub(super) fn take_changes(&mut self) {
        let known = self.changes.len();
        self.changes
            .append(&mut self.handler.listener.take_changes());
        self.cancel_timers(known);
    }

    /// Notes the timers that changes cancel, from the change of this number on.
    fn cancel_timers(&mut self, from: usize) {
        for change in self.changes.iter().skip(from) {
            if matches!(change, ConsumerChange::CancelTimer(_)) {
                self.timers.change(change);
            }
        }
    }

    /// Whether a timer is due that the store does not have yet.
    pub(super) fn sets_due_timer(&self) -> bool {
        let is_due = |change: &ConsumerChange| matches!(change, ConsumerChange::SetTimer(timer) if timer.due <= self.looked);
        self.changes.iter().any(is_due)
    }

    /// Writes the checkpoint and the changes, if there are any.
    pub(in super::super) async fn checkpoint(&mut self) -> Result<(), FollowError> {
        if self.writing.is_some() {
            let written = written(&mut self.writing).await;
            self.note_written(written)?;
        }
        self.take_changes();
        let to = self.reached();
        while !self.changes.is_empty() || to != self.claim.position {
            let fit = ConsumerChange::count_within_limits(&self.changes);
            let rest = self.changes.split_off(fit);
            let changes = std::mem::replace(&mut self.changes, rest);
            // What was handled waits for all of its changes.
            let to = match self.changes.is_empty() {
                true => to,
                false => self.claim.position,
            };
            let written = changes.clone();
            self.consumers.advance(&mut self.claim, to, changes).await?;
            written.iter().for_each(|change| self.timers.change(change));
        }
        self.cancel_timers(0);
        Ok(())
    }
}
