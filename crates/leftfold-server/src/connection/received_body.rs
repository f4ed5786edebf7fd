//! Request bodies as they are received.
//!
//! **Owns:** [`ReceivedBody`]: what becomes of the rest of a body that is not read to its end.
//! **Does not know:** what a body says.
//! **Invariants:** what a client had sent by HTTP/2 before it knew that its call had ended ends no connection, however many of
//! its calls end at once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::FutureExt;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::{runtime::Handle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Time in which a client that goes on sending learns that its call has ended.
const DISCARDED_FOR: Duration = Duration::from_secs(5);

/// The body of a request.
///
/// Dropped before its end, it would reset its stream. The connection remembers few of the streams that it has reset, takes what
/// arrives for any other as an error of its client, and ends after a number of those. So the rest of a body by HTTP/2 is received
/// for a while, and thrown away.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    /// `None`: it was dropped.
    body: Option<Incoming>,
    /// Ends receiving the rest; `None` if nothing of it is received.
    discards_until: Option<Arc<CancellationToken>>,
    /// Whether it was read to its end; `None` if there was nothing to read.
    read: Option<Arc<AtomicBool>>,
}

impl ReceivedBody {
    /// Creates the body of a request by HTTP/1, or by HTTP/2 on a server that stops when `stopping` says so.
    pub(super) fn new(body: Incoming, stopping: Option<Arc<CancellationToken>>) -> Self {
        let read = (!body.is_end_stream()).then(Arc::default);
        Self {
            body: Some(body),
            discards_until: stopping,
            read,
        }
    }

    /// Returns what tells whether it was read to its end; `None` if there is nothing to read.
    pub(crate) fn is_read(&self) -> Option<Arc<AtomicBool>> {
        self.read.clone()
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if (frame.is_none() || body.is_end_stream())
            && let Some(read) = &self.read
        {
            read.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        let (Some(body), Some(stopping)) = (self.body.take(), self.discards_until.take()) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if body.is_end_stream() {
            return;
        }
        let mut rest = Box::pin(discard(body, stopping));
        // Nothing is left of most bodies but what is here already, or a reset.
        if rest.as_mut().now_or_never().is_none() {
            drop(runtime.spawn(rest));
        }
    }
}

/// Receives the rest of a body.
async fn discard(mut body: Incoming, stopping: Arc<CancellationToken>) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let rest = timeout(DISCARDED_FOR, rest);
    let _ = stopping.run_until_cancelled(rest).await;
}
