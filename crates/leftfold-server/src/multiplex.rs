//! Which protocol a request is for.
//!
//! **Owns:** [`ProtocolMux`]: one service made of all protocols. **Does not know:** their methods.
//! **Invariants:** what says by HTTP/2 that it is gRPC gets a gRPC answer, everything else an HTTP answer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, routing::future::RouteFuture};
use http::{Request, Response, Version, header::CONTENT_TYPE};
use http_body_util::Either;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tower::Service;
use tracing::{Instrument, Span, instrument::Instrumented};

use crate::{
    background::{health, telemetry},
    connection::{Framing, RequestBudget, ResetAwareBody},
    protocol::{GrpcFuture, GrpcRoutes, http_api as plain, kurrent, native, umadb},
    state::ServerState,
};

/// All protocols. It is copied for every request, so a copy is one reference.
#[derive(Debug, Clone)]
pub(crate) struct ProtocolMux(Arc<Protocols>);

#[derive(Debug)]
struct Protocols {
    grpc: GrpcRoutes,
    plain: Router,
    intake: RequestBudget,
    traced: bool,
    grpc_requests: Counter,
    plain_requests: Counter,
}

impl ProtocolMux {
    pub(crate) fn new(shared: &Arc<ServerState>) -> Self {
        let mut services = GrpcRoutes::default();
        kurrent::register(&mut services, shared);
        umadb::register(&mut services, shared);
        native::register(&mut services, shared);
        health::register(&mut services, shared);
        let requests = |protocol| {
            let requests = &shared.metrics.requests;
            requests.get_or_create_owned(&[("protocol", protocol)])
        };
        Self(Arc::new(Protocols {
            grpc: services,
            plain: plain::router(shared),
            intake: RequestBudget::new(&shared.settings),
            grpc_requests: requests("grpc"),
            plain_requests: requests("http"),
            traced: !shared.settings.otlp_endpoint.is_empty(),
        }))
    }
}

impl Protocols {
    fn call_grpc(&self, request: Request<Incoming>) -> MuxFuture {
        self.grpc_requests.inc();
        let measured = |body| self.intake.limit(ResetAwareBody(body), Framing::Grpc);
        let request = request.map(|body| tonic::body::Body::new(measured(body)));
        MuxFuture::Grpc(self.grpc.call(request))
    }

    fn call_plain(&self, request: Request<Incoming>) -> MuxFuture {
        self.plain_requests.inc();
        let is_http2 = request.version() == Version::HTTP_2;
        let request = request.map(|body| {
            if is_http2 {
                Body::new(self.intake.limit(ResetAwareBody(body), Framing::Whole))
            } else {
                Body::new(self.intake.limit(body, Framing::Whole))
            }
        });
        MuxFuture::Plain(Box::new(self.plain.clone().call(request)))
    }
}

impl Service<Request<Incoming>> for ProtocolMux {
    type Response = Response<Either<tonic::body::Body, Body>>;
    type Error = Infallible;
    type Future = Instrumented<MuxFuture>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        // No browser speaks HTTP/2 without encryption, but any page can make one send gRPC's frames by HTTP/1.1.
        let is_grpc = request.version() == Version::HTTP_2
            && request
                .headers()
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let protocols = &self.0;
        let span = if protocols.traced {
            telemetry::span(&request)
        } else {
            Span::none()
        };
        let steered = if is_grpc {
            protocols.call_grpc(request)
        } else {
            protocols.call_plain(request)
        };
        steered.instrument(span)
    }
}

/// An answer on its way.
pub(crate) enum MuxFuture {
    Grpc(GrpcFuture),
    /// Much larger, and rarer.
    Plain(Box<RouteFuture<Infallible>>),
}

impl Future for MuxFuture {
    type Output = Result<Response<Either<tonic::body::Body, Body>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Grpc(answer) => {
                (answer.as_mut().poll(context)).map_ok(|response| response.map(Either::Left))
            }
            Self::Plain(answer) => {
                (Pin::new(answer).poll(context)).map_ok(|response| response.map(Either::Right))
            }
        }
    }
}
