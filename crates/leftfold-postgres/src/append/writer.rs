//! The writer task: takes queued appends and sends each group as one transaction.
//!
//! **Owns:** [`Writer`]: the queue, a connection of its own, the group in flight, and the outcomes.
//! **Does not know:** SQL beyond two calls.
//! **Invariants:** every queued append gets an outcome, unless its runtime ends. If the server refuses a group for its data,
//! the appends are sent one by one, and each caller gets its outcome as soon as it is known. Any failure that does not prove
//! that nothing was written is an unknown outcome. No reader can delay an append by using up connections, and no condition by
//! a long search: such a search runs beside the groups. Appends that concern one stream are decided in the order of the queue.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use leftfold_store::AppendError;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_postgres::Row;

use super::{
    columns::{Columns, call},
    group::Group,
    response::{Decision, decisions, head_before},
    revision_cache::RevisionCache,
    search_lane::{OutcomeSender, Pending, SearchLane},
};
use crate::{
    PostgresOptions,
    error::Failure,
    pool::Pool,
    schema::quoted,
    session::Session,
    subscribe::{self, Tail},
};

/// Capacity of the queue. Further callers wait until an append leaves it.
const QUEUE_CAPACITY: usize = 1_024;
/// How often the task yields while the queue still grows: a fraction of a millisecond in all.
const YIELDS_MAX: usize = 16;
/// The minimum interval between two notifications of other processes; appends in between share one.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(20);

/// How many searches for conditions run at once, each on a connection of its own.
const SEARCHES_MAX: usize = 2;

/// The writing side of a store.
#[derive(Debug)]
pub(crate) struct Writer {
    options: PostgresOptions,
    tail: Arc<Tail>,
    session: Option<Session>,
    call: String,
    revisions: RevisionCache,
    /// When other processes are to be notified of new events.
    notify_at: Option<Instant>,
    queue: mpsc::Receiver<Pending>,
    queue_closed: bool,
    /// The order of the last append that left the queue.
    order: u64,
    lane: SearchLane,
    /// Appends that are to be decided before those of the queue, by [`Pending::order`].
    ready: BTreeMap<u64, Pending>,
}

impl Writer {
    /// Spawns the task. It ends when every sender is dropped and every append has its outcome.
    pub(crate) fn start(
        options: PostgresOptions,
        tail: Arc<Tail>,
    ) -> (mpsc::Sender<Pending>, tokio::task::JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let searches = Pool::new(options.clone().with_connections(SEARCHES_MAX));
        let writer = Self {
            call: call(&quoted(options.schema())),
            options,
            tail,
            session: None,
            revisions: RevisionCache::default(),
            notify_at: None,
            queue,
            queue_closed: false,
            order: 0,
            lane: SearchLane::new(searches),
            ready: BTreeMap::new(),
        };
        (sender, tokio::spawn(writer.run()))
    }

    async fn run(mut self) {
        while let Some(first) = self.next().await {
            gather(&self.queue).await;
            for ready in self.lane.ready() {
                self.make_ready(ready);
            }
            let mut group = Group::of_searched(first.append, first.searched);
            let mut callers = vec![(first.order, first.outcome)];
            while let Some(next) = self.try_next() {
                if !group.admits(&next.append) {
                    self.make_ready(next);
                    break;
                }
                group.push(next.append, next.searched);
                callers.push((next.order, next.outcome));
            }
            self.write(group, callers).await;
            if self.notify_at.is_some_and(|due| due <= Instant::now()) {
                self.notify_peers().await;
            }
        }
        self.notify_peers().await;
    }

    /// Waits for the next append to decide, and notifies other processes meanwhile. Returns `None` when the queue is closed
    /// and every append has its outcome.
    async fn next(&mut self) -> Option<Pending> {
        loop {
            if let Some(ready) = self.pop_ready() {
                return Some(ready);
            }
            if self.queue_closed && !self.lane.is_searching() {
                return None;
            }
            let due = self.notify_at;
            tokio::select! {
                biased;
                ready = self.lane.next_ready(), if self.lane.is_searching() => {
                    for ready in ready {
                        self.make_ready(ready);
                    }
                }
                pending = self.queue.recv(), if !self.queue_closed => match pending {
                    Some(pending) => self.admit(pending),
                    None => self.queue_closed = true,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.notify_peers().await,
            }
        }
    }

    /// Returns the next append to decide if there is one already.
    fn try_next(&mut self) -> Option<Pending> {
        loop {
            if let Some(ready) = self.pop_ready() {
                return Some(ready);
            }
            let pending = self.queue.try_recv().ok()?;
            self.admit(pending);
        }
    }

    /// Numbers an append of the queue.
    fn admit(&mut self, mut pending: Pending) {
        self.order += 1;
        pending.order = self.order;
        self.make_ready(pending);
    }

    fn make_ready(&mut self, pending: Pending) {
        self.ready.insert(pending.order, pending);
    }

    /// Takes the first append that has to wait for none in the lane.
    fn pop_ready(&mut self) -> Option<Pending> {
        while let Some((_, pending)) = self.ready.pop_first() {
            if !self.lane.holds_up(&pending) {
                return Some(pending);
            }
            self.lane.hold(pending);
        }
        None
    }

    /// Notifies other processes of new events. If that fails, they notice them by polling.
    async fn notify_peers(&mut self) {
        if self.notify_at.take().is_none() {
            return;
        }
        let Some(session) = self.session.take().filter(Session::is_reusable) else {
            return;
        };
        let notified = session
            .query(&subscribe::notify_unsynced(&self.options), &[])
            .await;
        if notified.is_ok() {
            self.session = Some(session);
        }
    }

    /// Writes a group and sends all outcomes that are decided.
    async fn write(&mut self, group: Group, callers: Vec<(u64, OutcomeSender)>) {
        match self.send(&group).await {
            Err(failure) if group.appends().len() > 1 && failure.data_error().is_some() => {
                self.write_singly(pendings(group, callers)).await;
            }
            Err(failure) => {
                for pending in pendings(group, callers) {
                    pending.resolve(Err(failure.clone().into_append_error()));
                }
            }
            Ok(decisions) => {
                for (pending, decision) in pendings(group, callers).zip(decisions) {
                    self.settle(pending, decision);
                }
            }
        }
    }

    /// Writes the appends of a refused group one by one, until the server fails for another reason than their data.
    async fn write_singly(&mut self, pendings: impl Iterator<Item = Pending>) {
        let mut stopped: Option<Failure> = None;
        for pending in pendings {
            if let Some(failure) = &stopped {
                let cause = Arc::new(failure.clone());
                pending.resolve(Err(AppendError::Unavailable { cause }));
                continue;
            }
            if self.lane.holds_up(&pending) {
                self.lane.hold(pending);
                continue;
            }
            let group = Group::of_searched(pending.append.clone(), pending.searched.clone());
            let decided = self.send(&group).await.and_then(|mut decisions| {
                let missing = || Failure::UnexpectedResponse("no outcome".to_owned());
                decisions.pop().ok_or_else(missing)
            });
            match decided {
                Ok(decision) => self.settle(pending, decision),
                Err(failure) => {
                    if failure.data_error().is_none() {
                        stopped = Some(failure.clone());
                    }
                    pending.resolve(Err(failure.into_append_error()));
                }
            }
        }
    }

    /// Sends the outcome of an append, or has its conditions searched for.
    fn settle(&mut self, mut pending: Pending, decision: Decision) {
        match decision {
            Decision::Made(outcome) => pending.resolve(outcome.map_err(AppendError::from)),
            Decision::TooCostly => self.lane.search(pending),
            Decision::OtherLog => {
                pending.searched = None;
                self.lane.search(pending);
            }
            // The other one may have been refused because the lane is full.
            Decision::BehindAnother => self.make_ready(pending),
        }
    }

    async fn send(&mut self, group: &Group) -> Result<Vec<Decision>, Failure> {
        let mut response = self.call(group, false).await;
        if response.as_ref().is_err_and(Failure::is_duplicate_id) {
            response = self.call(group, true).await;
        }
        let row = response.inspect_err(|_| self.revisions.clear())?;
        let decisions = decisions(&row, group.appends())?;
        self.revisions
            .record(head_before(&row)?, group.appends(), &decisions);
        let mut appended = decisions.iter().filter_map(Decision::appended);
        if appended.any(|done| !done.repeated) {
            self.tail.wake();
            self.notify_at
                .get_or_insert_with(|| Instant::now() + NOTIFY_INTERVAL);
        }
        Ok(decisions)
    }

    async fn call(&mut self, group: &Group, check_ids: bool) -> Result<Row, Failure> {
        let session = match self.session.take().filter(Session::is_reusable) {
            Some(session) => session,
            None => Session::open(&self.options).await?,
        };
        // A warning from before is not about this group.
        let _ = session.take_commit_warning();
        let durable = !self.options.allow_lost_commits;
        let in_groups = self.options.searches_in_groups;
        let cost_max = if in_groups {
            group.search_cost_max()
        } else {
            0
        };
        let columns = Columns::of(group, &self.revisions, check_ids, durable, Some(cost_max));
        let response = session.query(&self.call, &columns.params()).await;
        let warning = session.take_commit_warning();
        // After a failed connection the session is dropped, which cancels what may still run.
        if !response.as_ref().is_err_and(Failure::is_connection_error) {
            self.session = Some(session);
        }
        if let Some(warning) = warning {
            return Err(Failure::NotReplicated(warning));
        }
        let row = response?.into_iter().next();
        row.ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))
    }
}

/// The appends of a group, with their callers.
fn pendings(group: Group, callers: Vec<(u64, OutcomeSender)>) -> impl Iterator<Item = Pending> {
    let appends = group.into_appends().zip(callers);
    appends.map(|((append, searched), (order, outcome))| Pending {
        append,
        outcome,
        order,
        searched,
    })
}

/// Yields until the queue stops growing, so that callers whose append just completed join the next group.
/// Without it, every other group would hold one append only.
async fn gather(queue: &mpsc::Receiver<Pending>) {
    let mut waiting = queue.len();
    for _ in 0..YIELDS_MAX {
        tokio::task::yield_now().await;
        if queue.len() == waiting {
            return;
        }
        waiting = queue.len();
    }
}
