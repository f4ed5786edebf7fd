//! Many appends over one call.
//!
//! **Owns:** [`run`]: reading appends as they arrive and answering them as they finish. **Does not know:** what they hold.
//! **Invariants:** a bounded number is in flight; while a client does not read its responses, its appends are not read; an
//! append that began finishes even if its client is gone; at shutdown the server says which appends it accepted.

use std::{collections::VecDeque, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use futures_util::{FutureExt, StreamExt, stream, stream::FuturesUnordered};
use leftfold_proto::{
    leftfold::v1::{
        AppendResult, AppendsRequest, AppendsResponse, NumberedAppend, append_result::Outcome,
    },
    prost::Message,
};
use leftfold_store::EventStore;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{decode, encode, status::ErrorResponse};
use crate::{
    call,
    connection::ConnectionMemory,
    protocol::{decoded_append, message_shapes::SESSION_APPENDS_MAX},
    state::ServerState,
};

/// Maximum appends of one session that are in flight or whose response is not sent. More would only wait in the store.
const APPENDS_MAX: usize = SESSION_APPENDS_MAX;

type Answers = Result<AppendsResponse, Status>;

/// Starts a session; its work outlives the stream of responses.
pub(super) fn run(
    shared: &Arc<ServerState>,
    incoming: Streaming<AppendsRequest>,
) -> BoxStream<'static, Answers> {
    let (sender, receiver) = mpsc::channel(1);
    let session = Session {
        shared: Arc::clone(shared),
        store: shared.store(),
        memory: call::connection_memory(shared),
        sender,
        waiting: VecDeque::new(),
        begun: 0,
        under_way: FuturesUnordered::new(),
        answers: Vec::new(),
    };
    shared.tasks.spawn(session.serve(incoming));
    Box::pin(stream::unfold(receiver, |mut receiver| async move {
        let next = receiver.recv().await?;
        Some((next, receiver))
    }))
}

/// Why reading appends ended.
enum End {
    /// The client is done, or disconnected.
    Client,
    Stopping,
    Broken(ErrorResponse),
}

struct Session {
    shared: Arc<ServerState>,
    /// That of the principal who began the session: the session is a task of its own, which has no principal.
    store: Arc<dyn EventStore>,
    memory: ConnectionMemory,
    sender: mpsc::Sender<Answers>,
    /// Appends received and not begun.
    waiting: VecDeque<NumberedAppend>,
    /// The number of the newest append that was begun.
    begun: u64,
    under_way: FuturesUnordered<BoxFuture<'static, AppendResult>>,
    answers: Vec<AppendResult>,
}

impl Session {
    async fn serve(mut self, incoming: Streaming<AppendsRequest>) {
        let end = self.take(incoming).await;
        while let Some(answer) = self.under_way.next().await {
            self.answers.push(answer);
        }
        let accepted_through = matches!(end, End::Stopping).then_some(self.begun);
        let last = AppendsResponse {
            answers: std::mem::take(&mut self.answers),
            accepted_through,
        };
        // A client that is gone cannot be told.
        let _ = self.sender.send(Ok(last)).await;
        let refusal = match end {
            End::Client => return,
            End::Stopping => ErrorResponse::stopping(),
            End::Broken(refusal) => refusal,
        };
        let _ = self.sender.send(Err(refusal.into())).await;
    }

    /// Reads and answers appends until there are no more.
    async fn take(&mut self, mut incoming: Streaming<AppendsRequest>) -> End {
        let stopping = self.shared.stopping.clone();
        loop {
            if let Err(refusal) = self.begin_waiting().await {
                return End::Broken(refusal);
            }
            let has_room = self.waiting.is_empty() && self.open() < APPENDS_MAX;
            tokio::select! {
                biased;
                () = stopping.cancelled() => return End::Stopping,
                permit = self.sender.reserve(), if !self.answers.is_empty() => match permit {
                    Ok(permit) => permit.send(Ok(AppendsResponse {
                        answers: std::mem::take(&mut self.answers),
                        accepted_through: None,
                    })),
                    Err(_) => return End::Client,
                },
                Some(answer) = self.under_way.next(), if !self.under_way.is_empty() => {
                    self.answers.push(answer);
                    while let Some(Some(answer)) = self.under_way.next().now_or_never() {
                        self.answers.push(answer);
                    }
                }
                message = incoming.message(), if has_room => match message {
                    Ok(Some(message)) => self.waiting.extend(message.appends),
                    Ok(None) | Err(_) => return End::Client,
                },
            }
        }
    }

    fn open(&self) -> usize {
        self.under_way.len() + self.answers.len()
    }

    /// Begins as many waiting appends as the limit allows.
    async fn begin_waiting(&mut self) -> Result<(), ErrorResponse> {
        while self.open() < APPENDS_MAX
            && let Some(next) = self.waiting.pop_front()
        {
            let due = self.begun + 1;
            if next.number != due {
                return Err(ErrorResponse::invalid(format!(
                    "append is number {}, but number {due} is due",
                    next.number
                )));
            }
            self.begun = due;
            self.begin(next).await;
        }
        Ok(())
    }

    async fn begin(&mut self, next: NumberedAppend) {
        let number = next.number;
        let mut memory = self.memory.begin();
        let decoded = memory
            .grow(next.encoded_len())
            .map_err(ErrorResponse::overloaded)
            .and_then(|()| decode::append(next.append.unwrap_or_default()))
            .and_then(
                |append| match memory.grow(decoded_append::memory(&append)) {
                    Ok(()) => Ok(append),
                    Err(exhausted) => Err(ErrorResponse::overloaded(exhausted)),
                },
            );
        match decoded {
            Ok(append) => {
                let store = Arc::clone(&self.store);
                for write in append.writes() {
                    // Those that come later must not overtake it.
                    store.prepare(&write.stream).await;
                }
                self.under_way.push(Box::pin(async move {
                    let outcome = store.append(append).await;
                    drop(memory);
                    let outcome = match outcome {
                        Ok(appended) => Outcome::Appended(encode::appended(&appended)),
                        Err(error) => Outcome::Error(ErrorResponse::from(error).into_failure()),
                    };
                    AppendResult {
                        number,
                        outcome: Some(outcome),
                    }
                }));
            }
            Err(refusal) => self.answers.push(AppendResult {
                number,
                outcome: Some(Outcome::Error(refusal.into_failure())),
            }),
        }
    }
}
