//! When a running group has something to do, and the call that is due.
//!
//! **Owns:** the times of renewals, checkpoints, looks at parked events, and the end. **Does not know:** what a call does.
//! **Invariants:** a group that waits for nothing sleeps.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{LINGER, REPLAYED_AT_ONCE, Running};
use crate::groups::progress::{looking, renewal, saving, time_now};

/// How often the claim is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How often requests about parked events are looked for that others wrote.
const LOOK_AT_PARKED_EVERY: Duration = Duration::from_secs(5);
/// How long a checkpoint waits while events go by that are none of the group's.
const PASSED_AFTER: Duration = Duration::from_secs(30);

impl Running {
    /// When there is something to do without being asked.
    pub(super) fn wake(&self) -> Instant {
        let now = Instant::now();
        let due = [
            self.queue.next_deadline(),
            self.alone_since.map(|since| since + LINGER),
            Some(self.renew_at()),
            self.save_at(),
            self.look_at(now),
        ];
        let wake = due.into_iter().flatten().min().unwrap_or(now + RENEW_EVERY);
        // The end of a call wakes too; what waits for that end must not make this spin.
        match self.call {
            Some(_) => wake.max(now + Duration::from_millis(50)),
            None => wake,
        }
    }

    fn renew_at(&self) -> Instant {
        (self.renewed_at + RENEW_EVERY).max(self.not_before)
    }

    /// When progress is to be written down.
    fn save_at(&self) -> Option<Instant> {
        let (done, settings) = (self.queue.done_since_saved(), self.queue.settings());
        let after = Duration::from_millis(settings.checkpoint_after_ms.into());
        let due = if self.queue.has_changes() {
            self.saved_at
        } else if self.queue.checkpoint() <= self.saved {
            return None;
        } else if done >= settings.max_checkpoint_count.max(1).into() {
            self.saved_at
        } else if done > 0 && (done >= settings.min_checkpoint_count.into() || self.queue.is_idle())
        {
            self.saved_at + after
        } else {
            self.saved_at + PASSED_AFTER.max(after)
        };
        Some(due.max(self.not_before))
    }

    /// When requests about parked events are to be looked for.
    fn look_at(&self, now: Instant) -> Option<Instant> {
        if self.outlets.is_empty() || self.queue.replaying().len() >= REPLAYED_AT_ONCE {
            return None;
        }
        let due = match self.look_now {
            true => now,
            false => self.looked_at + LOOK_AT_PARKED_EVERY,
        };
        Some(due.max(self.not_before))
    }

    /// Begins the call that is due, if none is under way.
    pub(super) fn begin_call(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let (renew, save) = (is_due(Some(self.renew_at())), is_due(self.save_at()));
        let look = is_due(self.look_at(now));
        if !(renew || save || look) {
            return;
        }
        let Some(claim) = self.claim.take() else {
            return;
        };
        let store = Arc::clone(&self.run.store);
        self.call = Some(if renew {
            renewal(store, claim)
        } else if save {
            self.saved_at = now;
            saving(store, claim, self.queue.progress(self.saved, time_now()))
        } else {
            (self.look_now, self.looked_at) = (false, now);
            let known = self.queue.replaying().clone();
            let selection = Arc::clone(&self.selection);
            looking(store, claim, (selection, known), REPLAYED_AT_ONCE)
        });
    }
}
