//! Which protocol a request is for.
//!
//! **Owns:** [`Steer`]: one service made of all protocols. **Does not know:** their methods.
//! **Invariants:** what says it is gRPC gets a gRPC answer, everything else an HTTP answer.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body};
use http::{Request, Response, Version, header::CONTENT_TYPE};
use hyper::body::Incoming;
use tonic::service::Routes;
use tower::Service;

use super::whole::Whole;
use crate::{health, http as plain, kurrent, native, shared::Shared, umadb};

/// All protocols.
#[derive(Debug, Clone)]
pub(super) struct Steer {
    grpc: Router,
    plain: Router,
}

impl Steer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mut routes = Routes::builder();
        kurrent::add_to(&mut routes, shared);
        umadb::add_to(&mut routes, shared);
        native::add_to(&mut routes, shared);
        health::add_to(&mut routes, shared);
        Self {
            grpc: routes.routes().prepare().into_axum_router(),
            plain: plain::router(shared),
        }
    }
}

impl Service<Request<Incoming>> for Steer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = axum::routing::future::RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let is_grpc = request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let router = if is_grpc {
            &mut self.grpc
        } else {
            &mut self.plain
        };
        router.call(if request.version() == Version::HTTP_2 {
            request.map(|body| Body::new(Whole(body)))
        } else {
            request.map(Body::new)
        })
    }
}
