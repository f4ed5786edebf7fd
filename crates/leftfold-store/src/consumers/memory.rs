//! Consumers in memory: the plainest implementation of the contract.
//!
//! **Owns:** [`MemoryConsumers`]. **Does not know:** files.
//! **Invariants:** one lock around everything, so a call happens whole or not at all.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_core::future::BoxFuture;
use leftfold_model::{Position, Timestamp};

use super::{
    Claim, ClaimRequest, ConsumerChange, ConsumerError, ConsumerName, ConsumerStatus, Consumers,
    LIST_MAX, ListParked, PARKED_MAX, ParkedEvent, Resolution, Timer, lease::Leases,
    value::check_ttl,
};
use crate::clock::system_time;

/// Consumers in memory. What is kept is gone when it is dropped.
pub struct MemoryConsumers {
    state: Mutex<State>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    consumers: BTreeMap<ConsumerName, Consumer>,
    /// The newest terms of consumers that were removed.
    former_terms: BTreeMap<ConsumerName, u64>,
    leases: Leases,
}

#[derive(Debug)]
struct Consumer {
    position: Position,
    term: u64,
    time: Timestamp,
    parked: BTreeMap<Position, ParkedEvent>,
    timers: BTreeMap<String, Timer>,
}

impl fmt::Debug for MemoryConsumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryConsumers")
            .field("consumers", &self.lock().consumers.len())
            .finish()
    }
}

impl Default for MemoryConsumers {
    fn default() -> Self {
        Self::with_clock(system_time)
    }
}

impl MemoryConsumers {
    /// Creates an empty store of consumers, whose checkpoints are dated by this clock.
    pub fn with_clock(clock: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            state: Mutex::default(),
            clock: Arc::new(clock),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claimed(&self, request: &ClaimRequest) -> Result<Claim, ConsumerError> {
        request.check()?;
        let time = (self.clock)();
        let mut state = self.lock();
        let held = state.leases.is_held_by(request)?;
        let former = state.former_terms.remove(&request.consumer);
        let consumer = state
            .consumers
            .entry(request.consumer.clone())
            .or_insert_with(|| Consumer {
                position: request.start,
                term: former.unwrap_or_default(),
                time,
                parked: BTreeMap::new(),
                timers: BTreeMap::new(),
            });
        consumer.term += u64::from(!held);
        let claim = Claim {
            consumer: request.consumer.clone(),
            holder: request.holder.clone(),
            term: consumer.term,
            position: consumer.position,
        };
        state
            .leases
            .hold(&request.consumer, &request.holder, request.ttl);
        Ok(claim)
    }

    fn advanced(
        &self,
        claim: &Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> Result<(), ConsumerError> {
        ConsumerChange::check_all(&changes)?;
        let time = (self.clock)();
        let mut state = self.lock();
        let consumer = state.claimed_consumer(claim)?;
        if !claim.check_advance(consumer.position, to)? {
            return Ok(());
        }
        let parked = consumer.parked_after(&changes);
        if parked > PARKED_MAX {
            return Err(ConsumerError::Full {
                consumer: claim.consumer.clone(),
                limit: PARKED_MAX,
            });
        }
        for change in changes {
            consumer.change(change);
        }
        consumer.position = to;
        consumer.time = time;
        Ok(())
    }
}

impl State {
    /// The consumer of a claim that is still good.
    fn claimed_consumer(&mut self, claim: &Claim) -> Result<&mut Consumer, ConsumerError> {
        let former = self.former_terms.get(&claim.consumer).copied();
        let Some(consumer) = self.consumers.get_mut(&claim.consumer) else {
            return Err(ConsumerError::Lost {
                consumer: claim.consumer.clone(),
                term: claim.term,
                newest: former.unwrap_or_default(),
            });
        };
        claim.check_term(consumer.term)?;
        Ok(consumer)
    }

    fn known(&mut self, name: &ConsumerName) -> Result<&mut Consumer, ConsumerError> {
        let consumer = self.consumers.get_mut(name);
        consumer.ok_or_else(|| ConsumerError::NotFound {
            consumer: name.clone(),
        })
    }

    fn status(&self, name: &ConsumerName, consumer: &Consumer) -> ConsumerStatus {
        ConsumerStatus {
            consumer: name.clone(),
            position: consumer.position,
            term: consumer.term,
            holder: self.leases.holder(name),
            parked: consumer.parked.len() as u64,
            timers: consumer.timers.len() as u64,
            time: consumer.time,
        }
    }
}

impl Consumer {
    /// How many events are parked once these changes are made.
    fn parked_after(&self, changes: &[ConsumerChange]) -> u64 {
        let mut touched = BTreeMap::new();
        for change in changes {
            match change {
                ConsumerChange::Park(event) => touched.insert(event.position, true),
                ConsumerChange::Unpark(position) => touched.insert(*position, false),
                ConsumerChange::SetTimer(_) | ConsumerChange::CancelTimer(_) => None,
            };
        }
        let mut parked = self.parked.len() as u64;
        for (position, stays) in touched {
            match (self.parked.contains_key(&position), stays) {
                (false, true) => parked += 1,
                (true, false) => parked -= 1,
                _ => {}
            }
        }
        parked
    }

    fn change(&mut self, change: ConsumerChange) {
        match change {
            ConsumerChange::Park(mut event) => {
                event.resolution = None;
                self.parked.insert(event.position, event);
            }
            ConsumerChange::Unpark(position) => {
                self.parked.remove(&position);
            }
            ConsumerChange::SetTimer(timer) => {
                self.timers.insert(timer.id.clone(), timer);
            }
            ConsumerChange::CancelTimer(id) => {
                self.timers.remove(&id);
            }
        }
    }
}

impl Consumers for MemoryConsumers {
    fn claim<'a>(
        &'a self,
        request: &'a ClaimRequest,
    ) -> BoxFuture<'a, Result<Claim, ConsumerError>> {
        Box::pin(async move { self.claimed(request) })
    }

    fn renew<'a>(
        &'a self,
        claim: &'a Claim,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            check_ttl(ttl)?;
            let mut state = self.lock();
            state.claimed_consumer(claim)?;
            state.leases.hold(&claim.consumer, &claim.holder, ttl);
            Ok(())
        })
    }

    fn release<'a>(&'a self, claim: &'a Claim) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let mut state = self.lock();
            if state.claimed_consumer(claim).is_ok() {
                state.leases.end(&claim.consumer);
            }
            Ok(())
        })
    }

    fn advance<'a>(
        &'a self,
        claim: &'a mut Claim,
        to: Position,
        changes: Vec<ConsumerChange>,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            self.advanced(claim, to, changes)?;
            claim.position = to;
            Ok(())
        })
    }

    fn due_timers<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        now: Timestamp,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Timer>, ConsumerError>> {
        Box::pin(async move {
            let state = self.lock();
            let timers = state.consumers.get(consumer).map(|c| c.timers.values());
            let due = timers
                .into_iter()
                .flatten()
                .filter(|timer| timer.due <= now);
            let mut due: Vec<_> = due.cloned().collect();
            due.sort_by(|a, b| (a.due, &a.id).cmp(&(b.due, &b.id)));
            due.truncate(limit.min(LIST_MAX));
            Ok(due)
        })
    }

    fn parked<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        list: &'a ListParked,
    ) -> BoxFuture<'a, Result<Vec<ParkedEvent>, ConsumerError>> {
        Box::pin(async move {
            let state = self.lock();
            let parked = state.consumers.get(consumer).map(|c| c.parked.values());
            let chosen = parked.into_iter().flatten().filter(|e| list.selects(e));
            Ok(chosen.take(list.limit.min(LIST_MAX)).cloned().collect())
        })
    }

    fn resolve<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        position: Position,
        resolution: Resolution,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let mut state = self.lock();
            let parked = state.known(consumer)?.parked.get_mut(&position);
            let parked = parked.ok_or_else(|| ConsumerError::NotParked {
                consumer: consumer.clone(),
                position,
            })?;
            parked.resolution = Some(resolution);
            Ok(())
        })
    }

    fn status<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<Option<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let state = self.lock();
            let found = state.consumers.get(consumer);
            Ok(found.map(|found| state.status(consumer, found)))
        })
    }

    fn list<'a>(
        &'a self,
        after: Option<&'a ConsumerName>,
    ) -> BoxFuture<'a, Result<Vec<ConsumerStatus>, ConsumerError>> {
        Box::pin(async move {
            let state = self.lock();
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let behind = state
                .consumers
                .range::<ConsumerName, _>((from, Bound::Unbounded));
            Ok(behind
                .take(LIST_MAX)
                .map(|(name, consumer)| state.status(name, consumer))
                .collect())
        })
    }

    fn reset<'a>(
        &'a self,
        consumer: &'a ConsumerName,
        to: Position,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let time = (self.clock)();
            let mut state = self.lock();
            let known = state.known(consumer)?;
            known.term += 1;
            known.position = to;
            known.time = time;
            known.parked.retain(|position, _| *position <= to);
            state.leases.end(consumer);
            Ok(())
        })
    }

    fn remove<'a>(
        &'a self,
        consumer: &'a ConsumerName,
    ) -> BoxFuture<'a, Result<(), ConsumerError>> {
        Box::pin(async move {
            let mut state = self.lock();
            if let Some((holder, remaining)) = state.leases.holder(consumer) {
                let consumer = consumer.clone();
                return Err(ConsumerError::Held {
                    consumer,
                    holder,
                    remaining,
                });
            }
            if let Some(removed) = state.consumers.remove(consumer) {
                state
                    .former_terms
                    .insert(consumer.clone(), removed.term + 1);
            }
            Ok(())
        })
    }
}
