//! The writer task: takes queued appends and sends each group as one transaction.
//!
//! **Owns:** [`Writer`]: the queue, a connection of its own, the group in flight, and the outcomes.
//! **Does not know:** SQL beyond two calls.
//! **Invariants:** every queued append gets an outcome, unless its runtime ends. If the server refuses a group for its data,
//! the appends are sent one by one, and each caller gets its outcome as soon as it is known. Any failure that does not prove
//! that nothing was written is an unknown outcome. No reader can delay an append by using up connections.

use std::{sync::Arc, time::Duration};

use leftfold_model::{Append, Appended, Conflict};
use leftfold_store::AppendError;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};
use tokio_postgres::Row;

use super::{
    columns::{Columns, call},
    group::Group,
    response::{head_before, outcomes},
    revision_cache::RevisionCache,
};
use crate::{
    PostgresOptions,
    error::Failure,
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

/// The channel for the outcome of one append.
type OutcomeSender = oneshot::Sender<Result<Appended, AppendError>>;

/// A queued append, and the channel for its outcome.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) append: Append,
    pub(crate) outcome: OutcomeSender,
}

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
}

impl Writer {
    /// Spawns the task. It ends when every sender is dropped and every append has its outcome.
    pub(crate) fn start(
        options: PostgresOptions,
        tail: Arc<Tail>,
    ) -> (mpsc::Sender<Pending>, tokio::task::JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let writer = Self {
            call: call(&quoted(options.schema())),
            options,
            tail,
            session: None,
            revisions: RevisionCache::default(),
            notify_at: None,
        };
        (sender, tokio::spawn(writer.run(queue)))
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let mut postponed = None;
        loop {
            let first = match postponed.take() {
                Some(pending) => Some(pending),
                None => self.next(&mut queue).await,
            };
            let Some(first) = first else {
                self.notify_peers().await;
                return;
            };
            gather(&queue).await;
            let mut channels = vec![first.outcome];
            let mut group = Group::of(first.append);
            while let Ok(next) = queue.try_recv() {
                if !group.admits(&next.append) {
                    postponed = Some(next);
                    break;
                }
                group.push(next.append);
                channels.push(next.outcome);
            }
            self.write(&group, channels).await;
            if self.notify_at.is_some_and(|due| due <= Instant::now()) {
                self.notify_peers().await;
            }
        }
    }

    /// Waits for the next append, and notifies other processes meanwhile.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Pending>) -> Option<Pending> {
        while let Some(due) = self.notify_at {
            tokio::select! {
                biased;
                pending = queue.recv() => return pending,
                () = sleep_until(due) => self.notify_peers().await,
            }
        }
        queue.recv().await
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

    /// Writes a group and sends all outcomes.
    async fn write(&mut self, group: &Group, channels: Vec<OutcomeSender>) {
        match self.send(group).await {
            Err(failure) if group.appends().len() > 1 && failure.data_error().is_some() => {
                self.write_singly(group, channels).await;
            }
            Err(failure) => {
                for channel in channels {
                    // The receiver is gone if the caller dropped its future.
                    let _ = channel.send(Err(failure.clone().into_append_error()));
                }
            }
            Ok(outcomes) => {
                for (channel, outcome) in channels.into_iter().zip(outcomes) {
                    let _ = channel.send(outcome);
                }
            }
        }
    }

    /// Writes the appends of a refused group one by one, until the server fails for another reason than their data.
    async fn write_singly(&mut self, group: &Group, channels: Vec<OutcomeSender>) {
        let mut stopped: Option<Failure> = None;
        for (append, channel) in group.appends().iter().zip(channels) {
            let outcome = match &stopped {
                Some(failure) => Err(AppendError::Unavailable {
                    cause: Arc::new(failure.clone()),
                }),
                None => match self.send(&Group::of(append.clone())).await {
                    Ok(mut outcomes) => outcomes.pop().unwrap_or_else(|| {
                        Err(Failure::UnexpectedResponse("no outcome".to_owned())
                            .into_append_error())
                    }),
                    Err(failure) => {
                        if failure.data_error().is_none() {
                            stopped = Some(failure.clone());
                        }
                        Err(failure.into_append_error())
                    }
                },
            };
            let _ = channel.send(outcome);
        }
    }

    async fn send(&mut self, group: &Group) -> Result<Vec<Result<Appended, AppendError>>, Failure> {
        let mut response = self.call(group, false).await;
        if response.as_ref().is_err_and(Failure::is_duplicate_id) {
            response = self.call(group, true).await;
        }
        let row = response.inspect_err(|_| self.revisions.clear())?;
        let outcomes = outcomes(&row, group.appends())?;
        self.revisions
            .record(head_before(&row)?, group.appends(), &outcomes);
        let written = outcomes.iter().flatten().any(|done| !done.repeated);
        if written {
            self.tail.wake();
            self.notify_at
                .get_or_insert_with(|| Instant::now() + NOTIFY_INTERVAL);
        }
        let contract = |outcome: Result<_, Conflict>| outcome.map_err(AppendError::from);
        Ok(outcomes.into_iter().map(contract).collect())
    }

    async fn call(&mut self, group: &Group, check_ids: bool) -> Result<Row, Failure> {
        let session = match self.session.take().filter(Session::is_reusable) {
            Some(session) => session,
            None => Session::open(&self.options).await?,
        };
        // A warning from before is not about this group.
        let _ = session.take_commit_warning();
        let durable = !self.options.allow_lost_commits;
        let columns = Columns::of(group, &self.revisions, check_ids, durable);
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
