//! Which protocol a request is for.
//!
//! **Owns:** [`Steer`]: one service made of all protocols. **Does not know:** their methods.
//! **Invariants:** what says by HTTP/2 that it is gRPC gets a gRPC answer, everything else an HTTP answer.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::future::RouteFuture};
use http::{Request, Response, Version, header::CONTENT_TYPE};
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tonic::service::Routes;
use tower::Service;
use tracing::{Instrument, Span, instrument::Instrumented};

use super::{
    intake::{Framing, Intake},
    whole::Whole,
};
use crate::{
    health, http as plain,
    kurrent::{self, CameBy},
    native,
    shared::Shared,
    telemetry, umadb,
};

/// All protocols.
#[derive(Debug, Clone)]
pub(super) struct Steer {
    grpc: Router,
    plain: Router,
    intake: Intake,
    traced: bool,
    grpc_requests: Counter,
    plain_requests: Counter,
}

impl Steer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let mut routes = Routes::builder();
        kurrent::add_to(&mut routes, shared);
        umadb::add_to(&mut routes, shared);
        native::add_to(&mut routes, shared);
        health::add_to(&mut routes, shared);
        let requests = |protocol| {
            let requests = &shared.metrics.requests;
            requests.get_or_create_owned(&[("protocol", protocol)])
        };
        Self {
            grpc: routes.routes().prepare().into_axum_router(),
            plain: plain::router(shared),
            intake: Intake::new(&shared.settings),
            grpc_requests: requests("grpc"),
            plain_requests: requests("http"),
            traced: !shared.settings.otlp_endpoint.is_empty(),
        }
    }
}

impl Service<Request<Incoming>> for Steer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Instrumented<RouteFuture<Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let came_by = CameBy(request.uri().clone());
        request.extensions_mut().insert(came_by);
        let is_http2 = request.version() == Version::HTTP_2;
        // No browser speaks HTTP/2 without encryption, but any page can make one send gRPC's frames by HTTP/1.1.
        let is_grpc = is_http2
            && request
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let (router, framing, requests) = if is_grpc {
            (&mut self.grpc, Framing::Grpc, &self.grpc_requests)
        } else {
            (&mut self.plain, Framing::Whole, &self.plain_requests)
        };
        requests.inc();
        let span = if self.traced {
            telemetry::span(&request)
        } else {
            Span::none()
        };
        let request = request.map(|body| {
            if is_http2 {
                Body::new(self.intake.measure(Whole(body), framing))
            } else {
                Body::new(self.intake.measure(body, framing))
            }
        });
        router.call(request).instrument(span)
    }
}
