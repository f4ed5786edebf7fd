//! How much of the clients' requests may be in memory at once.
//!
//! **Owns:** [`RequestBudget`], the budget all requests share, and [`BudgetedBody`], a body that keeps to it.
//! **Does not know:** what is in a body, beyond the length that begins each gRPC message.
//! **Invariants:** a message is received only when all of it fits; whoever was let in has all it needs, so that those who wait
//! for each other do not exist; whoever was let in and does not go on is put out.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_util::sync::PollSemaphore;

use crate::Settings;

/// Bytes in front of each gRPC message: a flag and a length.
const PREFIX: usize = 5;

/// The budget of one server.
#[derive(Debug, Clone)]
pub(crate) struct RequestBudget {
    budget: Arc<Semaphore>,
    budget_bytes: u32,
    message_bytes_max: u32,
    patience: Duration,
}

/// How the length of what comes is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Messages with a prefix each.
    Grpc,
    /// One message, whose length may be known beforehand.
    Whole,
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestBodyError {
    /// The client stopped in the middle.
    #[error("the request did not arrive within {0:?}")]
    TooSlow(Duration),
    /// The requests of others took all the room for so long.
    #[error("timed out after {0:?} waiting for request memory (in_flight_bytes_max)")]
    Crowded(Duration),
    /// The connection failed, or the client broke the request off.
    #[error(transparent)]
    Broken(Box<dyn std::error::Error + Send + Sync>),
}

impl RequestBudget {
    pub(crate) fn new(settings: &Settings) -> Self {
        let narrow = |bytes: crate::settings::ByteSize| u32::try_from(bytes.0).unwrap_or(u32::MAX);
        let budget_bytes = narrow(settings.in_flight_bytes_max);
        Self {
            budget: Arc::new(Semaphore::new(budget_bytes as usize)),
            budget_bytes,
            message_bytes_max: narrow(settings.message_bytes_max),
            patience: settings.request_timeout,
        }
    }

    /// The same body, within the budget.
    pub(crate) fn limit<B>(&self, body: B, framing: Framing) -> BudgetedBody<B> {
        BudgetedBody {
            body,
            framing,
            intake: self.clone(),
            semaphore: PollSemaphore::new(Arc::clone(&self.budget)),
            prefix: Prefix::default(),
            missing: 0,
            wanted: 0,
            begun: framing == Framing::Grpc,
            held: None,
            deadline: None,
        }
    }
}

/// A body that waits for its part of the budget.
#[derive(Debug)]
pub(crate) struct BudgetedBody<B> {
    body: B,
    framing: Framing,
    intake: RequestBudget,
    semaphore: PollSemaphore,
    prefix: Prefix,
    /// Bytes of the message under way that did not come yet.
    missing: usize,
    /// Bytes to be granted before anything more is received.
    wanted: u32,
    /// Whether the length of the whole was looked at.
    begun: bool,
    held: Option<OwnedSemaphorePermit>,
    /// When the message under way has to be there.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> BudgetedBody<B> {
    /// Takes note of what arrived, and of what it announces.
    fn note(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.missing > 0 {
                let here = self.missing.min(data.len());
                self.missing -= here;
                data = data.get(here..).unwrap_or_default();
                continue;
            }
            let Some((length, rest)) = self.prefix.take(data) else {
                return;
            };
            data = rest;
            self.missing = length;
            if length > data.len() {
                self.want(length);
            }
        }
    }

    fn want(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        // The message before is complete; to keep its room while waiting for more could block everyone.
        self.held = None;
        // What is longer than a message may be is refused where messages are read; here it gets no room.
        if length <= self.intake.message_bytes_max {
            self.wanted = length.min(self.intake.budget_bytes);
        }
        self.deadline = Some(Box::pin(tokio::time::sleep(self.intake.patience)));
    }

    fn poll_grant(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.wanted > 0 {
            // The semaphore is never closed.
            self.held = ready!(self.semaphore.poll_acquire_many(context, self.wanted));
            self.wanted = 0;
            // The client's own time begins now.
            self.deadline = Some(Box::pin(tokio::time::sleep(self.intake.patience)));
        }
        Poll::Ready(())
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.deadline
            .as_mut()
            .is_some_and(|deadline| deadline.as_mut().poll(context).is_ready())
    }
}

impl<B> Body for BudgetedBody<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let this = self.get_mut();
        if this.framing == Framing::Grpc && this.missing == 0 && this.wanted == 0 {
            // Whoever asks for more has taken what came before.
            this.held = None;
            this.deadline = None;
        }
        if !this.begun {
            this.begun = true;
            let bound = this.intake.message_bytes_max.into();
            let length = this.body.size_hint().upper().unwrap_or(bound).min(bound);
            this.want(usize::try_from(length).unwrap_or(usize::MAX));
        }
        if this.poll_grant(context).is_pending() {
            if this.is_late(context) {
                return Poll::Ready(Some(Err(RequestBodyError::Crowded(this.intake.patience))));
            }
            return Poll::Pending;
        }
        if this.is_late(context) {
            return Poll::Ready(Some(Err(RequestBodyError::TooSlow(this.intake.patience))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let (Framing::Grpc, Some(Ok(frame))) = (this.framing, &frame)
            && let Some(data) = frame.data_ref()
        {
            this.note(data);
        }
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| RequestBodyError::Broken(Box::new(error)))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
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
}

impl Prefix {
    /// The length of the next message and what follows its prefix, once the prefix is complete.
    fn take<'a>(&mut self, data: &'a [u8]) -> Option<(usize, &'a [u8])> {
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
        let [_, length @ ..] = self.bytes;
        // The wire's order of bytes, highest first.
        let length = length
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        Some((length, rest))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;

    /// Gives its pieces one by one, then nothing for ever or the end.
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

    fn intake(budget: &str) -> RequestBudget {
        let mut settings = Settings::default();
        settings.set("in_flight_bytes_max", budget).unwrap();
        RequestBudget::new(&settings)
    }

    fn pieces(bytes: &[u8], size: usize, ends: bool) -> Pieces {
        Pieces {
            pieces: bytes.chunks(size).map(<[u8]>::to_vec).collect(),
            ends,
        }
    }

    fn message(length: u8) -> Vec<u8> {
        let mut bytes = vec![0, 0, 0, 0, length];
        bytes.extend(vec![7; length.into()]);
        bytes
    }

    #[tokio::test]
    async fn messages_pass_whole_however_they_are_cut_and_leave_the_budget_as_it_was() {
        let bytes = [message(100), message(0), message(1), message(200)].concat();
        for size in 1..bytes.len() + 1 {
            let intake = intake("200");
            let body = intake.limit(pieces(&bytes, size, true), Framing::Grpc);
            let passed = body.collect().await.unwrap().to_bytes();
            assert_eq!(passed, bytes, "pieces of {size}");
            assert_eq!(intake.budget.available_permits(), 200);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_for_its_room_and_comes_when_another_is_gone() {
        let intake = intake("150");
        let mut first = intake.limit(pieces(&message(100), 50, false), Framing::Grpc);
        while first.missing > 0 || first.held.is_none() {
            first.frame().await.unwrap().unwrap();
        }
        let second = intake.limit(pieces(&message(90), 50, true), Framing::Grpc);
        let mut second = Box::pin(second.collect());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        assert_eq!(second.await.unwrap().to_bytes().len(), 95);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stops_in_the_middle_is_given_up() {
        let intake = intake("1KiB");
        let half = message(100)[..60].to_vec();
        let body = intake.limit(pieces(&half, 60, false), Framing::Grpc);
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, RequestBodyError::TooSlow(_)), "{error}");
        assert_eq!(intake.budget.available_permits(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_of_messages_is_waited_for() {
        let intake = intake("1KiB");
        let mut body = intake.limit(pieces(&message(100), 500, false), Framing::Grpc);
        body.frame().await.unwrap().unwrap();
        let next = tokio::time::timeout(Duration::from_secs(3600), body.frame()).await;
        assert!(next.is_err(), "still waiting");
    }
}
