//! Which events of a group wait, which are in flight, and which are done with.
//!
//! **Owns:** [`GroupQueue`]: buffers, windows, retries, timeouts, parking, the checkpoint. **Does not know:** stores, tasks,
//! clocks.
//! **Invariants:**
//! - The checkpoint is below the lowest event that is neither acknowledged nor parked.
//! - A message is in flight with one consumer at most, and a consumer has no more in flight than its window.
//! - Events behind the checkpoint that are done with are bounded in number: then new ones wait for the lowest.
//! - An event is parked by a consumer's word, or after more retries than the group allows, with a reason.

mod dispatch;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use leftfold_model::{EventId, Position, Timestamp};
use leftfold_store::consumers::{CHANGES_MAX, ConsumerChange, ParkedEvent, REASON_BYTES_MAX};
use tokio::time::Instant;

use super::{
    message::{ConsumerKey, Message, NackAction},
    settings::GroupSettings,
    statistics::{Latencies, Throughput},
    strategy::BucketOwners,
};

/// Events behind the checkpoint that may be done with before the lowest one is.
const HOLES_MAX: u64 = 10_000;
#[derive(Debug)]
struct Tracked {
    message: Arc<Message>,
    retries: u32,
    deliveries: u32,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// In one of the queues.
    Waiting,
    InFlight {
        consumer: ConsumerKey,
        turn: u64,
        sent: Instant,
        deadline: Option<Instant>,
    },
}

/// What the queue knows of a consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    window: usize,
    /// By the order in which they were sent.
    in_flight: BTreeMap<u64, EventId>,
    /// What a strategy that pins has for it.
    assigned: BTreeSet<(Position, EventId)>,
    is_ready: bool,
    pub(super) throughput: Throughput,
    pub(super) latencies: Latencies,
}

impl Consumer {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn free(&self) -> usize {
        self.window - self.in_flight.len()
    }
}

/// What is to be written down together.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) checkpoint: Position,
    pub(super) changes: Vec<ConsumerChange>,
}

/// The events of one group that are not done with.
#[derive(Debug)]
pub(super) struct GroupQueue {
    settings: GroupSettings,
    consumers: BTreeMap<ConsumerKey, Consumer>,
    ready: VecDeque<ConsumerKey>,
    owners: BucketOwners,
    messages: HashMap<EventId, Tracked>,
    bytes: usize,
    pending: VecDeque<EventId>,
    retry: BTreeSet<(Position, EventId)>,
    deadlines: BTreeSet<(Instant, EventId)>,
    in_flight: usize,
    turns: u64,
    /// Events of the log that are not done with, each with how many were taken before it.
    outstanding: BTreeMap<Position, u64>,
    taken: u64,
    through: Position,
    parking: Vec<ParkedEvent>,
    unparking: Vec<Position>,
    /// Parked events that are delivered again, until it is written down what became of them.
    replaying: BTreeSet<Position>,
    /// Parked events behind the checkpoint.
    passed_over: BTreeSet<Position>,
    /// Retries of events before they were read again.
    former_retries: HashMap<EventId, u32>,
    done_since_saved: u64,
    /// Of these, how many were done with when progress was last taken.
    done_when_saved: u64,
    pub(super) throughput: Throughput,
}

impl GroupQueue {
    /// One that has dealt with everything through `checkpoint`.
    pub(super) fn new(
        settings: GroupSettings,
        checkpoint: Position,
        former_retries: HashMap<EventId, u32>,
        now: Instant,
    ) -> Self {
        Self {
            settings,
            consumers: BTreeMap::new(),
            ready: VecDeque::new(),
            owners: BucketOwners::default(),
            messages: HashMap::new(),
            bytes: 0,
            pending: VecDeque::new(),
            retry: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            in_flight: 0,
            turns: 0,
            outstanding: BTreeMap::new(),
            taken: 0,
            through: checkpoint,
            parking: Vec::new(),
            unparking: Vec::new(),
            replaying: BTreeSet::new(),
            passed_over: BTreeSet::new(),
            former_retries,
            done_since_saved: 0,
            done_when_saved: 0,
            throughput: Throughput::new(now),
        }
    }

    /// Whether more events should be read. A group that holds `buffer_bytes` of them takes no more.
    pub(super) fn wants_more(&self, buffer_bytes: usize) -> bool {
        let waiting = self.messages.len() - self.in_flight;
        let max = usize::try_from(self.settings.history_buffer_size).unwrap_or(usize::MAX);
        waiting < max && self.bytes < buffer_bytes && self.holes() < HOLES_MAX
    }

    /// Takes events of the log, in its order.
    pub(super) fn offer(&mut self, message: Message) {
        let (id, position) = (message.original.id, message.original.position);
        if self.passed_over.remove(&position) {
            self.through = self.through.max(position);
            return;
        }
        self.outstanding.insert(position, self.taken);
        self.taken += 1;
        self.through = self.through.max(position);
        self.pending.push_back(id);
        self.track(message);
    }

    /// Notes that everything up to `through` was offered.
    pub(super) fn read_through(&mut self, through: Position) {
        self.through = self.through.max(through);
    }

    /// Takes a parked event that is to be delivered again, before all others.
    pub(super) fn replay(&mut self, message: Message) {
        let (id, position) = (message.original.id, message.original.position);
        if self.replaying.insert(position) && !self.messages.contains_key(&id) {
            self.retry.insert((position, id));
            self.track(message);
        }
    }

    /// Takes a parked event out, whatever it is.
    pub(super) fn unpark(&mut self, position: Position) {
        if self.replaying.insert(position) {
            self.unparking.push(position);
        }
    }

    /// The parked events that are being dealt with.
    pub(super) fn replaying(&self) -> &BTreeSet<Position> {
        &self.replaying
    }

    /// Leaves out events that are parked already when they are offered.
    pub(super) fn pass_over(&mut self, parked: impl IntoIterator<Item = Position>) {
        self.passed_over.extend(parked);
    }

    /// The position through which events were offered.
    pub(super) fn read_position(&self) -> Position {
        self.through
    }

    fn track(&mut self, message: Message) {
        self.bytes += message.bytes();
        let id = message.original.id;
        let retries = match message.replayed {
            true => 0,
            false => self.former_retries.remove(&id).unwrap_or_default(),
        };
        let tracked = Tracked {
            message: Arc::new(message),
            retries,
            deliveries: 0,
            state: State::Waiting,
        };
        self.messages.insert(id, tracked);
    }

    /// Adds a consumer.
    pub(super) fn connect(&mut self, key: ConsumerKey, window: usize, now: Instant) {
        let consumer = Consumer {
            window: window.max(1),
            in_flight: BTreeMap::new(),
            assigned: BTreeSet::new(),
            is_ready: true,
            throughput: Throughput::new(now),
            latencies: Latencies::default(),
        };
        self.consumers.insert(key, consumer);
        self.ready.push_back(key);
        self.owners.join(key);
        self.unassign();
    }

    /// Removes a consumer. What it had goes to others. The event it was sent first and did not acknowledge counts as tried:
    /// it may be what ended the consumer.
    pub(super) fn disconnect(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(&key) else {
            return;
        };
        self.ready.retain(|ready| *ready != key);
        let staying = self.consumers.keys().copied();
        self.owners.leave(key, staying);
        self.retry.extend(consumer.assigned);
        let mut suspected = true;
        for id in consumer.in_flight.into_values() {
            self.take_back(id);
            if suspected {
                self.try_again(id, "the consumer disconnected while it held the event");
            } else {
                self.wait_again(id);
            }
            suspected = false;
        }
    }

    /// Ends what consumers are told to end with events of theirs.
    pub(super) fn ack(&mut self, ids: &[EventId], now: Instant) {
        for id in ids {
            if self.messages.contains_key(id) {
                self.measure(*id, now);
                if self.is_waiting(*id) {
                    self.unqueue(*id);
                }
                self.take_back(*id);
                self.done(*id);
            }
        }
    }

    /// Does as a consumer says with events that it has in flight. Others are no longer its own.
    pub(super) fn nack(
        &mut self,
        key: ConsumerKey,
        ids: &[EventId],
        action: NackAction,
        reason: &str,
    ) {
        for id in ids {
            let state = self.messages.get(id).map(|tracked| tracked.state);
            match state {
                Some(State::InFlight { consumer, .. }) if consumer == key => {}
                _ => continue,
            }
            self.take_back(*id);
            match action {
                NackAction::Skip => self.done(*id),
                NackAction::Stop => self.wait_again(*id),
                NackAction::Retry => {
                    let reason = or_else(reason, "the consumer asked for a retry");
                    self.try_again(*id, reason);
                }
                NackAction::Park => self.park(*id, or_else(reason, "parked by the consumer")),
            }
        }
    }

    /// Retries what was in flight for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                return;
            }
            self.deadlines.pop_first();
            self.take_back(id);
            let timeout = self.settings.message_timeout().unwrap_or_default();
            self.try_again(id, &format!("not acknowledged within {timeout:?}"));
        }
    }

    /// When something is in flight for too long next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Changes the settings. What is in flight keeps its deadline.
    pub(super) fn set(&mut self, settings: GroupSettings) {
        self.settings = settings;
        self.unassign();
        for (&key, consumer) in &mut self.consumers {
            if consumer.free() > 0 && !consumer.is_ready {
                consumer.is_ready = true;
                self.ready.push_back(key);
            }
        }
    }

    pub(super) fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// Ends that a message is in flight.
    fn take_back(&mut self, id: EventId) {
        let Some(tracked) = self.messages.get_mut(&id) else {
            return;
        };
        let State::InFlight {
            consumer,
            turn,
            deadline,
            ..
        } = tracked.state
        else {
            return;
        };
        tracked.state = State::Waiting;
        self.in_flight -= 1;
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if let Some(consumer) = self.consumers.get_mut(&consumer) {
            consumer.in_flight.remove(&turn);
        }
        self.make_ready(consumer, false);
    }

    fn measure(&mut self, id: EventId, now: Instant) {
        let state = self.messages.get(&id).map(|tracked| tracked.state);
        if let Some(State::InFlight { consumer, sent, .. }) = state
            && self.settings.extra_statistics
            && let Some(consumer) = self.consumers.get_mut(&consumer)
        {
            consumer.latencies.add(now - sent);
        }
    }

    /// Takes a message out of the queues, where it may wait to be retried.
    fn unqueue(&mut self, id: EventId) {
        let Some(tracked) = self.messages.get(&id) else {
            return;
        };
        let place = (tracked.message.original.position, id);
        if !self.retry.remove(&place) {
            for consumer in self.consumers.values_mut() {
                consumer.assigned.remove(&place);
            }
        }
    }

    /// Counts a retry, or parks the message if there were too many.
    fn try_again(&mut self, id: EventId, reason: &str) {
        let Some(tracked) = self.messages.get_mut(&id) else {
            return;
        };
        tracked.retries += 1;
        if tracked.retries > self.settings.max_retry_count {
            let retries = self.settings.max_retry_count;
            self.park(id, &format!("{reason}; retried {retries} times"));
        } else {
            self.wait_again(id);
        }
    }

    fn wait_again(&mut self, id: EventId) {
        if let Some(tracked) = self.messages.get(&id) {
            self.retry.insert((tracked.message.original.position, id));
        }
    }

    fn park(&mut self, id: EventId, reason: &str) {
        let Some(tracked) = self.forget(id) else {
            return;
        };
        let original = &tracked.message.original;
        self.outstanding.remove(&original.position);
        self.done_since_saved += 1;
        self.parking.push(ParkedEvent {
            position: original.position,
            key: original.stream.to_string(),
            reason: shortened(reason),
            attempts: tracked.deliveries,
            time: Timestamp::from_micros(0),
            resolution: None,
        });
    }

    fn done(&mut self, id: EventId) {
        let Some(tracked) = self.forget(id) else {
            return;
        };
        let position = tracked.message.original.position;
        self.done_since_saved += 1;
        if tracked.message.replayed {
            self.unparking.push(position);
        } else {
            self.outstanding.remove(&position);
        }
    }

    fn forget(&mut self, id: EventId) -> Option<Tracked> {
        let tracked = self.messages.remove(&id)?;
        self.bytes -= tracked.message.bytes();
        Some(tracked)
    }

    /// Puts what is assigned to consumers back, to be assigned anew.
    fn unassign(&mut self) {
        for consumer in self.consumers.values_mut() {
            self.retry.append(&mut consumer.assigned);
        }
    }

    /// Everything up to here is done with.
    pub(super) fn checkpoint(&self) -> Position {
        match self.outstanding.first_key_value() {
            Some((lowest, _)) => lowest.previous(),
            None => self.through,
        }
    }

    /// How many events behind the checkpoint are done with.
    fn holes(&self) -> u64 {
        match self.outstanding.first_key_value() {
            Some((_, before)) => self.taken - before - self.outstanding.len() as u64,
            None => 0,
        }
    }

    /// How many events were done with since progress was written down last.
    pub(super) fn done_since_saved(&self) -> u64 {
        self.done_since_saved
    }

    /// Whether parked events have to be written down.
    pub(super) fn has_changes(&self) -> bool {
        !self.parking.is_empty() || !self.unparking.is_empty()
    }

    /// Whether nothing waits and nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.messages.is_empty()
    }

    /// What is to be written down, the events to be parked with this time. `saved` is where the checkpoint is now.
    pub(super) fn progress(&mut self, saved: Position, time: Timestamp) -> Progress {
        let parking = self.parking.iter_mut().map(|event| {
            event.time = time;
            ConsumerChange::Park(event.clone())
        });
        let unparking = self.unparking.iter().copied().map(ConsumerChange::Unpark);
        let mut changes: Vec<_> = parking.chain(unparking).collect();
        // What is parked must be written before the checkpoint passes it.
        let checkpoint = match changes.len() > CHANGES_MAX {
            true => saved,
            false => self.checkpoint().max(saved),
        };
        changes.truncate(CHANGES_MAX);
        self.done_when_saved = self.done_since_saved;
        Progress {
            checkpoint,
            changes,
        }
    }

    /// Forgets what was written down.
    pub(super) fn saved(&mut self, changes: &[ConsumerChange]) {
        self.done_since_saved -= std::mem::take(&mut self.done_when_saved);
        let mut settled = BTreeSet::new();
        for change in changes {
            match change {
                ConsumerChange::Park(event) => settled.insert(event.position),
                ConsumerChange::Unpark(position) => settled.insert(*position),
                ConsumerChange::SetTimer(_) | ConsumerChange::CancelTimer(_) => false,
            };
        }
        self.parking
            .retain(|event| !settled.contains(&event.position));
        self.unparking
            .retain(|position| !settled.contains(position));
        self.replaying
            .retain(|position| !settled.contains(position));
    }

    /// The retries of events that are not done with, for the next owner in this process.
    pub(super) fn retries(&self) -> HashMap<EventId, u32> {
        let retried = self
            .messages
            .iter()
            .filter(|(_, it)| it.retries > 0 && !it.message.replayed);
        let retried = retried.map(|(id, tracked)| (*id, tracked.retries));
        let former = self
            .former_retries
            .iter()
            .map(|(id, retries)| (*id, *retries));
        former.chain(retried).collect()
    }

    pub(super) fn consumer(&mut self, key: ConsumerKey) -> Option<&mut Consumer> {
        self.consumers.get_mut(&key)
    }

    /// How many messages wait to be read for the first time, to be retried, and are in flight.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.pending.len(), self.retry.len(), self.in_flight)
    }
}

/// A reason, or what it is without one.
fn or_else<'a>(reason: &'a str, without: &'a str) -> &'a str {
    match reason.trim() {
        "" => without,
        reason => reason,
    }
}

/// The beginning of a reason, as long as one may be kept.
fn shortened(reason: &str) -> String {
    let mut text = reason.to_owned();
    let end = (0..=REASON_BYTES_MAX.min(text.len())).rev();
    let end = end.into_iter().find(|&at| text.is_char_boundary(at));
    text.truncate(end.unwrap_or_default());
    text
}

#[cfg(test)]
mod tests;
