//! Which consumer gets which of the messages that wait.
//!
//! **Owns:** the strategies: in turn, to one, pinned. **Does not know:** what becomes of a message that is sent.
//! **Invariants:** a consumer is in the queue of those that are ready at most once; with a strategy that pins, a consumer
//! that is full holds up no other.

use std::sync::Arc;

use leftfold_model::EventId;
use tokio::time::Instant;

use super::{Consumer, GroupQueue, HOLES_MAX, State};
use crate::groups::{
    message::{ConsumerKey, DeliveredMessage},
    settings::ConsumerStrategy,
    strategy,
};

impl GroupQueue {
    /// Sends what waits to consumers that have room.
    pub(in crate::groups) fn dispatch(
        &mut self,
        now: Instant,
    ) -> Vec<(ConsumerKey, DeliveredMessage)> {
        let mut out = Vec::new();
        match self.settings.consumer_strategy {
            ConsumerStrategy::RoundRobin | ConsumerStrategy::DispatchToSingle => {
                self.dispatch_in_turn(now, &mut out);
            }
            ConsumerStrategy::Pinned | ConsumerStrategy::PinnedByCorrelation => {
                self.dispatch_pinned(now, &mut out);
            }
        }
        out
    }

    fn dispatch_in_turn(&mut self, now: Instant, out: &mut Vec<(ConsumerKey, DeliveredMessage)>) {
        while let Some(key) = self.next_ready() {
            let Some(id) = self.next_waiting() else {
                self.make_ready(key, true);
                return;
            };
            out.extend(self.deliver(key, id, now));
            let stays = self.settings.consumer_strategy == ConsumerStrategy::DispatchToSingle;
            self.make_ready(key, stays);
        }
    }

    fn dispatch_pinned(&mut self, now: Instant, out: &mut Vec<(ConsumerKey, DeliveredMessage)>) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.next_ready() else {
                return;
            };
            while self.free(key) > 0
                && let Some(id) = self.next_assigned(key)
            {
                out.extend(self.deliver(key, id, now));
            }
            self.make_ready(key, false);
        }
        while self.any_is_ready()
            && let Some(id) = self.next_waiting()
        {
            let Some(tracked) = self.messages.get(&id) else {
                continue;
            };
            let position = tracked.message.original.position;
            let bucket = strategy::bucket(self.settings.consumer_strategy, &tracked.message);
            let Some(owner) = self.owners.owner(bucket) else {
                self.retry.insert((position, id));
                return;
            };
            let Some(consumer) = self.consumers.get_mut(&owner) else {
                self.retry.insert((position, id));
                return;
            };
            if consumer.assigned.is_empty() && consumer.free() > 0 {
                out.extend(self.deliver(owner, id, now));
            } else {
                consumer.assigned.insert((position, id));
            }
        }
    }

    fn free(&self, key: ConsumerKey) -> usize {
        self.consumers.get(&key).map_or(0, Consumer::free)
    }

    /// Whether a consumer has room; forgets those that have none any more.
    fn any_is_ready(&mut self) -> bool {
        match self.next_ready() {
            Some(key) => {
                self.make_ready(key, true);
                true
            }
            None => false,
        }
    }

    /// The consumer whose turn it is, of those that have room.
    fn next_ready(&mut self) -> Option<ConsumerKey> {
        while let Some(key) = self.ready.pop_front() {
            let Some(consumer) = self.consumers.get_mut(&key) else {
                continue;
            };
            consumer.is_ready = false;
            if consumer.free() > 0 {
                return Some(key);
            }
        }
        None
    }

    pub(super) fn make_ready(&mut self, key: ConsumerKey, first: bool) {
        let consumer = self.consumers.get_mut(&key);
        let Some(consumer) = consumer.filter(|it| it.free() > 0 && !it.is_ready) else {
            return;
        };
        consumer.is_ready = true;
        if first {
            self.ready.push_front(key);
        } else {
            self.ready.push_back(key);
        }
    }

    /// The message that waits longest: first those to be retried.
    fn next_waiting(&mut self) -> Option<EventId> {
        while let Some((_, id)) = self.retry.pop_first() {
            if self.is_waiting(id) {
                return Some(id);
            }
        }
        if self.holes() >= HOLES_MAX {
            return None;
        }
        while let Some(id) = self.pending.pop_front() {
            if self.is_waiting(id) {
                return Some(id);
            }
        }
        None
    }

    fn next_assigned(&mut self, key: ConsumerKey) -> Option<EventId> {
        loop {
            let (_, id) = self.consumers.get_mut(&key)?.assigned.pop_first()?;
            if self.is_waiting(id) {
                return Some(id);
            }
        }
    }

    pub(super) fn is_waiting(&self, id: EventId) -> bool {
        let tracked = self.messages.get(&id);
        tracked.is_some_and(|tracked| matches!(tracked.state, State::Waiting))
    }

    fn deliver(
        &mut self,
        key: ConsumerKey,
        id: EventId,
        now: Instant,
    ) -> Option<(ConsumerKey, DeliveredMessage)> {
        let (consumer, tracked) = (self.consumers.get_mut(&key)?, self.messages.get_mut(&id)?);
        let deadline = self.settings.message_timeout().map(|after| now + after);
        self.turns += 1;
        tracked.deliveries += 1;
        tracked.state = State::InFlight {
            consumer: key,
            turn: self.turns,
            sent: now,
            deadline,
        };
        consumer.in_flight.insert(self.turns, id);
        consumer.throughput.add(1);
        self.throughput.add(1);
        self.in_flight += 1;
        self.deadlines
            .extend(deadline.map(|deadline| (deadline, id)));
        let delivered = DeliveredMessage {
            message: Arc::clone(&tracked.message),
            retries: tracked.retries,
        };
        Some((key, delivered))
    }
}
