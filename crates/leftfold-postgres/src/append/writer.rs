//! The writer task: takes queued appends and sends each group as one transaction.
//!
//! **Owns:** [`Writer`]: the queue, the group in flight, and the outcomes. **Does not know:** SQL beyond one call.
//! **Invariants:** every queued append gets an outcome, unless its runtime ends. If the server refuses a group for its data,
//! the appends are sent one by one. Any failure that does not prove that nothing was written is an unknown outcome.

use std::sync::Arc;

use leftfold_model::{Append, Appended, Conflict};
use leftfold_store::AppendError;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::Row;

use super::{
    columns::{Columns, call},
    group::Group,
    response::{head_before, outcomes},
    revision_cache::RevisionCache,
};
use crate::{error::Failure, follow::HeadWatcher, pool::Pool, schema::quoted};

/// Capacity of the queue. Further callers wait until an append leaves it.
const QUEUE_CAPACITY: usize = 1_024;

/// How often the task yields while the queue still grows: a fraction of a millisecond in all.
const YIELDS_MAX: usize = 16;

/// A queued append, and the channel for its outcome.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) append: Append,
    pub(crate) outcome: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The writing side of a store.
#[derive(Debug)]
pub(crate) struct Writer {
    pool: Arc<Pool>,
    heads: Arc<HeadWatcher>,
    call: String,
    /// Whether ids are looked up before every group, because a partitioned log has no unique index of ids.
    check_ids: bool,
    revisions: RevisionCache,
}

impl Writer {
    /// Spawns the task. It ends when every sender is dropped and every append has its outcome.
    pub(crate) fn start(
        pool: Arc<Pool>,
        heads: Arc<HeadWatcher>,
        check_ids: bool,
    ) -> (mpsc::Sender<Pending>, tokio::task::JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(QUEUE_CAPACITY);
        let call = call(&quoted(pool.options().schema()));
        let writer = Self {
            pool,
            heads,
            call,
            check_ids,
            revisions: RevisionCache::default(),
        };
        (sender, tokio::spawn(writer.run(queue)))
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let mut postponed = None;
        loop {
            let first = match postponed.take() {
                Some(pending) => pending,
                None => match queue.recv().await {
                    Some(pending) => pending,
                    None => return,
                },
            };
            self.gather(&queue).await;
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
        }
    }

    /// Yields until the queue stops growing, so that callers whose append just completed join the next group.
    /// Without it, every other group would hold one append only.
    async fn gather(&self, queue: &mpsc::Receiver<Pending>) {
        let mut waiting = queue.len();
        for _ in 0..YIELDS_MAX {
            tokio::task::yield_now().await;
            if queue.len() == waiting {
                return;
            }
            waiting = queue.len();
        }
    }

    /// Writes a group and sends all outcomes.
    async fn write(
        &mut self,
        group: &Group,
        channels: Vec<oneshot::Sender<Result<Appended, AppendError>>>,
    ) {
        let outcomes = match self.send(group).await {
            Err(failure) if group.appends().len() > 1 && failure.proves_nothing_written() => {
                let mut outcomes = Vec::with_capacity(channels.len());
                for append in group.appends() {
                    outcomes.extend(self.send_retrying(&Group::of(append.clone())).await);
                }
                outcomes
            }
            Err(failure) => vec![Err(failure.into_append_error()); channels.len()],
            Ok(outcomes) => outcomes,
        };
        for (channel, outcome) in channels.into_iter().zip(outcomes) {
            // The receiver is gone if the caller dropped its future.
            let _ = channel.send(outcome);
        }
    }

    async fn send_retrying(&mut self, group: &Group) -> Vec<Result<Appended, AppendError>> {
        match self.send(group).await {
            Ok(outcomes) => outcomes,
            Err(failure) => vec![Err(failure.into_append_error()); group.appends().len()],
        }
    }

    async fn send(&mut self, group: &Group) -> Result<Vec<Result<Appended, AppendError>>, Failure> {
        let mut response = self.call(group, self.check_ids).await;
        if response.as_ref().is_err_and(Failure::is_duplicate_id) {
            response = self.call(group, true).await;
        }
        let row = response.inspect_err(|failure| {
            self.revisions.clear();
            if failure.is_connection_error() {
                self.pool.forget_idle();
            }
        })?;
        let outcomes = outcomes(&row, group.appends())?;
        self.revisions
            .record(head_before(&row)?, group.appends(), &outcomes);
        let written = outcomes.iter().flatten().filter(|done| !done.repeated);
        if let Some(last) = written.map(|appended| appended.last).max() {
            self.heads.committed(last);
        }
        let contract = |outcome: Result<_, Conflict>| outcome.map_err(AppendError::from);
        Ok(outcomes.into_iter().map(contract).collect())
    }

    async fn call(&self, group: &Group, check_ids: bool) -> Result<Row, Failure> {
        let pooled = self.pool.get().await?;
        let session = pooled.session()?;
        // A warning from before is not about this group.
        let _ = session.commit_warning();
        let durable = !self.pool.options().allow_lost_commits;
        let columns = Columns::of(group, &self.revisions, check_ids, durable);
        let response = session.query(&self.call, &columns.params()).await;
        if let Some(warning) = session.commit_warning() {
            return Err(Failure::NotReplicated(warning));
        }
        let row = response?.into_iter().next();
        row.ok_or_else(|| Failure::UnexpectedResponse("no row".to_owned()))
    }
}
