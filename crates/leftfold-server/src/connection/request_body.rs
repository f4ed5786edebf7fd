//! Request bodies with bounds on memory, time and message shape.
//!
//! **Owns:** [`BoundedBody`], [`BodyBounds`], [`RequestBodyError`]. **Does not know:** protocols, beyond the prefix of a gRPC
//! message; an [`InspectMessage`] decides which messages are allowed.
//! **Invariants:** received bytes are charged, announced ones are not. A body that makes no progress, or that is incomplete at
//! its request's deadline, ends with an error. A message is inspected before any of it is decoded.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::memory_budget::{BudgetExhausted, Reservation};

/// Bytes in front of each gRPC message: a flag and a length.
const PREFIX: usize = 5;
/// Interval between checks of a body's progress.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Minimum bytes that must arrive in that time.
const PROGRESS_BYTES: usize = 4 * 1024;
/// Timeout of a body that waits for memory, after which its request is rejected.
const MEMORY_WAIT: Duration = Duration::from_secs(1);
/// Interval at which a body that waits for memory retries.
const MEMORY_POLL: Duration = Duration::from_millis(10);

/// Inspection of a message while it is received.
pub(crate) trait InspectMessage: fmt::Debug + Send {
    /// Inspects the next bytes of the message, and returns how much memory their decoded form takes beyond them.
    ///
    /// # Errors
    /// The message must not be decoded.
    fn inspect(&mut self, data: &[u8]) -> Result<usize, Box<dyn Error + Send + Sync>>;

    /// Starts with the next message.
    fn reset(&mut self);
}

/// How a body is divided into messages.
#[derive(Debug)]
pub(crate) enum Framing {
    /// One message of HTTP.
    Whole,
    /// Messages of gRPC, each with a prefix.
    Grpc(Box<dyn InspectMessage>),
}

/// The bounds of a body.
#[derive(Debug)]
pub(crate) struct BodyBounds {
    pub(crate) framing: Framing,
    /// The reservation of the bytes, held until the request is executed.
    pub(crate) memory: Arc<Mutex<Reservation>>,
    /// Whether polling for the next message releases the memory of the last, as on calls with several messages.
    pub(crate) one_by_one: bool,
    /// The deadline of the whole body; `None` if it stays open, and each message has `request_timeout`.
    pub(crate) deadline: Option<Instant>,
    pub(crate) request_timeout: Duration,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The body was not complete in time.
    #[error("request body incomplete after {0:?}; nothing was written")]
    Timeout(Duration),
    /// The body made too little progress.
    #[error(
        "request body stalled: {received} bytes in {PROGRESS_EVERY:?}; expected at least {PROGRESS_BYTES}"
    )]
    Stalled {
        /// Bytes that arrived.
        received: usize,
    },
    /// Other requests hold the memory.
    #[error(transparent)]
    Overloaded(#[from] BudgetExhausted),
    /// A message must not be decoded.
    #[error(transparent)]
    Rejected(Box<dyn Error + Send + Sync>),
    /// The connection failed, or the client reset the request.
    #[error(transparent)]
    Io(Box<dyn Error + Send + Sync>),
}

/// A body within its bounds.
#[derive(Debug)]
pub(crate) struct BoundedBody<B> {
    body: B,
    bounds: BodyBounds,
    prefix: Prefix,
    /// Bytes of the current message that are missing.
    missing: usize,
    /// Whether a message has arrived in part.
    in_message: bool,
    /// A frame that waits for memory, and until when.
    waiting: Option<(Frame<Bytes>, usize, Instant)>,
    clock: Progress,
    ended: bool,
}

/// How long the body was awaited, and what arrived meanwhile.
#[derive(Debug, Default)]
struct Progress {
    /// When the current wait for the body began. Time in which the body is not polled does not count.
    since: Option<Instant>,
    waited: Duration,
    received: usize,
    /// Time spent waiting for the current message.
    message: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> BoundedBody<B> {
    /// Creates a body with these bounds.
    pub(crate) fn new(body: B, bounds: BodyBounds) -> Self {
        let in_message = !bounds.one_by_one;
        Self {
            body,
            bounds,
            prefix: Prefix::default(),
            missing: 0,
            in_message,
            waiting: None,
            clock: Progress::default(),
            ended: false,
        }
    }

    /// Charges a frame, and what its messages take when they are decoded.
    fn charge(&self, bytes: usize) -> Result<(), BudgetExhausted> {
        let memory = self.bounds.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner).grow(bytes)
    }

    fn clear_memory(&self) {
        let memory = self.bounds.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Records what arrived, and returns how much memory it takes in total.
    fn note(&mut self, data: &[u8]) -> Result<usize, RequestBodyError> {
        let mut size = data.len();
        let Framing::Grpc(inspector) = &mut self.bounds.framing else {
            return Ok(size);
        };
        let mut data = data;
        while !data.is_empty() {
            if self.missing == 0 {
                self.in_message = true;
                let Some((flag, length, rest)) = self.prefix.take(data) else {
                    return Ok(size);
                };
                inspector.reset();
                data = rest;
                // What is longer than a message may be is refused where messages are read.
                self.missing = length;
                self.in_message = length > 0 || !self.bounds.one_by_one;
                // Compressed messages are refused where messages are read.
                self.prefix.inspects = flag == 0;
                continue;
            }
            let (here, rest) = data.split_at(self.missing.min(data.len()));
            if self.prefix.inspects {
                size += inspector
                    .inspect(here)
                    .map_err(RequestBodyError::Rejected)?;
            }
            self.missing -= here.len();
            data = rest;
            if self.missing == 0 {
                self.in_message = !self.bounds.one_by_one;
                self.clock.message = Duration::ZERO;
            }
        }
        Ok(size)
    }

    /// Passes a frame on once it is charged.
    fn poll_charge(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        loop {
            let Some((frame, bytes, until)) = self.waiting.take() else {
                return Poll::Ready(None);
            };
            match self.charge(bytes) {
                Ok(()) => return Poll::Ready(Some(Ok(frame))),
                Err(full) if Instant::now() >= until => {
                    return Poll::Ready(Some(Err(full.into())));
                }
                Err(_) => self.waiting = Some((frame, bytes, until)),
            }
            let timer = self
                .clock
                .timer
                .insert(Box::pin(tokio::time::sleep(MEMORY_POLL)));
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Returns an error if the body is late, after all that arrived was read.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<RequestBodyError> {
        loop {
            let now = Instant::now();
            let since = *self.clock.since.get_or_insert(now);
            let new = now - since;
            self.clock.since = Some(now);
            if self.in_message {
                self.clock.waited += new;
                self.clock.message += new;
            }
            let all = self.bounds.request_timeout;
            if self.bounds.deadline.is_some_and(|deadline| now >= deadline)
                || self.bounds.deadline.is_none() && self.clock.message >= all
            {
                return Poll::Ready(RequestBodyError::Timeout(all));
            }
            if self.clock.waited >= PROGRESS_EVERY {
                let received = std::mem::take(&mut self.clock.received);
                self.clock.waited = Duration::ZERO;
                if received < PROGRESS_BYTES {
                    return Poll::Ready(RequestBodyError::Stalled { received });
                }
            }
            let mut next = PROGRESS_EVERY - self.clock.waited;
            next = next.min(match self.bounds.deadline {
                Some(deadline) => deadline - now,
                None => all - self.clock.message,
            });
            let timer = self.clock.timer.insert(Box::pin(tokio::time::sleep(next)));
            ready!(timer.as_mut().poll(context));
        }
    }
}

impl<B> Body for BoundedBody<B>
where
    B: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if let Some(charged) = ready!(this.poll_charge(context)) {
            this.ended = charged.is_err();
            return Poll::Ready(Some(charged));
        }
        if this.bounds.one_by_one && !this.in_message && this.clock.since.is_none() {
            // The client of this body has taken all messages before.
            this.clear_memory();
        }
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.clock.since = None;
                let bytes = match frame.data_ref().map(|data| this.note(&data.clone())) {
                    None => 0,
                    Some(Ok(bytes)) => bytes,
                    Some(Err(error)) => {
                        this.ended = true;
                        return Poll::Ready(Some(Err(error)));
                    }
                };
                this.clock.received += bytes;
                this.waiting = Some((frame, bytes, Instant::now() + MEMORY_WAIT));
                let charged = ready!(this.poll_charge(context));
                this.ended = matches!(charged, Some(Err(_)));
                Poll::Ready(charged)
            }
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Some(Err(RequestBodyError::Io(Box::new(error)))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            // A call that stays open may be silent between its messages.
            Poll::Pending if !this.in_message && this.bounds.deadline.is_none() => Poll::Pending,
            Poll::Pending => {
                let late = ready!(this.poll_late(context));
                this.ended = true;
                Poll::Ready(Some(Err(late)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The beginning of a message, which may come in pieces.
#[derive(Debug, Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    filled: usize,
    /// Whether the message after it is inspected.
    inspects: bool,
}

impl Prefix {
    /// The flag and the length of the next message and what follows its prefix, once the prefix is complete.
    fn take<'a>(&mut self, data: &'a [u8]) -> Option<(u8, usize, &'a [u8])> {
        let here = (PREFIX - self.filled).min(data.len());
        let (head, rest) = data.split_at_checked(here)?;
        for (slot, byte) in self.bytes.iter_mut().skip(self.filled).zip(head) {
            *slot = *byte;
        }
        self.filled += here;
        if self.filled < PREFIX {
            return None;
        }
        self.filled = 0;
        let [flag, length @ ..] = self.bytes;
        // The wire's order of bytes, highest first.
        let length = length
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        Some((flag, length, rest))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;
    use crate::connection::memory_budget::MemoryBudget;

    /// Gives its pieces one by one, then nothing or the end.
    struct Pieces {
        pieces: VecDeque<Vec<u8>>,
        ends: bool,
    }

    impl Body for Pieces {
        type Data = Bytes;
        type Error = hyper::Error;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            match self.pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    /// Takes ten bytes for each byte that is 7, and rejects a 9.
    #[derive(Debug)]
    struct Sevens;

    impl InspectMessage for Sevens {
        fn inspect(&mut self, data: &[u8]) -> Result<usize, Box<dyn Error + Send + Sync>> {
            if data.contains(&9) {
                return Err("a nine".into());
            }
            Ok(data.iter().filter(|byte| **byte == 7).count() * 10)
        }
        fn reset(&mut self) {}
    }

    fn pieces(bytes: &[u8], size: usize, ends: bool) -> Pieces {
        Pieces {
            pieces: bytes.chunks(size).map(<[u8]>::to_vec).collect(),
            ends,
        }
    }

    fn message(byte: u8, length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, length];
        bytes.extend(vec![byte; length.into()]);
        bytes
    }

    fn bounds(budget: &MemoryBudget, deadline: Option<Duration>) -> BodyBounds {
        BodyBounds {
            framing: Framing::Grpc(Box::new(Sevens)),
            memory: Arc::new(Mutex::new(budget.without_connection().begin())),
            one_by_one: deadline.is_none(),
            deadline: deadline.map(|after| Instant::now() + after),
            request_timeout: Duration::from_secs(30),
        }
    }

    #[tokio::test]
    async fn messages_pass_whole_however_they_are_cut_and_leave_the_budget_as_it_was() {
        let messages = [
            message(7, 100),
            message(1, 0),
            message(1, 1),
            message(3, 200),
        ]
        .concat();
        for size in 1..=messages.len() {
            let budget = MemoryBudget::new(64 * 1024);
            let body = BoundedBody::new(pieces(&messages, size, true), bounds(&budget, None));
            let passed = body.collect().await.unwrap().to_bytes();
            assert_eq!(passed, messages, "pieces of {size}");
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_charged_as_bytes_come_with_what_they_take_decoded_and_kept_until_the_request_is_done()
     {
        let budget = MemoryBudget::new(64 * 1024);
        let bounds = bounds(&budget, Some(Duration::from_secs(30)));
        let kept = Arc::clone(&bounds.memory);
        let body = BoundedBody::new(pieces(&message(7, 200), 50, true), bounds);
        assert_eq!(budget.used(), 0, "nothing has come");
        body.collect().await.unwrap();
        assert!(budget.used() >= 2_205, "{}", budget.used());
        drop(kept);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_a_moment_for_memory_and_is_rejected_without_it() {
        let budget = MemoryBudget::new(64 * 1024);
        let mut other = budget.without_connection().begin();
        other.grow(60 * 1024).unwrap();
        let large = || pieces(&[0, 0, 0, 64, 0], 5, true);
        let mut filled = large();
        filled.pieces.push_back(vec![1; 16 * 1024]);
        let body = BoundedBody::new(filled, bounds(&budget, None));
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, RequestBodyError::Overloaded(_)), "{error}");
        let mut filled = large();
        filled.pieces.push_back(vec![1; 16 * 1024]);
        let mut body = Box::pin(BoundedBody::new(filled, bounds(&budget, None)).collect());
        assert!(futures_util::poll!(body.as_mut()).is_pending());
        drop(other);
        assert_eq!(body.await.unwrap().to_bytes().len(), 16 * 1024 + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_in_the_middle_is_given_up_and_so_is_half_a_prefix_or_none() {
        let budget = MemoryBudget::new(64 * 1024);
        for sent in [60, 3, 0] {
            for deadline in [
                Some(Duration::from_secs(30)),
                Some(Duration::from_secs(2)),
                None,
            ] {
                if sent == 0 && deadline.is_none() {
                    continue;
                }
                let half = &message(1, 100)[..sent];
                let body = BoundedBody::new(pieces(half, 60, false), bounds(&budget, deadline));
                let error = body.collect().await.unwrap_err();
                let late = matches!(
                    error,
                    RequestBodyError::Stalled { .. } | RequestBodyError::Timeout(_)
                );
                assert!(late, "{error}");
                assert_eq!(budget.used(), 0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_call_may_be_silent_between_its_messages() {
        let budget = MemoryBudget::new(64 * 1024);
        let body = pieces(&message(1, 100), 500, false);
        let mut body = BoundedBody::new(body, bounds(&budget, None));
        body.frame().await.unwrap().unwrap();
        let next = tokio::time::timeout(Duration::from_secs(3600), body.frame()).await;
        assert!(next.is_err(), "still waiting");
        assert_eq!(budget.used(), 0, "the message was taken");
    }

    #[tokio::test]
    async fn a_message_that_may_not_be_decoded_ends_the_body() {
        let budget = MemoryBudget::new(64 * 1024);
        let body = pieces(&[message(1, 50), message(9, 50)].concat(), 7, true);
        let body = BoundedBody::new(body, bounds(&budget, Some(Duration::from_secs(30))));
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, RequestBodyError::Rejected(_)), "{error}");
    }
}
