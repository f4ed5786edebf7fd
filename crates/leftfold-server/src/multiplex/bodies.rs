//! Bodies of responses that go on with their request.
//!
//! **Owns:** [`KeptBody`], [`ScopedBody`]. **Does not know:** what is sent.
//! **Invariants:** what a call keeps is charged until its body is dropped.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Frame, SizeHint};
use hyper::body::Bytes;
use tonic::Status;

use crate::call::RequestScope;

/// The messages of an open call, which keeps memory until the last of them.
#[derive(Debug)]
pub(super) struct KeptBody<B> {
    body: B,
    _scope: RequestScope,
}

impl<B> KeptBody<B> {
    pub(super) fn new(body: B, scope: &RequestScope) -> Self {
        Self {
            body,
            _scope: scope.clone(),
        }
    }
}

impl<B: http_body::Body<Data = Bytes> + Unpin> http_body::Body for KeptBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The messages of an answer, made in the scope of their request.
#[derive(Debug)]
pub(super) struct ScopedBody {
    pub(super) body: tonic::body::Body,
    pub(super) scope: RequestScope,
}

impl http_body::Body for ScopedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, scope } = self.get_mut();
        scope.enter(|| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
