//! The newest events of the log, and the subscriptions that wait for further ones.
//!
//! **Owns:** [`Recent`]: a bounded queue of events, and which subscription has events waiting in it.
//! **Does not know:** the database, tasks.
//! **Invariants:** the queue holds every event after `start` up to `through`. A subscription without pending events has none
//! that match up to `through`. Both are bounded, whatever the number and speed of subscriptions.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use leftfold_model::{Position, RecordedEvent, Scope, StreamName};
use leftfold_store::{Delivery, Subscription};
use tokio::sync::Notify;

/// Maximum number of events in the queue.
const EVENTS_MAX: usize = 4_096;
/// Maximum size of the events in the queue.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum number of events of a delivery.
const DELIVERY_EVENTS_MAX: usize = 1_024;

/// Identifies a subscription.
pub(super) type Id = u64;

/// What a subscription finds.
#[derive(Debug)]
pub(super) enum Found {
    /// Events, or a checkpoint that moved.
    Delivery(Delivery),
    /// No event after its checkpoint matches.
    Nothing,
    /// Events that it needs have left the queue.
    Behind,
}

/// A subscription that has caught up.
#[derive(Debug)]
struct Interest {
    subscription: Subscription,
    /// The position before its first pending event.
    pending_after: Option<Position>,
    wake: Arc<Notify>,
}

/// The newest events, and who waits for further ones.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: VecDeque<RecordedEvent>,
    bytes: usize,
    start: Position,
    through: Option<Position>,
    /// The newest checkpoint with which a subscription was attached: the log reached it.
    newest_attached: Position,
    next_id: Id,
    interests: HashMap<Id, Interest>,
    /// The subscriptions of one stream each, found by its name.
    by_stream: HashMap<StreamName, Vec<Id>>,
    /// All other subscriptions.
    unindexed: Vec<Id>,
}

fn selects(subscription: &Subscription, event: &RecordedEvent) -> bool {
    let in_scope = match &subscription.scope {
        Scope::All => true,
        Scope::Stream(stream) => *stream == event.stream,
        Scope::Category(category) => category.as_str() == event.stream.category_str(),
        // Statements, too, treat a scope that is not known here as the whole log.
        _ => true,
    };
    in_scope && subscription.query.matches(&event.event_type, &event.tags)
}

fn size(event: &RecordedEvent) -> usize {
    event.data.len() + event.metadata.len() + size_of::<RecordedEvent>()
}

impl Recent {
    /// The position up to which the log was read; `None` before the first read.
    pub(super) fn through(&self) -> Option<Position> {
        self.through
    }

    /// Returns a position that the log has reached, by what attached subscriptions have received.
    pub(super) fn newest_attached(&self) -> Position {
        self.newest_attached
    }

    pub(super) fn is_unused(&self) -> bool {
        self.interests.is_empty()
    }

    /// Adds a subscription that has received everything up to `after`.
    pub(super) fn attach(
        &mut self,
        mut subscription: Subscription,
        after: Position,
    ) -> (Id, Arc<Notify>) {
        subscription.after = after;
        self.newest_attached = self.newest_attached.max(after);
        self.next_id += 1;
        let id = self.next_id;
        match &subscription.scope {
            Scope::Stream(stream) => self.by_stream.entry(stream.clone()).or_default().push(id),
            _ => self.unindexed.push(id),
        }
        let wake = Arc::new(Notify::new());
        // What the queue holds beyond its checkpoint is searched when it asks.
        let pending_after = self
            .through
            .filter(|through| *through > after)
            .map(|_| after);
        let interest = Interest {
            subscription,
            pending_after,
            wake: Arc::clone(&wake),
        };
        self.interests.insert(id, interest);
        (id, wake)
    }

    pub(super) fn detach(&mut self, id: Id) {
        let Some(interest) = self.interests.remove(&id) else {
            return;
        };
        if let Scope::Stream(stream) = &interest.subscription.scope {
            if let Some(ids) = self.by_stream.get_mut(stream) {
                ids.retain(|other| *other != id);
                if ids.is_empty() {
                    self.by_stream.remove(stream);
                }
            }
        } else {
            self.unindexed.retain(|other| *other != id);
        }
    }

    /// Removes and wakes all subscriptions.
    pub(super) fn detach_all(&mut self) {
        self.wake_all();
        self.interests.clear();
        self.by_stream.clear();
        self.unindexed.clear();
    }

    /// Wakes all subscriptions.
    pub(super) fn wake_all(&self) {
        for interest in self.interests.values() {
            interest.wake.notify_one();
        }
    }

    /// Starts the queue at the head of the log. Subscriptions that are not there yet have to read the log themselves.
    pub(super) fn start_at(&mut self, head: Position) {
        self.events.clear();
        self.bytes = 0;
        self.start = head;
        self.through = Some(head);
        for interest in self.interests.values_mut() {
            if interest.subscription.after < head {
                interest.pending_after = Some(interest.subscription.after);
                interest.wake.notify_one();
            }
        }
    }

    /// Makes every subscription read the log itself up to `head`, because an event in between cannot be decoded.
    pub(super) fn skip_to(&mut self, head: Position) {
        let through = self.through.unwrap_or_default();
        for interest in self.interests.values_mut() {
            interest.pending_after.get_or_insert(through);
        }
        self.events.clear();
        self.bytes = 0;
        self.start = head;
        self.through = Some(head);
        self.wake_all();
    }

    /// Forgets all events, after the task that reads them has ended.
    pub(super) fn reset(&mut self) {
        self.newest_attached = Position::START;
        self.events.clear();
        self.bytes = 0;
        self.through = None;
    }

    /// Appends the events after [`Self::through`], and wakes the subscriptions that select one of them.
    pub(super) fn extend(&mut self, events: Vec<RecordedEvent>, through: Position) {
        let before = self.through.unwrap_or_default();
        for event in &events {
            let of_stream = self.by_stream.get(&event.stream).into_iter().flatten();
            for id in of_stream.chain(&self.unindexed) {
                if let Some(interest) = self.interests.get_mut(id)
                    && interest.pending_after.is_none()
                    && selects(&interest.subscription, event)
                {
                    interest.pending_after = Some(before);
                    interest.wake.notify_one();
                }
            }
        }
        self.bytes += events.iter().map(size).sum::<usize>();
        self.events.extend(events);
        self.through = Some(through);
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(event) = self.events.pop_front() else {
                break;
            };
            self.bytes -= size(&event);
            self.start = event.position;
        }
    }

    /// Returns what subscription `id` finds after its checkpoint. If nothing matches, the checkpoint moves only if
    /// `overdue`.
    pub(super) fn next(&mut self, id: Id, after: Position, overdue: bool) -> Found {
        let (Some(through), Some(interest)) = (self.through, self.interests.get_mut(&id)) else {
            return Found::Nothing;
        };
        // The checkpoint that `start_at` compares with.
        interest.subscription.after = after;
        let mut events = Vec::new();
        let mut reached = through;
        if let Some(pending_after) = interest.pending_after.take() {
            let from = pending_after.max(after);
            if from < self.start {
                return Found::Behind;
            }
            let begin = self.events.partition_point(|event| event.position <= from);
            for event in self.events.range(begin..) {
                if !selects(&interest.subscription, event) {
                    continue;
                }
                if events.len() == DELIVERY_EVENTS_MAX {
                    reached = events
                        .last()
                        .map_or(from, |last: &RecordedEvent| last.position);
                    interest.pending_after = Some(reached);
                    break;
                }
                events.push(event.clone());
            }
        }
        if reached > after && (overdue || !events.is_empty()) {
            interest.subscription.after = reached;
            return Found::Delivery(Delivery {
                caught_up: reached == through,
                events,
                through: reached,
            });
        }
        Found::Nothing
    }
}
