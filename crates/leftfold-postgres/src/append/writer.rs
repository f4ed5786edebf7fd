//! The task that writes: takes what callers wait for, and sends it as one transaction.
//!
//! **Owns:** [`Writer`]: the queue, groups in flight, and answers. **Does not know:** SQL beyond one call.
//! **Invariants:** every append that entered the queue is answered, unless its runtime ends; a failure that proves nothing
//! was written is tried again append by append, so that one cannot spoil the others; any other failure is told as unknown.

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

/// Appends that wait at most; more wait with their callers.
const QUEUE: usize = 1_024;

/// How often the task steps aside while the queue still grows; a fraction of a millisecond in all.
const YIELDS_MAX: usize = 16;

/// One append and where its outcome is awaited.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) append: Append,
    pub(crate) answer: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The writing side of a store.
#[derive(Debug)]
pub(crate) struct Writer {
    pool: Arc<Pool>,
    heads: Arc<HeadWatcher>,
    call: String,
    /// Whether ids must be looked up always, since no index of all ids refuses a second one.
    look_up_ids: bool,
    seen: RevisionCache,
}

impl Writer {
    /// Starts the task. It ends when every sender is gone and all appends are answered.
    pub(crate) fn start(
        pool: Arc<Pool>,
        heads: Arc<HeadWatcher>,
        look_up_ids: bool,
    ) -> (mpsc::Sender<Pending>, tokio::task::JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let call = call(&quoted(pool.options().schema()));
        let writer = Self {
            pool,
            heads,
            call,
            look_up_ids,
            seen: RevisionCache::default(),
        };
        (sender, tokio::spawn(writer.run(queue)))
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let mut left_over = None;
        loop {
            let first = match left_over.take() {
                Some(pending) => pending,
                None => match queue.recv().await {
                    Some(pending) => pending,
                    None => return,
                },
            };
            self.gather(&queue).await;
            let mut answers = vec![first.answer];
            let mut group = Group::of(first.append);
            while let Ok(next) = queue.try_recv() {
                if !group.admits(&next.append) {
                    left_over = Some(next);
                    break;
                }
                group.take(next.append);
                answers.push(next.answer);
            }
            self.write(&group, answers).await;
        }
    }

    /// Lets those who were just answered come back first: else every other group would hold one append only.
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

    /// Writes a group and answers all.
    async fn write(
        &mut self,
        group: &Group,
        answers: Vec<oneshot::Sender<Result<Appended, AppendError>>>,
    ) {
        let outcomes = match self.send(group).await {
            Err(failure) if group.appends().len() > 1 && failure.proves_nothing_written() => {
                let mut outcomes = Vec::with_capacity(answers.len());
                for append in group.appends() {
                    outcomes.extend(self.send_retrying(&Group::of(append.clone())).await);
                }
                outcomes
            }
            Err(failure) => vec![Err(failure.into_append_error()); answers.len()],
            Ok(outcomes) => outcomes,
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // A caller that went away does not want to know.
            let _ = answer.send(outcome);
        }
    }

    async fn send_retrying(&mut self, group: &Group) -> Vec<Result<Appended, AppendError>> {
        match self.send(group).await {
            Ok(outcomes) => outcomes,
            Err(failure) => vec![Err(failure.into_append_error()); group.appends().len()],
        }
    }

    async fn send(&mut self, group: &Group) -> Result<Vec<Result<Appended, AppendError>>, Failure> {
        let mut answered = self.call(group, self.look_up_ids).await;
        if answered.as_ref().is_err_and(Failure::is_known_id) {
            answered = self.call(group, true).await;
        }
        let row = answered.inspect_err(|failure| {
            self.seen.forget();
            if failure.is_of_connection() {
                self.pool.forget_idle();
            }
        })?;
        let outcomes = outcomes(&row, group.appends())?;
        self.seen
            .record(head_before(&row)?, group.appends(), &outcomes);
        let written = outcomes.iter().flatten().filter(|done| !done.repeated);
        if let Some(last) = written.map(|appended| appended.last).max() {
            self.heads.committed(last);
        }
        let contract = |outcome: Result<_, Conflict>| outcome.map_err(AppendError::from);
        Ok(outcomes.into_iter().map(contract).collect())
    }

    async fn call(&self, group: &Group, look_up_ids: bool) -> Result<Row, Failure> {
        let lent = self.pool.get().await?;
        let link = lent.link()?;
        // A warning that came before, to whomever, is not about this group.
        let _ = link.commit_warning();
        let durable = !self.pool.options().lost_commits;
        let columns = Columns::of(group, &self.seen, look_up_ids, durable);
        let answered = link.query(&self.call, &columns.params()).await;
        if let Some(doubt) = link.commit_warning() {
            return Err(Failure::NotReplicated(doubt));
        }
        let row = answered?.into_iter().next();
        row.ok_or_else(|| Failure::Foreign("no row".to_owned()))
    }
}
