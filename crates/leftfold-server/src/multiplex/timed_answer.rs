//! Responses that begin in time.
//!
//! **Owns:** [`TimedAnswer`]: the end of a call whose method does not end it, the log of slow calls, and the hint how long a
//! connection stays. **Does not know:** what methods do.
//! **Invariants:** a call with one response gets one soon after its deadline; a call that is given up is dropped, so a read ends
//! and a write that began goes on by itself.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Response, header::CONNECTION};
use http_body_util::Either;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::{Answer, KEEP_ALIVE, Protocols};
use crate::{
    background::slow_calls::{CallEnd, CallTimer},
    call::OutcomeUnknown,
    protocol::http_api,
};

/// Time after the deadline of a call in which its method may still say itself that it is late, and what that means.
const LATE_AFTER: Duration = Duration::from_secs(1);

/// A response in progress that begins in time, and whose call is logged if it is slow.
pub(crate) struct TimedAnswer {
    answer: Answer,
    /// `None`: the answer was there at once, or it has no deadline.
    late: Option<Pin<Box<Sleep>>>,
    /// `None`: no call is logged, or this one has ended.
    timer: Option<(CallTimer, Arc<Protocols>)>,
    /// For clients of HTTP/1 that may use the connection again.
    keep_alive: Option<KeepAlive>,
}

/// How long a connection stays. It ends if the body of its request is not read.
pub(super) struct KeepAlive {
    pub(super) hint: HeaderValue,
    /// Whether the body was read to its end; `None` if there is none.
    pub(super) is_read: Option<Arc<AtomicBool>>,
}

impl KeepAlive {
    fn describe(self, headers: &mut HeaderMap) {
        if headers.contains_key(CONNECTION) {
            return;
        }
        match self.is_read.is_none_or(|read| read.load(Ordering::Relaxed)) {
            true => headers.insert(KEEP_ALIVE, self.hint),
            false => headers.insert(CONNECTION, HeaderValue::from_static("close")),
        };
    }
}

impl TimedAnswer {
    pub(super) fn new(
        answer: Answer,
        timer: Option<(CallTimer, Arc<Protocols>)>,
        keep_alive: Option<KeepAlive>,
    ) -> Self {
        Self {
            answer,
            late: None,
            timer,
            keep_alive,
        }
    }

    fn end(&mut self, end: CallEnd) {
        if let Some((timer, protocols)) = self.timer.take() {
            let principal = self.answer.principal();
            protocols.slow_calls.end(&timer, principal.as_ref(), end);
        }
    }
}

impl Future for TimedAnswer {
    type Output = <Answer as Future>::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut response = match Pin::new(&mut this.answer).poll(context) {
            Poll::Ready(response) => response,
            Poll::Pending => {
                let Some(deadline) = this.answer.deadline() else {
                    return Poll::Pending;
                };
                let late = || Box::pin(sleep_until(deadline + LATE_AFTER));
                ready!(this.late.get_or_insert_with(late).as_mut().poll(context));
                Ok(this.answer.late())
            }
        };
        if let (Some(keep_alive), Ok(response)) = (this.keep_alive.take(), &mut response) {
            keep_alive.describe(response.headers_mut());
        }
        self.end(CallEnd::Answered);
        Poll::Ready(response)
    }
}

impl Drop for TimedAnswer {
    fn drop(&mut self) {
        self.end(CallEnd::Abandoned);
    }
}

impl Answer {
    /// Returns the deadline of a call with one response, once its principal is known.
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Grpc(_, scope) => Some(scope.deadline()),
            Self::Http(http) => Some(http.scope.deadline()),
            Self::Open(..) | Self::Session(..) | Self::Verifying(_) | Self::Refused(_) => None,
        }
    }

    /// Returns the response of a call whose method did not end by its deadline.
    fn late(&self) -> Response<Either<tonic::body::Body, Body>> {
        match self {
            Self::Http(http) => http_api::late(http.reads_within).map(Either::Right),
            _ => Status::from(OutcomeUnknown::TimedOut)
                .into_http()
                .map(Either::Left),
        }
    }
}
