//! Dispatching events to handlers by key, and moving the checkpoint behind them.
//!
//! **Owns:** [`Dispatcher`]: the order of handlers, parked events, and the changes it writes to the store.
//! **Does not know:** how the claim is renewed, how a handler is retried.
//! **Invariants:** one event of a key is in flight at a time; later events of a parked key are parked too; the checkpoint is
//! below every event that is neither handled nor parked; dropping the dispatcher drops every handler in flight.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use leftfold_model::{Position, RecordedEvent, Timestamp};
use leftfold_store::{
    Delivery, ReadError, Subscription,
    consumers::{
        Claim, ConsumerChange, ConsumerError, Consumers, ListParked, ParkedEvent, Resolution,
    },
};
use tokio::time;

use self::checkpoint::Writing;
use super::{
    attempt::{Failure, Handler, Interrupted},
    error::FollowError,
    handle::ListenerState,
    item::{Finished, Item, Place, Running, finished},
    keeper::ClaimKeeper,
    listener::Listener,
    parking::ParkedKeys,
    tasks::Tasks,
    timers::{DueTimers, LOOK_EVERY},
};
use crate::{Store, clock::system_time, event_reader::stored_event};

mod checkpoint;
mod firing;

/// Maximum events in flight or waiting behind another of their key; then no more are read from the log.
const UNDER_WAY_MAX: usize = 4_096;
/// Interval between checkpoints. A crash repeats the events handled since the last one.
const CHECKPOINT_EVERY: Duration = Duration::from_millis(100);
/// Number of checkpoint ticks between two reads of operators' decisions about parked events.
const RESOLVED_EVERY: u32 = 5;
/// Maximum changes that wait for the next checkpoint.
const CHANGES_WAIT: usize = 1_000;

/// See the module.
pub(super) struct Dispatcher<L: Listener> {
    store: Store,
    handler: Arc<Handler<L>>,
    consumers: Arc<dyn Consumers>,
    claim: Claim,
    /// The position up to which the log was read.
    taken: Position,
    under_way: BTreeSet<Position>,
    /// Events that wait behind one of their key in flight.
    waiting: HashMap<String, VecDeque<Item<L::Event>>>,
    running: FuturesUnordered<Running>,
    parked: ParkedKeys,
    /// Parked keys whose events are being handled again.
    retrying: BTreeSet<String>,
    /// Too many events are parked to read more.
    is_full: bool,
    changes: Vec<ConsumerChange>,
    /// An event was parked since the last checkpoint.
    has_parked: bool,
    /// The checkpoint that is being written, and the changes with it.
    writing: Option<Writing>,
    timers: DueTimers,
    /// The time when timers were looked for.
    looked: Timestamp,
    tasks: Tasks,
    /// Events that were handled and are not published yet.
    handled: u64,
}

impl<L: Listener> Dispatcher<L> {
    pub(super) fn new(
        store: Store,
        handler: Arc<Handler<L>>,
        consumers: Arc<dyn Consumers>,
        claim: Claim,
        tasks: Tasks,
    ) -> Self {
        Self {
            store,
            handler,
            consumers,
            taken: claim.position,
            claim,
            under_way: BTreeSet::new(),
            waiting: HashMap::new(),
            running: FuturesUnordered::new(),
            parked: ParkedKeys::default(),
            retrying: BTreeSet::new(),
            is_full: false,
            changes: Vec::new(),
            has_parked: false,
            writing: None,
            timers: DueTimers::new(),
            looked: Timestamp::from_micros(0),
            tasks,
            handled: 0,
        }
    }

    /// Handles events until the claim is lost (an error), the listener is stopped, or it cannot go on.
    pub(super) async fn run(&mut self, mut keeper: ClaimKeeper) -> Result<(), FollowError> {
        self.parked = ParkedKeys::load(&*self.consumers, &self.claim.consumer).await?;
        // What an earlier run left is not known to belong to this claim; the events it belongs to are handled again.
        drop(self.handler.listener.take_changes());
        let mut deliveries = self.store.event_store().subscribe(self.subscription()?);
        let progress = Arc::clone(&self.handler.progress);
        progress.state.send_replace(ListenerState::Running);
        let mut checkpoints = time::interval(CHECKPOINT_EVERY);
        checkpoints.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut looks = time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        // Before anything can fail again: what was decided about parked events may make room for others.
        self.resolve().await?;
        match L::IS_PROCESS {
            true => self.load_timers().await?,
            false => self.checkpoint().await?,
        }
        let stopped = progress.stopped();
        tokio::pin!(stopped);
        loop {
            // A caller that waits for an event finds it in the list of parked ones then.
            if std::mem::take(&mut self.has_parked) {
                self.checkpoint().await?;
            }
            if L::IS_PROCESS {
                self.take_changes();
            }
            if self.changes.len() >= CHANGES_WAIT / 2 {
                self.begin_checkpoint().await?;
            }
            self.publish();
            let may_take = self.may_take();
            tokio::select! {
                biased;
                lost = keeper.lost() => return Err(lost.into()),
                () = &mut stopped => break,
                Some(finished) = self.running.next(), if !self.running.is_empty() => self.finish(finished).await?,
                written = checkpoint::written(&mut self.writing) => self.note_written(written)?,
                _ = checkpoints.tick() => {
                    self.begin_checkpoint().await?;
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(RESOLVED_EVERY) && self.parked.events() > 0 {
                        self.checkpoint().await?;
                        self.resolve().await?;
                    }
                }
                _ = looks.tick(), if L::IS_PROCESS => self.fire_timers().await?,
                () = progress.resolved.notified() => {
                    self.checkpoint().await?;
                    self.resolve().await?;
                }
                delivery = deliveries.next(), if may_take => self.take(delivery).await?,
            }
        }
        self.finish_running(&mut keeper).await
    }

    /// Whether more of the log can be read now.
    fn may_take(&mut self) -> bool {
        let settings = &self.handler.settings;
        let events = self.parked.events();
        let is_full = events >= settings.pause_at_parked_events;
        if is_full != self.is_full {
            self.is_full = is_full;
            let state = match is_full {
                true => {
                    tracing::error!(
                        consumer = L::NAME,
                        events,
                        "listener waits for its parked events"
                    );
                    let reason =
                        format!("{events} events are parked; expected fewer before more are read");
                    ListenerState::Waiting { reason }
                }
                false => ListenerState::Running,
            };
            self.handler.progress.state.send_replace(state);
        }
        // A key that is about to be free makes room for one that fails.
        let waits_for_room =
            self.parked.keys() >= settings.stop_at_parked_keys && !self.retrying.is_empty();
        !is_full
            && !waits_for_room
            && self.under_way.len() < UNDER_WAY_MAX
            && self.changes.len() < CHANGES_WAIT
    }

    /// Stops gracefully: handlers in flight finish, and events that wait behind them are left to the next run.
    async fn finish_running(&mut self, keeper: &mut ClaimKeeper) -> Result<(), FollowError> {
        self.waiting.values_mut().for_each(VecDeque::clear);
        loop {
            tokio::select! {
                biased;
                lost = keeper.lost() => return Err(lost.into()),
                finished = self.running.next() => match finished {
                    None => break,
                    Some(finished) => {
                        self.settle(finished)?;
                    }
                },
            }
        }
        self.checkpoint().await?;
        self.publish();
        Ok(())
    }

    fn subscription(&self) -> Result<Subscription, FollowError> {
        let events = self.store.events::<L::Event>().after(self.claim.position);
        Ok(events.subscription()?)
    }

    async fn take(
        &mut self,
        delivery: Option<Result<Delivery, ReadError>>,
    ) -> Result<(), FollowError> {
        let consumer = || L::NAME.to_owned();
        let delivery = match delivery {
            None => {
                return Err(FollowError::Closed {
                    consumer: consumer(),
                });
            }
            Some(delivery) => delivery.map_err(|source| FollowError::CannotResume {
                consumer: consumer(),
                checkpoint: self.claim.position,
                source,
            })?,
        };
        for event in &delivery.events {
            self.dispatch(event).await?;
        }
        self.taken = delivery.through;
        Ok(())
    }

    async fn dispatch(&mut self, event: &RecordedEvent) -> Result<(), FollowError> {
        self.taken = event.position;
        if self.parked.contains(event.position) {
            return Ok(());
        }
        if !self.handler.has_tasks() && self.waiting.is_empty() && self.parked.keys() == 0 {
            return self.dispatch_alone(event).await;
        }
        let (key, prepared) = self.handler.prepare_keyed(event);
        let item = Item {
            place: Place::of(event),
            key,
            prepared,
        };
        if self.parked.first_of(&item.key).is_some() {
            self.park_behind(item);
            return Ok(());
        }
        self.enqueue(item).await
    }

    /// Handles an event while no key is under way or parked: whatever its key is, the event waits for no other.
    async fn dispatch_alone(&mut self, event: &RecordedEvent) -> Result<(), FollowError> {
        let prepared = self.handler.prepare(event);
        let mut handling = Box::pin(Arc::clone(&self.handler).handle(prepared));
        let ended = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await;
        if matches!(ended, Poll::Ready(Ok(()))) {
            self.handled += 1;
            return Ok(());
        }
        // The event itself is in use by its handler.
        let (key, _) = self.handler.prepare_keyed(event);
        self.begun(Place::of(event), key, handling, ended).await
    }

    /// Handles an item, behind what is under way of its key.
    async fn enqueue(&mut self, item: Item<L::Event>) -> Result<(), FollowError> {
        if let Some(waiting) = self.waiting.get_mut(&item.key) {
            if item.place.timer.is_none() {
                self.under_way.insert(item.place.position);
            }
            waiting.push_back(item);
            return Ok(());
        }
        let Item {
            place,
            key,
            prepared,
        } = item;
        let mut handling = Box::pin(Arc::clone(&self.handler).handle(prepared));
        if self.handler.has_tasks() {
            return self.begun(place, key, handling, Poll::Pending).await;
        }
        let ended = poll_fn(|cx| Poll::Ready(handling.poll_unpin(cx))).await;
        if matches!(ended, Poll::Ready(Ok(()))) && place.timer.is_none() {
            self.handled += 1;
            return Ok(());
        }
        self.begun(place, key, handling, ended).await
    }

    /// Notes what is under way, or how it ended.
    async fn begun(
        &mut self,
        place: Place,
        key: String,
        handling: impl Future<Output = Result<(), Failure>> + Send + 'static,
        ended: Poll<Result<(), Failure>>,
    ) -> Result<(), FollowError> {
        if place.timer.is_none() {
            self.under_way.insert(place.position);
        }
        self.waiting.insert(key.clone(), VecDeque::new());
        match ended {
            Poll::Pending => {
                self.go_on(Box::pin(finished(place, key, handling)));
                Ok(())
            }
            Poll::Ready(ended) => {
                let finished = Finished {
                    key,
                    place,
                    retried: false,
                    ended,
                };
                self.finish(finished).await
            }
        }
    }

    /// Lets a handler go on.
    fn go_on(&mut self, running: Running) {
        self.running.push(match self.handler.has_tasks() {
            true => self.tasks.spawn(running),
            false => running,
        });
    }

    /// Starts an item, and the ones that wait behind it, as far as that needs no waiting.
    async fn start(&mut self, item: Item<L::Event>) -> Result<(), FollowError> {
        let mut next = Some(item);
        while let Some(item) = next.take() {
            let handling = Arc::clone(&self.handler).handle(item.prepared);
            let mut running: Running = Box::pin(finished(item.place, item.key, handling));
            if self.handler.has_tasks() {
                self.go_on(running);
                continue;
            }
            match poll_fn(|cx| Poll::Ready(running.poll_unpin(cx))).await {
                Poll::Pending => self.go_on(running),
                Poll::Ready(finished) => next = self.settle(finished)?,
            }
        }
        Ok(())
    }

    async fn finish(&mut self, finished: Finished) -> Result<(), FollowError> {
        match self.settle(finished)? {
            Some(next) => self.start(next).await,
            None => Ok(()),
        }
    }

    /// Records how an event ended, and returns the one that waits behind it.
    fn settle(&mut self, finished: Finished) -> Result<Option<Item<L::Event>>, FollowError> {
        let Finished {
            key,
            place,
            retried,
            ended,
        } = finished;
        match &ended {
            Ok(()) if place.timer.is_some() => {}
            Ok(()) => self.handled += 1,
            // It is still under way, or parked: the next run handles it.
            Err(failure) => match failure.interrupted {
                Some(Interrupted::Stopped) => return Ok(None),
                Some(Interrupted::Expired) => return Err(self.expired()),
                None => {}
            },
        }
        if retried {
            self.settle_retried(key, place.position, ended);
            return Ok(None);
        }
        if let Some(id) = &place.timer {
            if let Err(failure) = &ended {
                let reason = &failure.reason;
                tracing::error!(
                    consumer = L::NAME,
                    timer = id,
                    reason,
                    "timer failed, will be retried"
                );
            }
            self.timers.end(id, ended.is_err());
        } else if let Err(failure) = ended {
            self.park(key, &place, failure)?;
            return Ok(None);
        } else {
            self.under_way.remove(&place.position);
        }
        let next = self.waiting.get_mut(&key).and_then(VecDeque::pop_front);
        if next.is_none() {
            self.waiting.remove(&key);
        }
        Ok(next)
    }

    /// Parks an event that failed, and the ones that wait behind it.
    fn park(&mut self, key: String, place: &Place, failure: Failure) -> Result<(), FollowError> {
        let consumer = || L::NAME.to_owned();
        let Failure {
            attempts, reason, ..
        } = failure;
        let Place {
            position,
            stream,
            revision,
            ..
        } = place.clone();
        if !self.handler.settings.park {
            return Err(FollowError::Failed {
                consumer: consumer(),
                stream,
                revision,
                position,
                attempts,
                reason,
            });
        }
        let keys = self.parked.keys();
        if keys >= self.handler.settings.stop_at_parked_keys {
            return Err(FollowError::TooManyParked {
                consumer: consumer(),
                keys,
                position,
                reason,
            });
        }
        tracing::error!(consumer = L::NAME, %stream, %revision, %position, attempts, reason, "event parked");
        self.under_way.remove(&position);
        self.note_parked(position, key.clone(), reason, attempts);
        for item in self.waiting.remove(&key).unwrap_or_default() {
            if let Some(id) = &item.place.timer {
                self.timers.end(id, true);
                continue;
            }
            self.under_way.remove(&item.place.position);
            self.park_behind(item);
        }
        Ok(())
    }

    fn park_behind(&mut self, item: Item<L::Event>) {
        let key = item.key;
        let first = self.parked.first_of(&key).unwrap_or_default();
        let reason = format!("waits behind event {first} of its key");
        self.note_parked(item.place.position, key, reason, 0);
    }

    fn note_parked(&mut self, position: Position, key: String, reason: String, attempts: u32) {
        self.parked.insert(position, key.clone());
        self.has_parked = true;
        self.changes.push(ConsumerChange::Park(ParkedEvent {
            position,
            key,
            reason,
            attempts,
            time: system_time(),
            resolution: None,
        }));
    }

    /// Acts on operators' requests about parked events.
    async fn resolve(&mut self) -> Result<(), FollowError> {
        let list = ListParked {
            resolved: true,
            ..ListParked::default()
        };
        let resolved = self.consumers.parked(&self.claim.consumer, &list).await?;
        for event in resolved {
            let Some(key) = self.parked.key_of(event.position).cloned() else {
                continue;
            };
            if self.retrying.contains(&key) {
                // The next poll finds it again, when its key is handled or has failed again.
                continue;
            }
            match event.resolution {
                Some(Resolution::Skip) => {
                    tracing::warn!(consumer = L::NAME, position = %event.position, "parked event skipped");
                    self.parked.remove(event.position);
                    self.changes.push(ConsumerChange::Unpark(event.position));
                }
                Some(Resolution::Retry) => {
                    // The first of its key is tried; what was said of a later one is done with that.
                    let done = ParkedEvent {
                        resolution: None,
                        ..event
                    };
                    self.changes.push(ConsumerChange::Park(done));
                }
                None => continue,
            }
            self.retry_first_of(key);
        }
        Ok(())
    }

    /// Handles the first parked event of a key again.
    fn retry_first_of(&mut self, key: String) {
        let Some(position) = self.parked.first_of(&key) else {
            self.retrying.remove(&key);
            return;
        };
        self.retrying.insert(key.clone());
        let (handler, store) = (Arc::clone(&self.handler), self.store.clone());
        self.go_on(Box::pin(async move {
            let read = stored_event(&store, position).await;
            let (place, ended) = match read {
                Ok(Some(event)) => {
                    let prepared = handler.prepare(&event);
                    (Place::of(&event), handler.handle(prepared).await)
                }
                // What was scavenged needs no handling any more.
                Ok(None) => (Place::gone(position), Ok(())),
                Err(error) => {
                    let failure = Failure::new(0, &error.to_string());
                    (Place::gone(position), Err(failure))
                }
            };
            Finished {
                key,
                place,
                retried: true,
                ended,
            }
        }));
    }

    fn settle_retried(&mut self, key: String, position: Position, ended: Result<(), Failure>) {
        match ended {
            Ok(()) => {
                self.parked.remove(position);
                self.changes.push(ConsumerChange::Unpark(position));
                if *self.handler.progress.stopping.borrow() {
                    return;
                }
                self.retry_first_of(key);
            }
            Err(Failure {
                attempts, reason, ..
            }) => {
                self.retrying.remove(&key);
                self.note_parked(position, key, reason, attempts);
            }
        }
    }

    fn expired(&self) -> FollowError {
        FollowError::Consumer(ConsumerError::Lost {
            consumer: self.claim.consumer.clone(),
            term: self.claim.term,
            newest: self.claim.term,
        })
    }
}
