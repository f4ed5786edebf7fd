//! Starting the timers that are due.
//!
//! **Owns:** the way from a timer that is due to its handler. **Does not know:** which timers are due.
//! **Invariants:** a timer is handled in order with the events of its key; a timer of a parked key waits.

use super::{Dispatcher, FollowError, Item, Listener, Place};

impl<L: Listener> Dispatcher<L> {
    /// Starts the timers that are due, in order with the events of their keys.
    pub(super) async fn fire_timers(&mut self) -> Result<(), FollowError> {
        self.looked = (self.handler.settings.clock.0)();
        for timer in self.timers.begin_due(self.looked) {
            let id = timer.id.clone();
            let (key, prepared) = self.handler.prepare_timer(timer);
            if self.parked.first_of(&key).is_some() {
                self.timers.end(&id, true);
                continue;
            }
            let place = Place::timer(id);
            self.enqueue(Item {
                place,
                key,
                prepared,
            })
            .await?;
        }
        if self.timers.wants_page(self.looked) || self.sets_due_timer() {
            self.begin_checkpoint().await?;
        }
        Ok(())
    }
}
