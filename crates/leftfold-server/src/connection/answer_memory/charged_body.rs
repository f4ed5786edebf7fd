//! Bodies of responses that are charged until they are sent.
//!
//! **Owns:** [`ChargedBody`]. **Does not know:** when memory is short.
//! **Invariants:** what is charged is released once, when it is sent or when the response is dropped; no frame is asked for while
//! its connection may hold no more.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::{ConnectionAnswers, POLL, UNSENT_BYTES};

/// Minimum size of a body that is charged before its connection asks for it, if it is whole already.
const WHOLE_FROM: usize = 4 * 1024;
/// Maximum bytes of a frame that the connection gets at once.
pub(super) const PIECE: usize = 64 * 1024;

/// The body of a response, whose bytes are charged until they are sent.
#[derive(Debug)]
pub(crate) struct ChargedBody<B> {
    body: B,
    connection: Arc<ConnectionAnswers>,
    /// Bytes of a body that is whole already. It is not asked for any while its client takes none.
    whole: usize,
    /// What is charged for the call of a frame that the connection has. It asks for the next one when it can queue one.
    unsent: usize,
    /// What is left of a frame.
    rest: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Drop for ChargedBody<B> {
    fn drop(&mut self) {
        self.release_whole();
        self.release_unsent();
    }
}

impl<B: Body> ChargedBody<B> {
    /// Charges a response of this connection.
    pub(crate) fn answer(
        answer: Response<B>,
        connection: Arc<ConnectionAnswers>,
    ) -> Response<Self> {
        let (mut parts, body) = answer.into_parts();
        if body.is_end_stream() {
            connection.charge_headers(&mut parts.headers);
        }
        Response::from_parts(parts, Self::new(body, connection))
    }
}

impl<B> ChargedBody<B> {
    pub(super) fn new(body: B, connection: Arc<ConnectionAnswers>) -> Self
    where
        B: Body,
    {
        let whole = body.size_hint().exact();
        let whole = whole.and_then(|bytes| usize::try_from(bytes).ok());
        let whole = whole.filter(|bytes| *bytes >= WHOLE_FROM).unwrap_or(0);
        if whole > 0 {
            connection.hold(whole);
        }
        Self {
            body,
            connection,
            whole,
            unsent: 0,
            rest: Bytes::new(),
            timer: None,
        }
    }

    fn release_whole(&mut self) {
        match std::mem::take(&mut self.whole) {
            0 => {}
            bytes => self.connection.release(bytes),
        }
    }

    fn release_unsent(&mut self) {
        match std::mem::take(&mut self.unsent) {
            0 => {}
            bytes => self.connection.release(bytes),
        }
    }

    fn piece(&mut self) -> Frame<Bytes> {
        self.connection.note_progress();
        Frame::data(self.rest.split_to(PIECE.min(self.rest.len())))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ChargedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        this.release_unsent();
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(this.piece())));
        }
        // What is whole already grows no more.
        while this.whole == 0 && !this.connection.may_grow() {
            let sleep = || Box::pin(tokio::time::sleep(POLL));
            let timer = this.timer.get_or_insert_with(sleep);
            ready!(timer.as_mut().poll(context));
            this.timer = None;
        }
        let frame = match ready!(Pin::new(&mut this.body).poll_frame(context)) {
            Some(Ok(frame)) => frame,
            other => return Poll::Ready(other),
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                this.release_whole();
                this.unsent = UNSENT_BYTES;
                this.connection.hold(UNSENT_BYTES);
                this.rest = this.connection.charge(data);
                this.piece()
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if rest > 0 {
            let (lower, upper) = (hint.lower() + rest, hint.upper().map(|upper| upper + rest));
            hint = SizeHint::new();
            hint.set_lower(lower);
            if let Some(upper) = upper {
                hint.set_upper(upper);
            }
        }
        hint
    }
}
