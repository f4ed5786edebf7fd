//! The newest commits, and the subscriptions that follow them.
//!
//! **Owns:** [`Tail`]: a cache of the newest commits, the task that polls for those of other processes, and subscriptions.
//! **Does not know:** appends.
//! **Invariants:** events are delivered in the order of positions after the checkpoint; all caught-up subscribers share one
//! poll of the server; a commit that is missing in the cache is read from the server, so losing one costs time only; a log
//! that lost commits ends every subscription with an error, because waiting for its head to return would skip events.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{Position, RecordedEvent};
use leftfold_store::{Delivery, ReadError, Subscription};
use mongodb::bson::doc;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    document::{CommitDocument, to_i64, to_u64},
    error::Failure,
    log::{Log, Newest, Order},
    query::selects,
    read::{Reader, Selection},
};

/// Maximum bytes of cached commits.
const TAIL_BYTES: usize = 8 * 1024 * 1024;
/// Maximum events of a delivery.
const DELIVERY_EVENTS: usize = 1_024;

/// The known end of the log.
#[derive(Debug, Clone, Default)]
struct Head {
    position: Position,
    /// The newest commit that was seen, which later ones must continue from.
    newest: Option<Newest>,
    closed: bool,
    /// How often polling failed: a subscription that began before the last time has to end.
    failures: u64,
    /// Why it failed last: the server could not be reached for longer than the options allow, or it lost commits.
    failed: Option<Failure>,
}

/// A cached commit.
#[derive(Debug)]
struct Recent {
    number: i64,
    first: Position,
    last: Position,
    bytes: usize,
    events: Vec<RecordedEvent>,
}

#[derive(Debug, Default)]
struct Commits {
    /// Adjacent commits, oldest first.
    recent: VecDeque<Arc<Recent>>,
    bytes: usize,
    /// Whether the task that polls for commits of other processes is running.
    polling: bool,
}

/// The newest commits and the position of the last one.
#[derive(Debug)]
pub(crate) struct Tail {
    log: Log,
    head: watch::Sender<Head>,
    commits: Mutex<Commits>,
    weak_self: Weak<Self>,
}

impl Tail {
    pub(crate) fn new(log: Log) -> Arc<Self> {
        Arc::new_cyclic(|weak_self| Self {
            log,
            head: watch::channel(Head::default()).0,
            commits: Mutex::default(),
            weak_self: Weak::clone(weak_self),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Commits> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn close(&self) {
        self.head.send_modify(|head| head.closed = true);
    }

    /// Adds a commit that a majority of the servers has.
    pub(crate) fn push(&self, commit: CommitDocument) {
        // A commit whose payload is stored apart is read when a reader needs it.
        let apart = commit.events.iter().any(|event| event.payload.is_some());
        let (number, last) = (commit.number, commit.last);
        let newest = Newest::of(&commit);
        let recent = if apart {
            Ok(None)
        } else {
            recent(commit).map(Some)
        };
        {
            let mut commits = self.lock();
            match (commits.recent.back(), recent) {
                (Some(newest), _) if newest.number >= number => {}
                (Some(newest), Ok(Some(recent))) if newest.number + 1 == number => {
                    commits.add(recent);
                }
                (None, Ok(Some(recent))) => commits.add(recent),
                (_, recent) => {
                    commits.recent.clear();
                    commits.bytes = 0;
                    if let Ok(Some(recent)) = recent {
                        commits.add(recent);
                    }
                }
            }
        }
        self.note(newest, Position::new(to_u64(last).unwrap_or_default()));
    }

    fn advance(&self, position: Position) {
        self.head.send_if_modified(|head| {
            let moved = position > head.position;
            head.position = head.position.max(position);
            moved
        });
    }

    /// Returns the cached commits after a position, if all of them are cached.
    fn after(&self, position: Position) -> Option<Vec<Arc<Recent>>> {
        let commits = self.lock();
        let oldest = commits.recent.front()?;
        if position.next() < oldest.first {
            return None;
        }
        let begin = commits
            .recent
            .partition_point(|commit| commit.last <= position);
        Some(commits.recent.iter().skip(begin).cloned().collect())
    }

    /// Subscribes to the head, and starts the polling task if it is not running.
    fn watch(&self) -> watch::Receiver<Head> {
        let receiver = self.head.subscribe();
        let mut commits = self.lock();
        if !commits.polling
            && let Some(tail) = self.weak_self.upgrade()
        {
            commits.polling = true;
            tokio::spawn(tail.poll());
        }
        receiver
    }

    /// Polls for commits of other processes as long as there are subscriptions.
    async fn poll(self: Arc<Self>) {
        let mut answered = Instant::now();
        loop {
            {
                let mut commits = self.lock();
                if self.head.receiver_count() == 0 || self.head.borrow().closed {
                    commits.polling = false;
                    return;
                }
            }
            match self.poll_once().await {
                Ok(()) => answered = Instant::now(),
                Err(failure) => {
                    tracing::debug!(%failure, "new commits not read");
                    // A shorter log may be that of a server that lags behind; another commit in the place of a known one is not.
                    let is_proven = matches!(&failure, Failure::HeadWentBack { known, found } if found >= known);
                    if is_proven || answered.elapsed() > self.log.options().reconnect_timeout {
                        self.fail(failure);
                        return;
                    }
                }
            }
            tokio::select! {
                () = sleep(self.log.options().poll_interval) => {}
                () = self.head.closed() => {}
            }
        }
    }

    /// Ends polling, and every subscription that waits. What is cached belongs to a log that may be gone.
    fn fail(&self, failure: Failure) {
        let mut commits = self.lock();
        commits.polling = false;
        commits.recent.clear();
        commits.bytes = 0;
        drop(commits);
        self.head.send_modify(|head| {
            head.position = Position::START;
            head.newest = None;
            head.failures += 1;
            head.failed = Some(failure);
        });
    }

    async fn poll_once(&self) -> Result<(), Failure> {
        let (position, seen) = {
            let head = self.head.borrow();
            (head.position, head.newest.clone())
        };
        let newest = self.log.newest().await?;
        let found = match &newest {
            Some(newest) => Position::new(to_u64(newest.last)?),
            None => Position::START,
        };
        let went_back = || Failure::HeadWentBack {
            known: position,
            found,
        };
        match (&seen, &newest) {
            (None, Some(_)) if found < position => return Err(went_back()),
            (None, Some(newest)) => {
                if position > Position::START {
                    self.push_after(position).await?;
                }
                self.note(newest.clone(), found);
            }
            (None, None) => {}
            (Some(_), None) => return Err(went_back()),
            (Some(seen), Some(newest)) if newest == seen => {}
            (Some(seen), Some(newest)) if newest.number <= seen.number => {
                return Err(went_back());
            }
            (Some(seen), Some(newest)) => {
                // The commit that was the newest is still the one that the log continues from.
                let identity = self.log.identity(seen.number).await?;
                if identity.as_ref() != Some(&seen.identity) {
                    return Err(went_back());
                }
                self.push_after(Position::new(to_u64(seen.last)?)).await?;
                self.note(newest.clone(), found);
            }
        }
        Ok(())
    }

    /// Caches the commits behind a position, as many as a page holds.
    async fn push_after(&self, position: Position) -> Result<(), Failure> {
        let filter = doc! { "last": { "$gt": to_i64(position.get()) } };
        let page = self.log.page(filter, Order::OldestFirst).await?;
        for commit in page.commits {
            self.push(commit);
        }
        Ok(())
    }

    /// Takes note of the newest commit, which later polls must find again.
    fn note(&self, newest: Newest, position: Position) {
        self.head.send_modify(|head| {
            let known = head.newest.as_ref().map(|known| known.number);
            if known < Some(newest.number) {
                head.newest = Some(newest);
            }
        });
        self.advance(position);
    }
}

impl Commits {
    fn add(&mut self, recent: Recent) {
        self.bytes += recent.bytes;
        self.recent.push_back(Arc::new(recent));
        while self.bytes > TAIL_BYTES
            && let Some(oldest) = self.recent.pop_front()
        {
            self.bytes -= oldest.bytes;
        }
    }
}

fn recent(commit: CommitDocument) -> Result<Recent, Failure> {
    let (number, first, last) = (commit.number, to_u64(commit.first)?, to_u64(commit.last)?);
    let size = |event: &RecordedEvent| {
        event.data.len()
            + event.metadata.len()
            + event.stream.as_str().len()
            + size_of::<RecordedEvent>()
    };
    let events: Result<Vec<_>, _> = commit
        .events
        .into_iter()
        .filter(|event| !event.erased)
        .map(crate::document::EventDocument::decode)
        .collect();
    let events = events?;
    Ok(Recent {
        number,
        first: Position::new(first),
        last: Position::new(last),
        bytes: events.iter().map(size).sum(),
        events,
    })
}

/// Subscribes to the log.
pub(crate) fn subscribe(
    log: Log,
    tail: &Arc<Tail>,
    subscription: Subscription,
) -> BoxStream<'static, Result<Delivery, ReadError>> {
    let begin = Follower {
        reader: None,
        log,
        tail: Arc::clone(tail),
        watching: None,
        after: subscription.after,
        subscription,
    };
    Box::pin(stream::try_unfold(begin, |follower| async {
        follower.step().await.map_err(Failure::into_read_error)
    }))
}

struct Follower {
    log: Log,
    tail: Arc<Tail>,
    /// The read of stored events while it is in progress, and the head at which it ends.
    reader: Option<(Reader, Position)>,
    /// The head, and how often polling had failed when the subscription caught up.
    watching: Option<(watch::Receiver<Head>, u64)>,
    subscription: Subscription,
    /// The checkpoint.
    after: Position,
}

impl Follower {
    async fn step(mut self) -> Result<Option<(Delivery, Self)>, Failure> {
        loop {
            if let Some((head, failures)) = &self.watching {
                let head = head.borrow();
                if head.failures != *failures {
                    return Err(head.failed.clone().unwrap_or(Failure::RuntimeEnded));
                }
            }
            if let Some(delivery) = self.deliver().await? {
                self.after = delivery.through;
                return Ok(Some((delivery, self)));
            }
            let tail = Arc::clone(&self.tail);
            let (watching, failures) = self.watching.get_or_insert_with(|| {
                let head = tail.watch();
                let failures = head.borrow().failures;
                (head, failures)
            });
            let (after, failures) = (self.after, *failures);
            let has_failed = |head: &Head| head.failures != failures;
            let moved = watching
                .wait_for(|head| head.position > after || head.closed || has_failed(head))
                .await;
            match moved {
                // Told about above.
                Ok(head) if has_failed(&head) => {}
                Ok(head) if head.position > after => {}
                Ok(_) | Err(_) => return Ok(None),
            }
        }
    }

    /// Returns the events after the checkpoint, if there are any.
    async fn deliver(&mut self) -> Result<Option<Delivery>, Failure> {
        if self.reader.is_none() {
            // In memory only once the head was read: what others committed counts too.
            if self.watching.is_some()
                && let Some(commits) = self.tail.after(self.after)
            {
                return Ok(self.deliver_recent(&commits));
            }
            let head = self.log.head().await?;
            self.tail.advance(head);
            if head <= self.after {
                if self.watching.is_some() && head < self.after {
                    // Polling finds out whether the server lags behind or lost commits.
                    sleep(self.log.options().poll_interval).await;
                }
                return Ok(None);
            }
            let selection = Selection {
                scope: self.subscription.scope.clone(),
                query: self.subscription.query.clone(),
                order: Order::OldestFirst,
                first: self.after.next(),
                last: head,
            };
            self.reader = Some((Reader::new(self.log.clone(), selection), head));
        }
        let Some((reader, head)) = &mut self.reader else {
            return Ok(None);
        };
        let head = *head;
        let chunk = reader.next(DELIVERY_EVENTS).await?;
        let through = if chunk.done { head } else { chunk.through };
        if chunk.done {
            self.reader = None;
        }
        Ok(Some(Delivery {
            events: chunk.events,
            through,
            caught_up: through == head,
        }))
    }

    fn deliver_recent(&self, commits: &[Arc<Recent>]) -> Option<Delivery> {
        let head = commits.last()?.last;
        let mut events = Vec::new();
        for commit in commits {
            let behind = commit
                .events
                .iter()
                .filter(|event| event.position > self.after);
            for event in behind {
                if !selects(event, &self.subscription.scope, &self.subscription.query) {
                    continue;
                }
                events.push(event.clone());
                if events.len() == DELIVERY_EVENTS {
                    let through = event.position;
                    return Some(Delivery {
                        events,
                        through,
                        caught_up: through == head,
                    });
                }
            }
        }
        Some(Delivery {
            events,
            through: head,
            caught_up: true,
        })
    }
}
