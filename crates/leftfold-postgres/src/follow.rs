//! Following the log: waking up, and catching up.
//!
//! **Owns:** [`HeadWatcher`]: what is known of the head, and telling other processes; subscriptions. **Does not know:** appends.
//! **Invariants:** a notification only wakes; what is delivered is read from the log, in the order of positions, beyond the
//! checkpoint, so a lost, late or doubled notification changes nothing but the time; one task asks for all subscribers.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_core::stream::BoxStream;
use futures_util::stream;
use leftfold_model::{Direction, Position, RecordedEvent, Scope};
use leftfold_store::{Delivery, ReadError, Subscription};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use crate::{
    PostgresOptions,
    error::Failure,
    pool::Pool,
    read::{Bounds, PageRequest, fetch, head},
    schema::quoted,
    session::Session,
    value::to_bigint,
};

/// Events of a delivery at most.
const DELIVERY: i64 = 1_024;
/// The shortest time between two notifications of this process; appends in between share one.
const NOTIFY_EVERY: Duration = Duration::from_millis(20);

/// What is known of the log's end.
#[derive(Debug, Clone, Default)]
struct HeadState {
    head: Position,
    closed: bool,
    /// Why the head can no longer be asked for.
    failed: Option<Failure>,
}

/// What this process knows of the head, and who waits for it.
#[derive(Debug)]
pub(crate) struct HeadWatcher {
    pool: Arc<Pool>,
    seen: watch::Sender<HeadState>,
    /// Whether the task that asks is running.
    asking: Mutex<bool>,
    /// Wakes that task.
    wake: Arc<Notify>,
    /// Whether a notification to other processes is due.
    telling: AtomicBool,
    itself: Weak<Self>,
}

impl HeadWatcher {
    pub(crate) fn new(pool: Arc<Pool>) -> Arc<Self> {
        Arc::new_cyclic(|itself| Self {
            pool,
            seen: watch::channel(HeadState::default()).0,
            asking: Mutex::new(false),
            wake: Arc::default(),
            telling: AtomicBool::new(false),
            itself: Weak::clone(itself),
        })
    }

    /// Notes that everything up to `head` is committed, and tells other processes soon.
    pub(crate) fn committed(&self, head: Position) {
        self.advance(head);
        if !self.telling.swap(true, Ordering::AcqRel)
            && let Some(itself) = self.itself.upgrade()
        {
            tokio::spawn(async move {
                sleep(NOTIFY_EVERY).await;
                itself.telling.store(false, Ordering::Release);
                itself.notify_peers().await;
            });
        }
    }

    async fn notify_peers(&self) {
        let told = async {
            let pooled = self.pool.get().await?;
            pooled
                .session()?
                .query(&notify(self.pool.options()), &[])
                .await
        };
        // Whoever was not told asks by itself before long.
        let _: Result<_, Failure> = told.await;
    }

    pub(crate) fn close(&self) {
        self.seen.send_modify(|seen| seen.closed = true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.seen.borrow().closed
    }

    fn advance(&self, head: Position) {
        self.seen.send_if_modified(|seen| {
            let rose = head > seen.head;
            seen.head = seen.head.max(head);
            rose
        });
    }

    fn watch(&self) -> watch::Receiver<HeadState> {
        let receiver = self.seen.subscribe();
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if !*asking && let Some(itself) = self.itself.upgrade() {
            *asking = true;
            self.seen.send_modify(|seen| seen.failed = None);
            tokio::spawn(itself.poll_head());
        }
        receiver
    }

    /// Asks for the head whenever there may be a new one, as long as somebody waits for it.
    async fn poll_head(self: Arc<Self>) {
        let options = self.pool.options().clone();
        let mut session: Option<Session> = None;
        let mut answered = Instant::now();
        loop {
            {
                let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
                if self.seen.receiver_count() == 0 || self.is_closed() {
                    *asking = false;
                    return;
                }
            }
            match self.ask_once(&mut session, &options).await {
                Ok(head) => {
                    answered = Instant::now();
                    self.advance(head);
                }
                Err(failure) => {
                    tracing::debug!(%failure, "the head of the log could not be asked for");
                    session = None;
                    if answered.elapsed() > options.reconnect_timeout {
                        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
                        *asking = false;
                        self.seen.send_modify(|seen| seen.failed = Some(failure));
                        return;
                    }
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(options.poll_interval) => {}
                () = self.seen.closed() => {}
            }
        }
    }

    async fn ask_once(
        &self,
        session: &mut Option<Session>,
        options: &PostgresOptions,
    ) -> Result<Position, Failure> {
        let open = match session.take() {
            Some(open) => open,
            None => self.listen(options).await?,
        };
        let found = head(&open, options.schema()).await?;
        *session = Some(open);
        Ok(found)
    }

    /// A connection that hears notifications, or behind a pooler just a connection.
    async fn listen(&self, options: &PostgresOptions) -> Result<Session, Failure> {
        let wake = Arc::clone(&self.wake);
        let session =
            Session::open_listening(options, Some(Box::new(move || wake.notify_one()))).await?;
        if !options.pooler {
            session
                .client
                .batch_execute(&format!("listen {}", quoted(&channel(options))))
                .await?;
        }
        Ok(session)
    }
}

/// The channel on which appends to a schema are announced.
fn channel(options: &PostgresOptions) -> String {
    let name = format!("leftfold {}", options.schema());
    name.chars().take(60).collect()
}

/// The statement that announces an append.
pub(crate) fn notify(options: &PostgresOptions) -> String {
    format!("select pg_notify('{}', '')", channel(options))
}

/// Follows the log.
pub(crate) fn subscribe(
    pool: Arc<Pool>,
    heads: &Arc<HeadWatcher>,
    subscription: Subscription,
) -> BoxStream<'static, Result<Delivery, ReadError>> {
    let begin = Follower {
        pool,
        heads: Arc::clone(heads),
        waiting: None,
        after: subscription.after,
        revision: 0,
        subscription,
        limit: DELIVERY,
    };
    Box::pin(stream::try_unfold(begin, Follower::step))
}

struct Follower {
    pool: Arc<Pool>,
    heads: Arc<HeadWatcher>,
    waiting: Option<watch::Receiver<HeadState>>,
    subscription: Subscription,
    /// The checkpoint.
    after: Position,
    /// The first revision not delivered; of use if one stream is followed.
    revision: i64,
    limit: i64,
}

impl Follower {
    async fn step(mut self) -> Result<Option<(Delivery, Self)>, ReadError> {
        loop {
            // What is stored is looked at before anybody waits.
            if let Some(delivery) = self.deliver().await? {
                return Ok(Some((delivery, self)));
            }
            let heads = Arc::clone(&self.heads);
            let waiting = self.waiting.get_or_insert_with(|| heads.watch());
            let after = self.after;
            let moved = waiting
                .wait_for(|seen| seen.head > after || seen.closed || seen.failed.is_some())
                .await;
            match moved {
                Ok(seen) if seen.head > after => {}
                Ok(seen) if seen.closed => return Ok(None),
                Ok(seen) => {
                    let failure = seen.failed.clone().unwrap_or(Failure::RuntimeEnded);
                    return Err(failure.into_read_error());
                }
                Err(_) => return Ok(None),
            }
        }
    }

    /// What the log holds beyond the checkpoint, if anything.
    async fn deliver(&mut self) -> Result<Option<Delivery>, ReadError> {
        let mut bounds = Bounds::ALL;
        bounds.positions.0 = to_bigint(self.after.next().get());
        bounds.revisions.0 = self.revision;
        let request = PageRequest {
            scope: self.subscription.scope.clone(),
            query: self.subscription.query.clone(),
            direction: Direction::Forwards,
            bounds,
            limit: self.limit,
            with_head: true,
        };
        let page = fetch(&self.pool, &request).await?;
        let head = page.head.unwrap_or_default();
        let fetched = i64::try_from(page.events.len()).unwrap_or(DELIVERY);
        let mut events = page.events;
        // The page may have seen more than the head; that comes next, so that a checkpoint has one meaning.
        events.retain(|event| event.position <= head);
        let all = !page.more || i64::try_from(events.len()).is_ok_and(|count| count < fetched);
        let through = match events.last() {
            Some(last) if !all => last.position,
            _ => head,
        };
        if through <= self.after {
            return Ok(None);
        }
        self.limit = if page.more && fetched < self.limit {
            fetched.max(1)
        } else {
            DELIVERY
        };
        self.note(&events, through);
        Ok(Some(Delivery {
            events,
            through,
            caught_up: through == head,
        }))
    }

    fn note(&mut self, events: &[RecordedEvent], through: Position) {
        self.after = through;
        if let (Scope::Stream(_), Some(last)) = (&self.subscription.scope, events.last()) {
            self.revision = to_bigint(last.revision.get()).saturating_add(1);
        }
    }
}
