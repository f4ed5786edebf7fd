//! The task that reads new events, once for all subscriptions that have caught up.
//!
//! **Owns:** [`Tail`]: the task, its connection, and when it reads. **Does not know:** who subscribes to what.
//! **Invariants:** the task runs while a subscription waits. The head is read before the events, so that every event up to
//! it is seen. The last event that was read must still be there: a log that lost its end ends all subscriptions with an error.
//! A failure ends every subscription that was attached then, also one that looks for it only after others have begun again.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use leftfold_model::{Position, Query, Scope};
use leftfold_store::Subscription;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    channel,
    recent::{Found, Id, Recent},
};
use crate::{
    PostgresOptions,
    error::Failure,
    read::{self, PageRequest, Place},
    schema::quoted,
    session::Session,
};

/// Maximum number of events read at a time.
const PAGE: i64 = 1_024;

/// The tail of the log, as subscriptions see it.
#[derive(Debug)]
pub(crate) struct Tail {
    options: PostgresOptions,
    state: Mutex<State>,
    /// Wakes the task.
    wake: Arc<Notify>,
    weak_self: Weak<Self>,
}

#[derive(Debug, Default)]
struct State {
    recent: Recent,
    running: bool,
    closed: bool,
    /// Why the task ended, if it failed: shared with the subscriptions that are attached while it runs. Each run has its own.
    failure: Arc<OnceLock<Failure>>,
}

/// What the task knows between two reads.
#[derive(Default)]
struct Reader {
    session: Option<Session>,
    last: Option<Place>,
    limit: i64,
}

impl Tail {
    pub(crate) fn new(options: PostgresOptions) -> Arc<Self> {
        Arc::new_cyclic(|weak_self| Self {
            options,
            state: Mutex::default(),
            wake: Arc::default(),
            weak_self: Weak::clone(weak_self),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the task read now, because there are new events.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends all subscriptions.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.recent.wake_all();
        drop(state);
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Adds a subscription that has received everything up to `after`, and starts the task if it does not run.
    pub(super) fn attach(
        self: &Arc<Self>,
        subscription: Subscription,
        after: Position,
    ) -> Attached {
        let mut state = self.state();
        let (id, wake) = state.recent.attach(subscription, after);
        if !state.running && !state.closed {
            state.running = true;
            tokio::spawn(Arc::clone(self).run());
        }
        let failure = Arc::clone(&state.failure);
        drop(state);
        Attached {
            tail: Arc::clone(self),
            id,
            wake,
            failure,
        }
    }

    async fn run(self: Arc<Self>) {
        let mut reader = Reader::default();
        let mut answered = Instant::now();
        loop {
            {
                let mut state = self.state();
                if state.recent.is_unused() || state.closed {
                    state.running = false;
                    state.recent.reset();
                    return;
                }
            }
            match self.read(&mut reader).await {
                Ok(true) => {
                    answered = Instant::now();
                    continue;
                }
                Ok(false) => answered = Instant::now(),
                Err(failure) => {
                    tracing::debug!(%failure, "reading the tail of the log failed");
                    reader.session = None;
                    let lost = matches!(failure, Failure::HeadWentBack { .. });
                    if lost || answered.elapsed() > self.options.reconnect_timeout {
                        return self.fail(failure);
                    }
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(self.options.poll_interval) => {}
            }
        }
    }

    fn fail(&self, failure: Failure) {
        let mut state = self.state();
        state.running = false;
        // The first and only value of this run.
        let _ = std::mem::take(&mut state.failure).set(failure);
        state.recent.detach_all();
        state.recent.reset();
    }

    /// Reads the events after those that were read before. Returns whether there may be more.
    async fn read(&self, reader: &mut Reader) -> Result<bool, Failure> {
        let session = match reader.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let schema = self.options.schema();
        // Before the head is read: the log had reached this position already.
        let known = self.state().recent.newest_attached();
        let reached = |newest: Option<Place>| {
            let head = newest.map_or(Position::START, |newest| newest.position);
            match head < known {
                true => Err(Failure::HeadWentBack { known, found: head }),
                false => Ok(head),
            }
        };
        let through = self.state().recent.through();
        let Some(through) = through else {
            reader.last = read::newest(&session, schema, None).await?;
            let head = reached(reader.last)?;
            self.state().recent.start_at(head);
            reader.limit = PAGE;
            reader.session = Some(session);
            return Ok(false);
        };
        let request = PageRequest::after(through, Scope::All, Query::All, reader.limit);
        let (head, page) = session
            .bounded(futures_util::future::try_join(
                read::newest(&session, schema, reader.last),
                Box::pin(read::select(&session, schema, &request)),
            ))
            .await?;
        let head_position = reached(head)?;
        let mut events = page.events;
        if page.corrupt {
            // Only the subscriptions that select such an event shall fail, so each reads for itself.
            self.state().recent.skip_to(head_position);
            reader.last = head;
            session.discard();
            return Ok(false);
        }
        events.retain(|event| event.position <= head_position);
        let fetched = i64::try_from(events.len()).unwrap_or(PAGE);
        let partial = page.truncated || fetched >= reader.limit;
        let last = events.last().map(|last| Place {
            position: last.position,
            id: last.id,
        });
        let (reached, more) = match last.filter(|_| partial) {
            Some(last) => (last.position, last.position < head_position),
            None => (head_position, false),
        };
        reader.last = if reached == head_position { head } else { last };
        reader.limit = if page.truncated { fetched.max(1) } else { PAGE };
        if reached > through {
            self.state().recent.extend(events, reached);
        }
        if page.truncated {
            session.discard();
        } else {
            reader.session = Some(session);
        }
        Ok(more)
    }

    /// Opens a connection that receives notifications. Behind a pooler there are none.
    async fn connect(&self) -> Result<Session, Failure> {
        let weak = Weak::clone(&self.weak_self);
        let on_notification = move || {
            if let Some(tail) = weak.upgrade() {
                tail.wake();
            }
        };
        let session =
            Session::open_listening(&self.options, Some(Box::new(on_notification))).await?;
        if !self.options.pooler {
            let listen = format!("listen {}", quoted(&channel(&self.options)));
            session
                .batch_execute(&listen, self.options.response_limit())
                .await?;
        }
        Ok(session)
    }
}

/// A subscription that has caught up. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Attached {
    tail: Arc<Tail>,
    id: Id,
    wake: Arc<Notify>,
    /// Why the run of the task ended to which it is attached.
    failure: Arc<OnceLock<Failure>>,
}

impl Attached {
    /// Waits for the next delivery after `after`. `Ok(None)` if the store was closed.
    pub(super) async fn next(&self, after: Position) -> Result<Option<Found>, Failure> {
        let mut overdue = false;
        loop {
            {
                let mut state = self.tail.state();
                if state.closed {
                    return Ok(None);
                }
                if let Some(failure) = self.failure.get() {
                    return Err(failure.clone());
                }
                match state.recent.next(self.id, after, overdue) {
                    Found::Nothing => {}
                    found => return Ok(Some(found)),
                }
            }
            tokio::select! {
                () = self.wake.notified() => overdue = false,
                () = sleep(self.tail.options.poll_interval) => overdue = true,
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.tail.state();
        state.recent.detach(self.id);
        let unused = state.recent.is_unused();
        drop(state);
        if unused {
            self.tail.wake();
        }
    }
}
