//! One group while it runs: from the log to consumers, and from their answers to the checkpoint.
//!
//! **Owns:** [`Running`]: reading, sending, writing progress down, the end. **Does not know:** wires; who gets what.
//! **Invariants:**
//! - One call to the consumers of the store is under way at a time, under the claim.
//! - A group that lost its claim sends nothing more.
//! - Commands and events are taken while progress is being written down.

mod schedule;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use leftfold_model::{Position, Scope};
use leftfold_store::{
    Delivery, ReadError, Subscription,
    consumers::{Claim, ConsumerError},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    catalog,
    command::{
        Command, ConnectionInput, ConsumerInfo, ConsumerStatistics, GroupStatistics, Joined,
    },
    definition::GroupDefinition,
    error::GroupError,
    group_run::GroupRun,
    message::{ConsumerKey, DeliveredMessage, Message, NackAction},
    progress::{Call, CallOutcome, Requested, time_now},
    queue::GroupQueue,
    source::{Batch, Selection},
};

/// How long a group runs on without consumers.
const LINGER: Duration = Duration::from_secs(30);
/// Parked events that are delivered again at a time.
const REPLAYED_AT_ONCE: usize = 100;
/// How long a call that failed is not tried again.
const BACKOFF: Duration = Duration::from_secs(1);
/// Commands that are taken at once.
const COMMANDS_AT_ONCE: usize = 512;
/// How long the end waits for the store.
const END_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Outlet {
    info: ConsumerInfo,
    deliveries: mpsc::Sender<Result<DeliveredMessage, GroupError>>,
}

/// Why a group stops running.
#[derive(Debug)]
enum End {
    /// It has no consumers.
    Idle,
    /// The server stops.
    Stopping,
    /// An operator restarts all groups.
    Restarted,
    /// The group was deleted.
    Deleted,
    /// It cannot go on.
    Failed(GroupError),
}

/// A group that holds its claim.
pub(super) struct Running {
    run: GroupRun,
    selection: Arc<Selection>,
    queue: GroupQueue,
    outlets: BTreeMap<ConsumerKey, Outlet>,
    next_key: ConsumerKey,
    /// `None` while a call is under way.
    claim: Option<Claim>,
    call: Option<Call>,
    batches: BoxStream<'static, Result<Batch, GroupError>>,
    definitions: BoxStream<'static, Result<Delivery, ReadError>>,
    saved: Position,
    saved_at: Instant,
    renewed_at: Instant,
    looked_at: Instant,
    look_now: bool,
    alone_since: Option<Instant>,
    /// No call begins before this.
    not_before: Instant,
    caught_up: bool,
    trouble: Option<String>,
}

/// Changes of the definition, those that were made before included.
fn definitions(run: &GroupRun) -> BoxStream<'static, Result<Delivery, ReadError>> {
    match run.definition.id.definition_stream() {
        Ok(stream) => {
            let changes = Subscription::default().scope(Scope::Stream(stream));
            run.store.subscribe(changes)
        }
        // Its name was valid when the definition was read.
        Err(_) => stream::pending().boxed(),
    }
}

/// A stream that begins a little later.
fn later<T: Send + 'static>(next: BoxStream<'static, T>) -> BoxStream<'static, T> {
    let begun = async move {
        sleep(BACKOFF).await;
        next
    };
    stream::once(begun).flatten().boxed()
}

/// The outcome of a call, once there is one.
async fn outcome(call: &mut Option<Call>) -> (Claim, CallOutcome) {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

impl Running {
    /// A group that begins behind the position of its claim. What is parked behind it is not read again.
    pub(super) fn new(
        run: GroupRun,
        (selection, claim): (Arc<Selection>, Claim),
        parked: Vec<Position>,
    ) -> Self {
        let now = Instant::now();
        let after = claim.position;
        let retries = run.registry.former_retries(&run.consumer);
        let settings = run.definition.settings.clone();
        let mut queue = GroupQueue::new(settings, after, retries, now);
        queue.pass_over(parked);
        Self {
            batches: selection.subscribe(&run.store, after),
            definitions: definitions(&run),
            selection,
            queue,
            outlets: BTreeMap::new(),
            next_key: 0,
            saved: after,
            claim: Some(claim),
            call: None,
            saved_at: now,
            renewed_at: now,
            looked_at: now,
            look_now: true,
            alone_since: Some(now),
            not_before: now,
            caught_up: false,
            trouble: None,
            run,
        }
    }

    /// Runs the group to its end.
    pub(super) async fn run(mut self) {
        let end = self.run_to_end().await;
        self.finish(end).await;
    }

    async fn run_to_end(&mut self) -> End {
        let stopping = self.run.registry.stopping.clone();
        let mut commands = Vec::with_capacity(COMMANDS_AT_ONCE);
        loop {
            self.send();
            self.begin_call();
            let reads = self.queue.wants_more(self.run.registry.buffer_bytes());
            let wake = self.wake();
            let ended = tokio::select! {
                biased;
                () = stopping.cancelled() => Some(End::Stopping),
                (claim, outcome) = outcome(&mut self.call) => self.called(claim, outcome),
                count = self.run.inbox.recv_many(&mut commands, COMMANDS_AT_ONCE) => {
                    if count == 0 {
                        return End::Idle;
                    }
                    self.obey(&mut commands)
                }
                change = self.definitions.next() => self.redefined(change),
                batch = self.batches.next(), if reads => self.take(batch),
                () = sleep_until(wake) => self.retired(),
            };
            if let Some(end) = ended {
                return end;
            }
        }
    }

    /// Sends what may be sent; drops consumers that take nothing.
    fn send(&mut self) {
        let now = Instant::now();
        self.queue.expire(now);
        loop {
            let mut gone = Vec::new();
            for (key, message) in self.queue.dispatch(now) {
                let outlet = self.outlets.get(&key);
                let sent = outlet.is_some_and(|it| it.deliveries.try_send(Ok(message)).is_ok());
                if !sent {
                    gone.push(key);
                }
            }
            if gone.is_empty() {
                return;
            }
            for key in gone {
                self.leave(key, "it takes no events");
            }
        }
    }

    fn leave(&mut self, key: ConsumerKey, reason: &str) {
        self.queue.disconnect(key);
        if let Some(outlet) = self.outlets.remove(&key) {
            // One that is full is told by the end of its channel.
            let _ = outlet.deliveries.try_send(Err(self.dropped(reason)));
        }
        if self.outlets.is_empty() {
            self.alone_since = Some(Instant::now());
        }
    }

    fn dropped(&self, reason: &str) -> GroupError {
        GroupError::Dropped {
            group: self.run.definition.id.clone(),
            reason: reason.to_owned(),
        }
    }

    fn called(&mut self, claim: Claim, outcome: CallOutcome) -> Option<End> {
        self.call = None;
        let failed = match outcome {
            CallOutcome::Saved(Ok(()), changes) => {
                self.saved = claim.position;
                self.queue.saved(&changes);
                None
            }
            CallOutcome::Renewed(Ok(())) => {
                self.renewed_at = Instant::now();
                None
            }
            CallOutcome::Parked(Ok(requested)) => {
                self.look_now |= requested.len() == REPLAYED_AT_ONCE;
                self.settle(requested);
                None
            }
            CallOutcome::Saved(Err(error), _) | CallOutcome::Renewed(Err(error)) => {
                Some(GroupError::from(error))
            }
            CallOutcome::Parked(Err(error)) => Some(error),
        };
        self.claim = Some(claim);
        match failed {
            None => {
                self.trouble = None;
                None
            }
            Some(error) => self.failed(error),
        }
    }

    fn settle(&mut self, requested: Vec<Requested>) {
        for request in requested {
            match request {
                Requested::Replay(message) => self.queue.replay(Message {
                    replayed: true,
                    ..*message
                }),
                Requested::Unpark(position) => self.queue.unpark(position),
            }
        }
    }

    /// What becomes of a group whose call or read failed: it ends, or tries again later.
    fn failed(&mut self, error: GroupError) -> Option<End> {
        let is_passing = match &error {
            GroupError::Consumers(error) => error.is_transient(),
            GroupError::Read(ReadError::Unavailable { .. }) => true,
            _ => false,
        };
        if !is_passing {
            return Some(End::Failed(error));
        }
        let text = error.to_string();
        if self.trouble.as_ref() != Some(&text) {
            let group = &self.run.definition.id;
            tracing::warn!(%group, error = &error as &dyn std::error::Error, "group progress not saved");
        }
        self.trouble = Some(text);
        self.not_before = Instant::now() + BACKOFF;
        None
    }

    fn obey(&mut self, commands: &mut Vec<Command>) -> Option<End> {
        let now = Instant::now();
        for command in commands.drain(..) {
            match command {
                Command::Connect { input, reply } => self.join(input, reply, now),
                Command::Ack(ids) => self.queue.ack(&ids, now),
                Command::Nack {
                    key,
                    ids,
                    action,
                    reason,
                } => {
                    self.queue.nack(key, &ids, action, &reason);
                    if action == NackAction::Stop {
                        self.leave(key, "it asked to be stopped");
                    }
                }
                Command::Disconnect(key) => self.leave(key, "it left"),
                Command::Statistics(reply) => {
                    // One who does not wait any more is not told.
                    let _ = reply.send(self.statistics(now));
                }
                Command::LookAtParked => self.look_now = true,
                Command::Restart => return Some(End::Restarted),
            }
        }
        None
    }

    fn join(
        &mut self,
        input: ConnectionInput,
        reply: oneshot::Sender<Result<Joined, GroupError>>,
        now: Instant,
    ) {
        let max = self.queue.settings().max_subscriber_count;
        let count = u32::try_from(self.outlets.len()).unwrap_or(u32::MAX);
        if max > 0 && count >= max {
            let group = self.run.definition.id.clone();
            let _ = reply.send(Err(GroupError::SubscribersMax { group, max }));
            return;
        }
        self.next_key += 1;
        let key = self.next_key;
        // A consumer whose events time out before it takes them is sent others; a few of those have room.
        let (sender, deliveries) = mpsc::channel(2 * input.window + 1);
        if reply.send(Ok(Joined { key, deliveries })).is_err() {
            return;
        }
        let outlet = Outlet {
            info: input.info,
            deliveries: sender,
        };
        self.outlets.insert(key, outlet);
        self.queue.connect(key, input.window, now);
        self.alone_since = None;
        self.look_now = true;
    }

    fn statistics(&mut self, now: Instant) -> GroupStatistics {
        let mut consumers = Vec::with_capacity(self.outlets.len());
        let mut keys: Vec<_> = self.outlets.keys().copied().collect();
        keys.sort_unstable();
        for key in keys {
            let outlet = self.outlets.get(&key);
            let (Some(outlet), Some(consumer)) = (outlet, self.queue.consumer(key)) else {
                continue;
            };
            consumers.push(ConsumerStatistics {
                info: outlet.info.clone(),
                total: consumer.throughput.total,
                since_last: consumer.throughput.since_last(),
                per_second: consumer.throughput.per_second(now),
                free: consumer.free(),
                in_flight: consumer.in_flight(),
                measurements: consumer.latencies.measurements(),
            });
        }
        let (pending, retrying, in_flight) = self.queue.counts();
        let throughput = &mut self.queue.throughput;
        GroupStatistics {
            consumers,
            caught_up: self.caught_up,
            total: throughput.total,
            since_last: throughput.since_last(),
            per_second: throughput.per_second(now),
            pending,
            retrying,
            in_flight,
            replaying: self.queue.replaying().len() as u64,
            trouble: self.trouble.clone(),
        }
    }

    fn take(&mut self, batch: Option<Result<Batch, GroupError>>) -> Option<End> {
        let batch = match batch {
            None => return Some(End::Stopping),
            Some(Err(error)) => {
                // A subscription is over after an error; another one goes on where it stood.
                let after = self.queue.read_position();
                let next = self.selection.subscribe(&self.run.store, after);
                self.batches = later(next);
                return self.failed(error);
            }
            Some(Ok(batch)) => batch,
        };
        self.caught_up = batch.caught_up;
        for message in batch.messages {
            self.queue.offer(message);
        }
        self.queue.read_through(batch.through);
        None
    }

    fn redefined(&mut self, change: Option<Result<Delivery, ReadError>>) -> Option<End> {
        let events = match change {
            None => return Some(End::Stopping),
            Some(Err(ReadError::StreamDeleted { .. })) => return Some(End::Deleted),
            Some(Err(_)) => {
                self.definitions = later(definitions(&self.run));
                return None;
            }
            Some(Ok(delivery)) => delivery.events,
        };
        let own = self.run.definition.incarnation;
        let newest = events.iter().rfind(|event| event.revision >= own)?;
        match catalog::change(newest) {
            Ok(Some(definition)) if definition.incarnation == own => {
                self.apply(definition);
                None
            }
            Ok(_) => Some(End::Deleted),
            Err(error) => Some(End::Failed(error)),
        }
    }

    /// Goes on with other settings. Consumers stay.
    fn apply(&mut self, definition: GroupDefinition) {
        if definition.settings == self.run.definition.settings {
            return;
        }
        self.selection = Arc::new(self.selection.with_settings(&definition.settings));
        let after = self.queue.read_position();
        self.batches = self.selection.subscribe(&self.run.store, after);
        self.queue.set(definition.settings.clone());
        self.run.definition = definition;
    }

    /// Ends the group if it has had no consumers for long.
    fn retired(&mut self) -> Option<End> {
        let alone = self.alone_since?;
        if Instant::now() < alone + LINGER || self.call.is_some() {
            return None;
        }
        let GroupRun {
            registry,
            inbox,
            definition,
            serial,
            ..
        } = &mut self.run;
        registry
            .retire(&definition.id, *serial, inbox)
            .then_some(End::Idle)
    }

    /// Tells consumers why they are dropped, writes down how far the group came, and gives the claim back.
    async fn finish(mut self, end: End) {
        let group = self.run.definition.id.clone();
        // Who joins from now on starts the group again.
        self.run.registry.remove(&group, self.run.serial);
        self.run.inbox.close();
        let is_deleted = matches!(end, End::Deleted);
        let error = self.reason(end);
        let now = Instant::now();
        while let Ok(command) = self.run.inbox.try_recv() {
            match command {
                Command::Ack(ids) => self.queue.ack(&ids, now),
                command => command.refuse(&error),
            }
        }
        for outlet in std::mem::take(&mut self.outlets).into_values() {
            // A consumer that is full is told by the end of its channel.
            let _ = outlet.deliveries.try_send(Err(error.clone()));
        }
        if timeout(END_WITHIN, self.give_back(is_deleted))
            .await
            .is_err()
        {
            tracing::warn!(%group, "group claim not released: the store does not answer");
        }
        let retries = self.queue.retries();
        let GroupRun {
            registry, consumer, ..
        } = &self.run;
        if !is_deleted {
            registry.keep_retries(consumer, retries);
        }
    }

    /// What consumers are told of the end.
    fn reason(&self, end: End) -> GroupError {
        let group = &self.run.definition.id;
        match end {
            End::Idle | End::Stopping => GroupError::Stopping,
            End::Restarted => self.dropped("all groups are restarted"),
            End::Deleted => self.dropped("it was deleted"),
            End::Failed(error) => {
                tracing::warn!(%group, error = &error as &dyn std::error::Error, "group ended");
                match error {
                    GroupError::Consumers(ConsumerError::Lost { .. }) => {
                        self.dropped("another server acts for it")
                    }
                    error => error,
                }
            }
        }
    }

    async fn give_back(&mut self, is_deleted: bool) {
        if let Some(call) = self.call.take() {
            let (claim, outcome) = call.await;
            // What it came to matters only for what is written now.
            let _ = self.called(claim, outcome);
        }
        let Some(mut claim) = self.claim.take() else {
            return;
        };
        let consumers = self.run.store.consumers();
        let progress = self.queue.progress(claim.position, time_now());
        let has_news = progress.checkpoint > claim.position || !progress.changes.is_empty();
        let ended = async {
            if has_news && !is_deleted {
                let to = progress.checkpoint;
                consumers.advance(&mut claim, to, progress.changes).await?;
            }
            consumers.release(&claim).await?;
            if is_deleted {
                consumers.remove(&claim.consumer).await?;
            }
            Ok::<_, ConsumerError>(())
        };
        if let Err(error) = ended.await {
            let group = &self.run.definition.id;
            tracing::warn!(%group, error = &error as &dyn std::error::Error, "group progress not saved");
        }
    }
}
