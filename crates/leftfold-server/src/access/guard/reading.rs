//! Reads, subscriptions and listings without what their caller may not see.
//!
//! **Owns:** leaving events out while limits still count what is given; ending with the credentials of the caller.
//! **Does not know:** which right an event needs.
//! **Invariants:** a read gives as many events as its limit allows and as there are to be seen; a subscription leaves events
//! out but no position, so that its checkpoints hold.

use std::time::Duration;

use futures_core::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use leftfold_model::{ConflictToken, Direction, Position, Read, ReadFrom, RecordedEvent, Scope};
use leftfold_store::{Delivery, ListStreams, ReadBatch, ReadError, StreamInfo, Subscription};
use tokio::{sync::watch, time::Instant};

use super::{Denied, GuardedStore};
use crate::{access::grant::Right, clock};

/// Events that the store reads beyond what a limited read asks for, so that a few hidden ones need no second read.
const SLACK: u64 = 64;

impl GuardedStore {
    /// Leaves out what the principal may not see; fails if its credentials have ended.
    fn retain_visible(&self, events: &mut Vec<RecordedEvent>) -> Result<(), ReadError> {
        let rights = self.access.directory.read();
        if !rights.is_current(&self.principal) {
            return Err(Denied(self.expired()).into());
        }
        events.retain(|event| rights.may_see(&self.principal, event));
        Ok(())
    }

    /// Whether the whole of a scope may be read, so that nothing has to be left out.
    fn reads_whole(&self, scope: &Scope) -> bool {
        let Scope::Stream(stream) = scope else {
            return false;
        };
        self.access
            .directory
            .read()
            .allows(&self.principal, Right::Read, stream)
    }
}

pub(super) fn read(
    guard: GuardedStore,
    read: Read,
) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
    if guard.reads_whole(&read.scope) {
        let batches = guard.access.store.read(read);
        return batches
            .map(move |batch| {
                let mut batch: ReadBatch = batch?;
                guard.retain_visible(&mut batch.events)?;
                Ok::<_, ReadError>(batch)
            })
            .scan(false, end_after_error)
            .boxed();
    }
    let begin = FilteredRead::new(guard, read);
    stream::try_unfold(Some(begin), |reading| async move {
        match reading {
            Some(reading) => reading.next().await,
            None => Ok(None),
        }
    })
    .boxed()
}

/// An error ends a stream.
fn end_after_error<T>(
    failed: &mut bool,
    item: Result<T, ReadError>,
) -> impl Future<Output = Option<Result<T, ReadError>>> + use<T> {
    let ended = *failed;
    *failed = item.is_err();
    std::future::ready((!ended).then_some(item))
}

/// A read of which events are left out.
struct FilteredRead {
    guard: GuardedStore,
    /// What is left to be read, without a limit.
    rest: Read,
    /// How many events are still to be given; `None`: all.
    remaining: Option<u64>,
    /// Under way at the store, with how many events it may still give.
    under_way: BoxStream<'static, Result<ReadBatch, ReadError>>,
    round: Option<u64>,
    /// Of the first batch.
    token: Option<ConflictToken>,
}

type Step = Option<(ReadBatch, Option<FilteredRead>)>;

impl FilteredRead {
    fn new(guard: GuardedStore, mut read: Read) -> Self {
        let remaining = read.limit.take();
        let round = remaining.map(|limit| {
            if limit == 0 {
                0
            } else {
                limit.saturating_add(SLACK)
            }
        });
        let under_way = guard.access.store.read(Read {
            limit: round,
            ..read.clone()
        });
        Self {
            guard,
            rest: read,
            remaining,
            under_way,
            round,
            token: None,
        }
    }

    /// The next batch that has something to be seen; the first batch in any case.
    async fn next(mut self) -> Result<Step, ReadError> {
        loop {
            let is_first = self.token.is_none();
            let Some(batch) = self.under_way.try_next().await? else {
                if !self.go_on() {
                    return Ok(None);
                }
                continue;
            };
            let token = *self.token.get_or_insert(batch.token);
            let mut events = batch.events;
            self.count(&events);
            if self.rest.direction == Direction::Forwards {
                // A later part of this read may see what was committed since it began.
                events.retain(|event| event.position <= token.seen_through());
            }
            self.guard.retain_visible(&mut events)?;
            if let Some(remaining) = &mut self.remaining {
                events.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= events.len() as u64;
            }
            if is_first || !events.is_empty() {
                let goes_on = self.remaining != Some(0);
                return Ok(Some((ReadBatch { events, token }, goes_on.then_some(self))));
            }
        }
    }

    /// Notes what the store gave.
    fn count(&mut self, events: &[RecordedEvent]) {
        if let Some(round) = &mut self.round {
            *round = round.saturating_sub(events.len() as u64);
        }
        if let Some(last) = events.last() {
            let next = match self.rest.direction {
                Direction::Forwards => last.position.get().checked_add(1),
                Direction::Backwards => last.position.get().checked_sub(1),
            };
            self.rest.from = ReadFrom::Position(Position::new(next.unwrap_or_default()));
        }
    }

    /// Reads on if the store ended because it gave as many events as it was asked for.
    fn go_on(&mut self) -> bool {
        let at_the_start = self.rest.from == ReadFrom::Position(Position::START);
        if self.round != Some(0) || self.remaining == Some(0) || at_the_start {
            return false;
        }
        // What is hidden is dense here, so the store need not stop so soon.
        self.round = None;
        self.under_way = self.guard.access.store.read(self.rest.clone());
        true
    }
}

pub(super) fn subscribe(
    guard: GuardedStore,
    subscription: Subscription,
) -> BoxStream<'static, Result<Delivery, ReadError>> {
    let expires = guard.access.directory.read().expiry(&guard.principal);
    let begin = Subscribed {
        expires: expires.map(|expires| Instant::now() + until(expires)),
        changes: guard.access.directory.changes(),
        deliveries: guard.access.store.subscribe(subscription.clone()),
        scope: subscription.scope,
        guard,
    };
    stream::try_unfold(begin, Subscribed::next).boxed()
}

/// How long it is until then.
pub(super) fn until(expires: Timestamp) -> Duration {
    let now = Timestamp::try_from(clock::now()).unwrap_or(Timestamp::MAX);
    Duration::try_from(expires.duration_since(now)).unwrap_or_default()
}

/// A subscription that ends with the rights of its caller.
struct Subscribed {
    guard: GuardedStore,
    scope: Scope,
    deliveries: BoxStream<'static, Result<Delivery, ReadError>>,
    changes: watch::Receiver<u64>,
    expires: Option<Instant>,
}

impl Subscribed {
    async fn next(mut self) -> Result<Option<(Delivery, Self)>, ReadError> {
        loop {
            let expires = self.expires;
            let expired = async move {
                match expires {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = expired => return Err(Denied(self.guard.expired()).into()),
                // It cannot be closed, for the guard holds the directory.
                _ = self.changes.changed() => self.guard.check_selection(&self.scope)?,
                delivery = self.deliveries.next() => {
                    let Some(delivery) = delivery else { return Ok(None) };
                    let mut delivery = delivery?;
                    self.guard.retain_visible(&mut delivery.events)?;
                    return Ok(Some((delivery, self)));
                }
            }
        }
    }
}

pub(super) fn streams(
    guard: GuardedStore,
    mut list: ListStreams,
) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
    let remaining = list.limit.take();
    let pages = guard.access.store.streams(list);
    let begin = (guard, pages, remaining);
    stream::try_unfold(begin, |(guard, mut pages, mut remaining)| async move {
        loop {
            if remaining == Some(0) {
                return Ok(None);
            }
            let Some(mut page) = pages.try_next().await? else {
                return Ok(None);
            };
            {
                let rights = guard.access.directory.read();
                if !rights.is_current(&guard.principal) {
                    return Err(Denied(guard.expired()).into());
                }
                page.retain(|info| rights.allows(&guard.principal, Right::Read, &info.stream));
            }
            if let Some(remaining) = &mut remaining {
                page.truncate(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= page.len() as u64;
            }
            if !page.is_empty() {
                return Ok(Some((page, (guard, pages, remaining))));
            }
        }
    })
    .boxed()
}
