//! Request bodies that report a reset or a disconnect as an error instead of an end.
//!
//! **Owns:** [`ResetAwareBody`]. **Does not know:** what a body says.
//! **Invariants:** a body ends only if its sender ended it. If a client cancels a call or disconnects in the middle, the body
//! ends with an error, so that no part of a message is taken for all of it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;

use super::ReceivedBody;

/// A body received by HTTP/2. There a reset by the client would otherwise be taken for the end: one without an error by HTTP,
/// one that cancels by gRPC.
#[derive(Debug)]
pub(crate) struct ResetAwareBody(pub(crate) ReceivedBody);

impl Body for ResetAwareBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let reason = match ready!(Pin::new(&mut self.0).poll_frame(context)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
            None if self.0.is_end_stream() => return Poll::Ready(None),
            None => "the client broke the request off".to_owned(),
            // Only the text goes on: by the error itself gRPC would know a cancellation again.
            Some(Err(error)) => format!("the request broke off: {error}"),
        };
        let broken = io::Error::new(io::ErrorKind::ConnectionReset, reason);
        Poll::Ready(Some(Err(broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
