//! The writer task: takes queued appends and inserts each group as one commit.
//!
//! **Owns:** [`Writer`]: the queue, the newest commit known, and the outcomes. **Does not know:** filters.
//! **Invariants:**
//! - Every append that entered the queue gets an outcome, unless its runtime ends.
//! - An append is acknowledged, rejected or recognised as repeated only by commits that a majority of the servers has.
//! - A commit whose insert got no response is inserted again under the same number and identity, until the server says whose
//!   that number is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use leftfold_model::{Append, Appended, Conflict, Position, Timestamp};
use leftfold_store::AppendError;
use mongodb::bson::doc;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{
    decide::Decider,
    encode::{DOCUMENT_BYTES_MAX, Placed, encode, inline_size, names_size, write_payloads},
    known::Known,
    lookup::look_up,
};
use crate::{
    document::{CommitDocument, Identity, PayloadReference, to_u64, uuid},
    error::Failure,
    log::{Inserted, Log, Newest, Order},
    payload::Payloads,
    tail::Tail,
};

/// Maximum queued appends; more wait with their callers.
const QUEUE: usize = 1_024;
/// Maximum appends of a commit.
const GROUP_APPENDS: usize = 512;
/// Bytes of a commit over which no further append is added to it.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Maximum times that the task yields to callers while the queue still grows.
const YIELDS_MAX: usize = 16;
/// The pause after the first lost race, doubled with each further one up to [`BACKOFF_MAX`], with jitter.
const BACKOFF_INITIAL: Duration = Duration::from_millis(1);
const BACKOFF_MAX: Duration = Duration::from_millis(100);

type Answer = oneshot::Sender<Result<Appended, AppendError>>;
type Outcome = Result<Appended, Conflict>;

/// An append with the sender of its outcome.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) append: Append,
    pub(crate) answer: Answer,
}

/// The writing side of a store.
#[derive(Debug)]
pub(crate) struct Writer {
    log: Log,
    payloads: Payloads,
    tail: Arc<Tail>,
    clock: fn() -> Timestamp,
    writer: Uuid,
    sequence: i64,
    /// The newest commit, once the log was looked at: `Some(None)` is an empty log.
    newest: Option<Option<Newest>>,
    /// Whether another writer may have committed since then.
    behind: bool,
    /// When that commit was last known to be in the log.
    confirmed: Instant,
    /// Since when the server does not have it.
    missing_since: Option<Instant>,
    known: Known,
}

/// How an attempt to commit a group ended.
enum Attempt {
    /// Each append has its outcome.
    Done(Vec<Outcome>),
    /// Another writer committed first, or nothing could be decided; nothing was written.
    Again(Failure),
    /// Nothing was written, and a retry makes no sense.
    Failed(Failure),
    /// The commit may be in the log, now or later.
    Unknown(Failure),
}

impl Writer {
    /// Starts the task. It ends when every sender is gone and all appends are answered.
    pub(crate) fn start(
        log: Log,
        tail: Arc<Tail>,
        clock: fn() -> Timestamp,
    ) -> (mpsc::Sender<Pending>, JoinHandle<()>) {
        let (sender, queue) = mpsc::channel(QUEUE);
        let writer = Self {
            known: Known::new(log.options().cached_streams),
            payloads: Payloads::new(log.clone()),
            log,
            tail,
            clock,
            writer: Uuid::new_v4(),
            sequence: 0,
            newest: None,
            behind: true,
            confirmed: Instant::now(),
            missing_since: None,
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
            let Some(first) = admit(first) else { continue };
            yield_while_growing(&queue).await;
            let mut bytes = inline_size(&first.append);
            let mut group = vec![first];
            while group.len() < GROUP_APPENDS && bytes < GROUP_BYTES {
                let Ok(next) = queue.try_recv() else { break };
                let Some(next) = admit(next) else { continue };
                let size = inline_size(&next.append);
                if bytes + size > DOCUMENT_BYTES_MAX {
                    left_over = Some(next);
                    break;
                }
                bytes += size;
                group.push(next);
            }
            self.write(group).await;
        }
    }

    /// Commits a group and answers all of it.
    async fn write(&mut self, group: Vec<Pending>) {
        let (appends, answers): (Vec<Append>, Vec<Answer>) = group
            .into_iter()
            .map(|pending| (pending.append, pending.answer))
            .unzip();
        let outcomes = self.commit(&appends).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // A caller that dropped its future does not need the outcome.
            let _ = answer.send(outcome);
        }
    }

    async fn commit(&mut self, appends: &[Append]) -> Vec<Result<Appended, AppendError>> {
        let limit = self.log.options().reconnect_timeout;
        let end = Instant::now() + limit;
        let mut payloads: Vec<Option<HashMap<usize, PayloadReference>>> = vec![None; appends.len()];
        let mut backoff = BACKOFF_INITIAL;
        let failed = |error: AppendError| vec![Err(error); appends.len()];
        loop {
            match self.attempt(appends, &mut payloads).await {
                Attempt::Done(outcomes) => {
                    let contract = |outcome: Outcome| outcome.map_err(AppendError::from);
                    return outcomes.into_iter().map(contract).collect();
                }
                Attempt::Again(failure) => {
                    if Instant::now() >= end {
                        return failed(failure.not_written());
                    }
                    let jitter = fastrand::f64().mul_add(0.5, 0.5);
                    sleep(backoff.mul_f64(jitter)).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Attempt::Failed(failure) => return failed(failure.not_written()),
                Attempt::Unknown(failure) => return failed(failure.outcome_unknown()),
            }
        }
    }

    async fn attempt(
        &mut self,
        appends: &[Append],
        payloads: &mut [Option<HashMap<usize, PayloadReference>>],
    ) -> Attempt {
        if let Err(failure) = self.confirm().await {
            return retry_if_transient(failure);
        }
        let up_to_date = self.behind || self.newest.is_none();
        if up_to_date && let Err(failure) = self.catch_up().await {
            return retry_if_transient(failure);
        }
        self.behind = true;
        let newest = self.newest.clone().flatten();
        let wanted: Vec<&Append> = appends.iter().collect();
        let found = look_up(&self.log, newest.as_ref(), &wanted, &mut self.known).await;
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                self.forget();
                return retry_if_transient(failure);
            }
        };
        let head = match newest.as_ref().map_or(Ok(0), |newest| to_u64(newest.last)) {
            Ok(head) => Position::new(head),
            Err(failure) => return Attempt::Failed(failure),
        };
        let mut decider = Decider::new(&found, head);
        let outcomes: Vec<Outcome> = appends
            .iter()
            .enumerate()
            .map(|(index, append)| decider.decide(index, append))
            .collect();
        // What is accepted is proven by the insert. A refusal may rest on a commit of another writer that is not known yet.
        if !up_to_date && outcomes.iter().any(Result::is_err) {
            return Box::pin(self.attempt(appends, payloads)).await;
        }
        let taken: Vec<usize> = (0..appends.len())
            .filter(|&index| matches!(outcomes.get(index), Some(Ok(done)) if !done.repeated))
            .collect();
        if taken.is_empty() {
            return Attempt::Done(outcomes);
        }
        for &index in &taken {
            if let Err(failure) = self.write_payloads(appends, payloads, index).await {
                return retry_if_transient(failure);
            }
        }
        let none = HashMap::new();
        let placed: Vec<Placed<'_>> = taken
            .iter()
            .filter_map(|&index| {
                Some(Placed {
                    append: appends.get(index)?,
                    appended: outcomes.get(index)?.as_ref().ok()?,
                    payloads: payloads.get(index)?.as_ref().unwrap_or(&none),
                })
            })
            .collect();
        let identity = self.next_identity();
        let commit = encode(
            &placed,
            newest.as_ref(),
            identity,
            (self.clock)(),
            self.log.options().json_documents,
        );
        self.insert(commit, outcomes).await
    }

    /// Inserts a commit, and retries until it is known whose its number is.
    async fn insert(&mut self, commit: CommitDocument, outcomes: Vec<Outcome>) -> Attempt {
        let end = Instant::now() + self.log.options().reconnect_timeout;
        let mut doubtful = false;
        let mut backoff = BACKOFF_INITIAL;
        loop {
            let inserted = self.log.insert(&commit).await;
            let failure = match inserted {
                Ok(Inserted::Done) => return self.committed(commit, outcomes),
                // After an insert without an answer the document with this number may be ours.
                Ok(Inserted::Taken) => match self.log.identity(commit.number).await {
                    Ok(Some(identity)) if identity == commit.identity => {
                        return self.committed(commit, outcomes);
                    }
                    Ok(Some(_)) => {
                        return Attempt::Again(Failure::Contended(
                            self.log.options().reconnect_timeout,
                        ));
                    }
                    // It is there, but a majority has it not yet, or will lose it.
                    Ok(None) => Failure::Stale(commit.number),
                    Err(failure) => failure,
                },
                Err(failure) if failure.is_refusal() && !doubtful => {
                    self.forget();
                    return Attempt::Failed(failure);
                }
                Err(failure) => {
                    doubtful = true;
                    failure
                }
            };
            if Instant::now() >= end {
                self.forget();
                return if doubtful {
                    Attempt::Unknown(failure)
                } else {
                    Attempt::Again(failure)
                };
            }
            tracing::debug!(%failure, commit = commit.number, "insert not answered; repeating it");
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    fn committed(&mut self, commit: CommitDocument, outcomes: Vec<Outcome>) -> Attempt {
        if self.known.apply(&commit).is_err() {
            self.known.clear();
        }
        self.newest = Some(Some(Newest::of(&commit)));
        self.is_confirmed();
        self.behind = false;
        self.tail.push(commit);
        Attempt::Done(outcomes)
    }

    /// Looks whether the newest known commit is still in the log, unless that was known a moment ago. It is not if the database
    /// was restored to an earlier state; an append behind it would leave a gap.
    async fn confirm(&mut self) -> Result<(), Failure> {
        let Some(Some(newest)) = &self.newest else {
            return Ok(());
        };
        let options = self.log.options();
        if self.confirmed.elapsed() < options.poll_interval {
            return Ok(());
        }
        let (number, found) = (newest.number, self.log.identity(newest.number).await?);
        if found.as_ref() == Some(&newest.identity) {
            self.is_confirmed();
            return Ok(());
        }
        if found.is_none() {
            // A server that lags behind looks like one that lost commits, for some time.
            let since = *self.missing_since.get_or_insert_with(Instant::now);
            if since.elapsed() < options.reconnect_timeout / 2 {
                return Err(Failure::Stale(number));
            }
        }
        tracing::warn!(
            commit = number,
            "newest known commit not found; the log is read again"
        );
        self.forget();
        Ok(())
    }

    fn is_confirmed(&mut self) {
        self.confirmed = Instant::now();
        self.missing_since = None;
    }

    /// Reads the commits of other writers.
    async fn catch_up(&mut self) -> Result<(), Failure> {
        let Some(newest) = &self.newest else {
            self.known.clear();
            self.newest = Some(self.log.newest().await?);
            return Ok(());
        };
        let known = newest.as_ref().map_or(0, |newest| newest.number);
        let page = self
            .log
            .page(doc! { "_id": { "$gt": known } }, Order::OldestFirst)
            .await?;
        if page.more {
            // Too far behind to follow commit by commit.
            self.known.clear();
            self.newest = Some(self.log.newest().await?);
            return Ok(());
        }
        for commit in page.commits {
            self.known.apply(&commit)?;
            self.newest = Some(Some(Newest::of(&commit)));
            self.is_confirmed();
            self.tail.push(commit);
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.newest = None;
        self.is_confirmed();
        self.known.clear();
    }

    fn next_identity(&mut self) -> Identity {
        self.sequence += 1;
        Identity {
            writer: uuid(*self.writer.as_bytes()),
            sequence: self.sequence,
        }
    }

    async fn write_payloads(
        &mut self,
        appends: &[Append],
        payloads: &mut [Option<HashMap<usize, PayloadReference>>],
        index: usize,
    ) -> Result<(), Failure> {
        let identity = self.next_identity();
        let (Some(append), Some(payloads)) = (appends.get(index), payloads.get_mut(index)) else {
            return Ok(());
        };
        if payloads.is_none() {
            *payloads = Some(write_payloads(&self.payloads, append, &identity).await?);
        }
        Ok(())
    }
}

fn retry_if_transient(failure: Failure) -> Attempt {
    if failure.is_transient() {
        Attempt::Again(failure)
    } else {
        Attempt::Failed(failure)
    }
}

/// Refuses an append whose names alone are larger than a document.
fn admit(pending: Pending) -> Option<Pending> {
    let size = names_size(&pending.append);
    if size <= DOCUMENT_BYTES_MAX {
        return Some(pending);
    }
    let reason = format!(
        "append is too large for a MongoDB document: names and tags of its events take {size} bytes; \
         expected at most {DOCUMENT_BYTES_MAX}"
    );
    let _ = pending.answer.send(Err(AppendError::Invalid { reason }));
    None
}

/// Yields to callers that were just answered, because otherwise every other group would have one append only.
async fn yield_while_growing(queue: &mpsc::Receiver<Pending>) {
    let mut waiting = queue.len();
    for _ in 0..YIELDS_MAX {
        tokio::task::yield_now().await;
        if queue.len() == waiting {
            return;
        }
        waiting = queue.len();
    }
}
