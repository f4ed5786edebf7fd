//! Bodies of responses that go on with their request.
//!
//! **Owns:** [`ScopedBody`]. **Does not know:** what is sent.
//! **Invariants:** what a call keeps is charged until its body is dropped; so is what its messages take, however late they are
//! made.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};
use hyper::body::Bytes;

use crate::call::RequestScope;

/// The messages of a response, made in the scope of their request, which keeps its memory until the last of them.
#[derive(Debug)]
pub(super) struct ScopedBody<B> {
    pub(super) body: B,
    pub(super) scope: RequestScope,
}

impl<B: Body<Data = Bytes> + Unpin> Body for ScopedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;
    use crate::{access::Principal, call, state::ServerState};

    #[tokio::test]
    async fn what_late_messages_of_a_response_take_is_charged_to_their_request() {
        let server = ServerState::over_memory();
        let connection = server.call_memory_without_connection();
        let scope =
            RequestScope::arriving(&server, connection, Principal::Anonymous, &HeaderMap::new());
        let messages = stream::unfold(None, |former| async {
            drop(former);
            let reserved = call::reserve(1_000).unwrap();
            let is_charged = reserved.is_some();
            let data = Bytes::from(is_charged.to_string());
            Some((Ok::<_, Infallible>(Frame::data(data)), reserved))
        });
        let mut body = ScopedBody {
            body: StreamBody::new(Box::pin(messages)),
            scope: scope.unwrap(),
        };
        for _ in 0..2 {
            let message = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(message, "true");
            assert_ne!(server.open_call_memory.used(), 0);
        }
        drop(body);
        assert_eq!(server.open_call_memory.used(), 0);
    }
}
