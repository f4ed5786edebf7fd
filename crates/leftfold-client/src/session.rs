//! The call that carries a connection's appends.
//!
//! **Owns:** sending queued appends, several in one message where possible, and reporting each [`SendOutcome`].
//! **Does not know:** whether an append may be retried; `append` decides.
//! **Invariants:** an append is sent over the connection at most once; its caller learns whether it may have arrived; an
//! append whose caller is gone is not sent.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream;
use leftfold_proto::leftfold::v1::{
    AppendsRequest, AppendsResponse, NumberedAppend, append_result::Outcome,
};
use leftfold_store::Cause;
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;

use crate::{
    RpcError,
    backoff::Backoff,
    connection::{LastError, StoreStub},
    queued_append::{QueuedAppend, SendOutcome},
    status::StatusKind,
};

/// Maximum appends of one message.
const MESSAGE_APPENDS: usize = 512;

/// The task that sends the appends of one connection.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) calls: StoreStub,
    pub(crate) address: String,
    pub(crate) queue: mpsc::Receiver<QueuedAppend>,
    pub(crate) last_error: Arc<LastError>,
    pub(crate) backoff: Backoff,
    /// Approximate bytes of one message.
    pub(crate) message_bytes: usize,
}

/// An open call.
struct Open {
    outgoing: mpsc::Sender<AppendsRequest>,
    incoming: Streaming<AppendsResponse>,
    newest: u64,
    unanswered: BTreeMap<u64, oneshot::Sender<SendOutcome>>,
}

/// What happens next in an open call.
enum Step {
    Answers(AppendsResponse),
    Append(Box<QueuedAppend>),
    /// The client is gone.
    Unwanted,
    Over(Cause),
}

impl Sender {
    /// Runs until the client is dropped.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            if !first.claim.is_waiting() {
                continue;
            }
            match self.open().await {
                Ok(open) => self.serve(open, first).await,
                Err(cause) => {
                    // The task that waits for it queues it again.
                    let _ = first.outcome.send(SendOutcome::NotBegun);
                    self.last_error.set(Some(cause));
                    self.backoff.wait().await;
                }
            }
        }
    }

    async fn open(&mut self) -> Result<Open, Cause> {
        let (outgoing, queue) = mpsc::channel(1);
        let messages = stream::unfold(queue, |mut queue| async move {
            let next: AppendsRequest = queue.recv().await?;
            Some((next, queue))
        });
        match self.calls.appends(messages).await {
            Ok(response) => Ok(Open {
                outgoing,
                incoming: response.into_inner(),
                newest: 0,
                unanswered: BTreeMap::new(),
            }),
            Err(status) => Err(said(StatusKind::of(status, &self.address))),
        }
    }

    /// Sends appends and receives outcomes until the call ends.
    async fn serve(&mut self, mut open: Open, first: QueuedAppend) {
        let mut first = Some(first);
        let cause = loop {
            match self.step(&mut open, &mut first).await {
                Step::Answers(answers) => {
                    self.backoff.reset();
                    self.last_error.set(None);
                    if open.hear(answers) {
                        break RpcError::ShuttingDown.cause();
                    }
                }
                Step::Append(item) => self.send(&mut open, *item),
                Step::Unwanted => return open.finish().await,
                Step::Over(cause) => break cause,
            }
        };
        self.last_error.set(Some(Arc::clone(&cause)));
        for (_, outcome) in open.unanswered {
            let _ = outcome.send(SendOutcome::Lost(Arc::clone(&cause)));
        }
        if let Some(item) = first {
            let _ = item.outcome.send(SendOutcome::NotBegun);
        }
        self.backoff.wait().await;
    }

    async fn step(&mut self, open: &mut Open, first: &mut Option<QueuedAppend>) -> Step {
        let Open {
            outgoing, incoming, ..
        } = open;
        let queue = &mut self.queue;
        let next = async {
            // Room first: what comes while the connection is busy goes together.
            outgoing.reserve().await.ok()?;
            match first.take() {
                Some(item) => Some(Some(item)),
                None => Some(queue.recv().await),
            }
        };
        tokio::select! {
            biased;
            heard = incoming.message() => match heard {
                Ok(Some(answers)) => Step::Answers(answers),
                Ok(None) => Step::Over(RpcError::ShuttingDown.cause()),
                Err(status) => Step::Over(said(StatusKind::of(status, &self.address))),
            },
            next = next => match next {
                Some(Some(item)) => Step::Append(Box::new(item)),
                Some(None) => Step::Unwanted,
                None => Step::Over(RpcError::ShuttingDown.cause()),
            },
        }
    }

    /// Sends an append and those queued after it, in one message.
    fn send(&mut self, open: &mut Open, first: QueuedAppend) {
        let mut message = AppendsRequest::default();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(item) = next {
            bytes += item.bytes;
            if item.claim.take() {
                open.newest += 1;
                open.unanswered.insert(open.newest, item.outcome);
                message.appends.push(NumberedAppend {
                    number: open.newest,
                    append: Some(item.append),
                });
            }
            let has_room = bytes < self.message_bytes && message.appends.len() < MESSAGE_APPENDS;
            next = has_room.then(|| self.queue.try_recv().ok()).flatten();
        }
        if !message.appends.is_empty() {
            // There is room, unless the call is over; then the next step tells.
            let _ = open.outgoing.try_send(message);
        }
    }
}

impl Open {
    /// Sends outcomes to waiting callers; returns `true` if the server accepts no more.
    fn hear(&mut self, answers: AppendsResponse) -> bool {
        for answer in answers.answers {
            let Some(outcome) = self.unanswered.remove(&answer.number) else {
                continue;
            };
            let result = match answer.outcome {
                Some(Outcome::Appended(appended)) => SendOutcome::Appended(appended),
                Some(Outcome::Error(failure)) => SendOutcome::Failed(failure),
                None => SendOutcome::Lost(
                    RpcError::not_understood("an answer without an outcome").cause(),
                ),
            };
            let _ = outcome.send(result);
        }
        let Some(accepted_through) = answers.accepted_through else {
            return false;
        };
        let not_begun = self
            .unanswered
            .split_off(&accepted_through.saturating_add(1));
        for (_, outcome) in not_begun {
            let _ = outcome.send(SendOutcome::NotBegun);
        }
        true
    }

    /// Receives the last outcomes; nothing more is sent.
    async fn finish(mut self) {
        drop(self.outgoing);
        while !self.unanswered.is_empty() {
            let Ok(Some(answers)) = self.incoming.message().await else {
                return;
            };
            for answer in answers.answers {
                self.unanswered.remove(&answer.number);
            }
        }
    }
}

fn said(said: StatusKind) -> Cause {
    match said {
        StatusKind::NoResponse(cause) | StatusKind::Rejected(cause) => cause,
        StatusKind::ShuttingDown => RpcError::ShuttingDown.cause(),
        StatusKind::Store(failure) => Arc::new(crate::status::append_error(failure)),
    }
}
