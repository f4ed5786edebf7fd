//! Routing each request to its protocol.
//!
//! **Owns:** [`ProtocolMux`]: one service made of all protocols; the principal and the bounds of each request. **Does not
//! know:** methods beyond their table.
//! **Invariants:** a request over HTTP/2 whose media type is gRPC gets a gRPC response, every other an HTTP response; the
//! deadline of a request starts when its headers have arrived; nothing of its body is read before its principal is known.

mod bodies;
mod timed_answer;

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{Router, body::Body, routing::future::RouteFuture};
use futures_core::future::BoxFuture;
use http::{
    HeaderValue, Request, Response, Version,
    header::{CONNECTION, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Either};
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tonic::Status;
use tower::Service;
use tracing::{Instrument, Span, instrument::Instrumented};

pub(crate) use self::timed_answer::TimedAnswer;
use self::{bodies::ScopedBody, timed_answer::KeepAlive};
use crate::{
    access::{AuditAction, Authentication, AuthenticationError, Principal},
    background::{health, slow_calls::SlowCallLog, telemetry},
    call::RequestScope,
    connection::{
        BodyBounds, BoundedBody, BudgetExhausted, CallMemory, Framing, Peer, ReceivedBody,
        RequestBodyError, ResetAwareBody,
    },
    protocol::{
        GrpcFuture, GrpcRoutes, MessageScanner, http_api, kurrent,
        methods::{self, CallKind, MethodAccess},
        native, umadb,
    },
    state::ServerState,
};

/// Memory that a call takes while it is open, beside what it keeps of its request.
const OPEN_CALL_BYTES: usize = 4 * 1024;
/// Maximum characters of the name of a method that is not there, in the error that says so.
const METHOD_CHARS_MAX: usize = 200;
/// The header with the idle timeout of an HTTP/1.1 connection.
const KEEP_ALIVE: &str = "keep-alive";

/// All protocols as one service. It is cloned for every request, so a clone is one reference.
#[derive(Debug, Clone)]
pub(crate) struct ProtocolMux(Arc<Protocols>);

#[derive(Debug)]
struct Protocols {
    grpc: GrpcRoutes,
    http: Router,
    shared: Arc<ServerState>,
    keep_alive: Option<HeaderValue>,
    traced: bool,
    slow_calls: SlowCallLog,
    grpc_requests: Counter,
    http_requests: Counter,
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
            http: http_api::router(shared),
            shared: Arc::clone(shared),
            keep_alive: keep_alive(shared.settings.header_read_timeout),
            grpc_requests: requests("grpc"),
            http_requests: requests("http"),
            traced: !shared.settings.otlp_endpoint.is_empty(),
            slow_calls: SlowCallLog::new(shared.settings.slow_call_threshold),
        }))
    }
}

/// Returns a little less than the idle timeout, so that no client sends a request into a connection that closes.
fn keep_alive(idle: Duration) -> Option<HeaderValue> {
    let seconds = idle
        .as_secs()
        .checked_sub(1)
        .filter(|seconds| *seconds > 0)?;
    HeaderValue::try_from(format!("timeout={seconds}")).ok()
}

/// Returns whether the client of HTTP/1 may send another request over the connection of this one.
fn keeps_connection<B>(request: &Request<B>) -> bool {
    let named = request.headers().get_all(CONNECTION).iter();
    let options = named.filter_map(|value| value.to_str().ok());
    let mut options = options.flat_map(|value| value.split(',').map(str::trim));
    match request.version() {
        Version::HTTP_11 => !options.any(|option| option.eq_ignore_ascii_case("close")),
        Version::HTTP_10 => options.any(|option| option.eq_ignore_ascii_case(KEEP_ALIVE)),
        _ => false,
    }
}

impl Protocols {
    /// Begins a request: finds out who it is from, before its body is read and memory is reserved.
    fn begin(self: &Arc<Self>, mut request: Request<ReceivedBody>, is_grpc: bool) -> Answer {
        let ticket = match is_grpc {
            true => None,
            false => http_api::take_ticket(&mut request),
        };
        let required = if is_grpc {
            // A method that is not there is told to those who may ask.
            let method = methods::at(request.uri().path());
            method.map_or(MethodAccess::Authenticated, |(_, method)| method.access)
        } else {
            http_api::required_access(request.uri().path())
        };
        let access = match &self.shared.access {
            Some(access) if required != MethodAccess::Anonymous => access,
            _ => return self.dispatch(request, is_grpc, Principal::Anonymous),
        };
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return self.reject(is_grpc, AuthenticationError::Missing);
        };
        let admission = Admission {
            peer,
            required,
            is_grpc,
        };
        let authenticator = &access.authenticator;
        if let Some(ticket) = ticket {
            let found = self.shared.tickets.redeem(&ticket);
            let outcome = authenticator.admit_by_ticket(found, &admission.peer);
            return self.admit(request, &admission, outcome);
        }
        match authenticator.authenticate(request.headers(), &admission.peer) {
            Authentication::Done(outcome) => self.admit(request, &admission, outcome),
            Authentication::Verifying(verifying) => {
                request.extensions_mut().insert(Arrival(Instant::now()));
                Answer::Verifying(Box::new(Verifying {
                    protocols: Arc::clone(self),
                    request: Some(request),
                    admission,
                    verifying,
                }))
            }
        }
    }

    /// Lets a request in whose principal is known and may call the method.
    fn admit(
        &self,
        request: Request<ReceivedBody>,
        admission: &Admission,
        outcome: Result<Principal, AuthenticationError>,
    ) -> Answer {
        let Some(access) = &self.shared.access else {
            return self.dispatch(request, admission.is_grpc, Principal::Anonymous);
        };
        let principal = match outcome {
            Ok(principal) => principal,
            Err(error) => {
                self.shared.metrics.authentications_failed.inc();
                if error != AuthenticationError::Missing {
                    access
                        .audit
                        .rejected(admission.peer.address, &error.to_string());
                }
                return self.reject(admission.is_grpc, error);
            }
        };
        if admission.required == MethodAccess::Operator && !access.is_operator(&principal) {
            let path = request.uri().path();
            let reason = format!("{principal} may not call {path}; operators may");
            access.note_denial(&principal, &reason);
            return Answer::Refused(Some(if admission.is_grpc {
                kurrent::access_denied(&reason)
                    .into_http()
                    .map(Either::Left)
            } else {
                http_api::access_denied(reason).map(Either::Right)
            }));
        }
        // Figures are read again and again.
        let reads = if admission.is_grpc {
            request.uri().path().ends_with("/Stats")
        } else {
            request.method().is_safe()
        };
        if admission.required == MethodAccess::Operator && !reads {
            access
                .audit
                .allowed(&principal, AuditAction::Operate, request.uri().path());
        }
        self.dispatch(request, admission.is_grpc, principal)
    }

    fn reject(&self, is_grpc: bool, error: AuthenticationError) -> Answer {
        if !is_grpc {
            return Answer::Refused(Some(http_api::unauthenticated(error).map(Either::Right)));
        }
        let text = error.to_string();
        Answer::refused(match error {
            AuthenticationError::Missing
            | AuthenticationError::Malformed
            | AuthenticationError::Wrong
            | AuthenticationError::Token(_) => Status::unauthenticated(text),
            AuthenticationError::TooManyFailures(_) => Status::resource_exhausted(text),
            AuthenticationError::Busy | AuthenticationError::KeysMissing => {
                Status::unavailable(text)
            }
        })
    }

    fn dispatch(
        &self,
        request: Request<ReceivedBody>,
        is_grpc: bool,
        principal: Principal,
    ) -> Answer {
        if is_grpc {
            self.call_grpc(request, principal)
        } else {
            self.call_http(request, principal)
        }
    }

    fn scope<B>(
        &self,
        request: &mut Request<B>,
        principal: Principal,
    ) -> Result<RequestScope, Status> {
        let connection = request.extensions_mut().remove::<CallMemory>();
        let connection = connection.unwrap_or_else(|| self.shared.call_memory_without_connection());
        let arrived = request.extensions_mut().remove::<Arrival>();
        let at = arrived.map_or_else(Instant::now, |Arrival(at)| at);
        RequestScope::arrived(at, &self.shared, connection, principal, request.headers())
    }

    fn bounds(&self, scope: &RequestScope, framing: Framing, kind: CallKind) -> BodyBounds {
        BodyBounds {
            framing,
            memory: scope.memory(),
            one_by_one: matches!(kind, CallKind::Collected | CallKind::Session),
            deadline: (kind != CallKind::Session).then(|| scope.deadline()),
            request_timeout: self.shared.settings.request_timeout,
        }
    }

    fn call_grpc(&self, mut request: Request<ReceivedBody>, principal: Principal) -> Answer {
        self.grpc_requests.inc();
        let path = request.uri().path();
        let Some((_, method)) = methods::at(path) else {
            let path: String = path.chars().take(METHOD_CHARS_MAX).collect();
            let text = format!("no method {path} on this server");
            return Answer::refused(Status::unimplemented(text));
        };
        let scope = match self.scope(&mut request, principal) {
            Ok(scope) => scope,
            Err(refused) => return Answer::refused(refused),
        };
        let open = if method.stays_open {
            OPEN_CALL_BYTES
        } else {
            0
        };
        let charged = scope.charge_head(head_bytes(&request));
        if let Err(exhausted) = charged.and_then(|()| scope.keep(open)) {
            return Answer::refused(overloaded(exhausted));
        }
        let scanner = Box::new(MessageScanner::new(method.shape));
        let bounds = self.bounds(&scope, Framing::Grpc(scanner), method.kind);
        let request = request.map(|body| {
            let body = BoundedBody::new(ResetAwareBody(body), bounds);
            tonic::body::Body::new(body.map_err(status_of))
        });
        let answer = scope.enter(|| self.grpc.call(request));
        match method.kind {
            CallKind::Session => Answer::Session(answer, scope),
            CallKind::Single if method.stays_open => Answer::Open(answer, scope),
            CallKind::Single | CallKind::Collected | CallKind::Refused => {
                Answer::Grpc(answer, scope)
            }
        }
    }

    fn call_http(&self, mut request: Request<ReceivedBody>, principal: Principal) -> Answer {
        self.http_requests.inc();
        let version = request.version();
        // The timeout of gRPC is none of plain HTTP.
        request.headers_mut().remove("grpc-timeout");
        let scope = match self.scope(&mut request, principal) {
            Ok(scope) => scope,
            // It is late, because its credentials had to wait.
            Err(_) => return self.reject(false, AuthenticationError::Busy),
        };
        // Probes are answered at once, whatever others hold.
        let waits = http_api::required_access(request.uri().path()) != MethodAccess::Anonymous;
        if waits && let Err(exhausted) = scope.charge_head(head_bytes(&request)) {
            return Answer::Refused(Some(http_api::overloaded(exhausted).map(Either::Right)));
        }
        let bounds = self.bounds(&scope, Framing::Whole, CallKind::Single);
        let timeout = self.shared.settings.request_timeout;
        let reads_within = request.method().is_safe().then_some(timeout);
        let request = request.map(|body| match version {
            Version::HTTP_2 => Body::new(BoundedBody::new(ResetAwareBody(body), bounds)),
            _ => Body::new(BoundedBody::new(body, bounds)),
        });
        let answer = scope.enter(|| self.http.clone().call(request));
        Answer::Http(Box::new(HttpAnswer {
            answer,
            scope,
            reads_within,
        }))
    }
}

/// Returns the memory of the headers and the address of a request: as received, and as parsed.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, str::len);
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len());
    2 * (target + headers.sum::<usize>())
}

/// Whether a request gets a response of gRPC.
fn is_grpc<B>(request: &Request<B>) -> bool {
    // No browser speaks HTTP/2 without encryption, but any page can make one send gRPC's frames by HTTP/1.1.
    request.version() == Version::HTTP_2
        && request
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a request before the store is open: the process lives, and takes nothing yet.
pub(crate) fn answer_while_starting<B>(
    request: &Request<B>,
) -> Response<Either<tonic::body::Body, Body>> {
    if is_grpc(request) {
        let status = Status::unavailable("server is starting: the store is being opened");
        return status.into_http().map(Either::Left);
    }
    http_api::while_starting(request.uri().path()).map(Either::Right)
}

/// Returns the name of a request's span, which contains no stream: the method of gRPC, or the method of HTTP.
fn span_name<B>(request: &Request<B>, is_grpc: bool) -> String {
    let method = methods::at(request.uri().path()).filter(|_| is_grpc);
    match method {
        Some((service, method)) => format!("{}/{}", service.name, method.name),
        None if is_grpc => "unknown method".to_owned(),
        None => request.method().to_string(),
    }
}

/// Returns the gRPC status of a call that may not stay open.
fn overloaded(exhausted: BudgetExhausted) -> Status {
    Status::unavailable(exhausted.to_string())
}

/// Returns the gRPC status for a body that ended early.
fn status_of(error: RequestBodyError) -> Status {
    let text = error.to_string();
    match error {
        RequestBodyError::Timeout(_) | RequestBodyError::Stalled { .. } => {
            Status::deadline_exceeded(text)
        }
        RequestBodyError::Overloaded(_) => Status::unavailable(text),
        RequestBodyError::Rejected(_) => Status::invalid_argument(text),
        RequestBodyError::Io(error) => Status::from_error(error),
    }
}

impl Service<Request<ReceivedBody>> for ProtocolMux {
    type Response = Response<Either<tonic::body::Body, Body>>;
    type Error = Infallible;
    type Future = Instrumented<TimedAnswer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<ReceivedBody>) -> Self::Future {
        let is_grpc = is_grpc(&request);
        let protocols = &self.0;
        let span = if protocols.traced {
            telemetry::span(&request, &span_name(&request, is_grpc))
        } else {
            Span::none()
        };
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let timer = protocols.slow_calls.begin(&request, is_grpc, peer);
        let keep_alive = protocols.keep_alive.clone();
        let keep_alive = keep_alive.filter(|_| keeps_connection(&request));
        let keep_alive = keep_alive.map(|hint| KeepAlive {
            hint,
            is_read: request.body().is_read(),
        });
        let answer = TimedAnswer::new(
            protocols.begin(request, is_grpc),
            timer.map(|timer| (timer, Arc::clone(protocols))),
            keep_alive,
        );
        answer.instrument(span)
    }
}

/// A response in progress.
pub(crate) enum Answer {
    Grpc(GrpcFuture, RequestScope),
    /// One whose messages go on coming: the call keeps what was asked for.
    Open(GrpcFuture, RequestScope),
    /// One whose messages go on being made for the request.
    Session(GrpcFuture, RequestScope),
    /// Much larger, and rarer.
    Http(Box<HttpAnswer>),
    /// One that waits for a password to be verified.
    Verifying(Box<Verifying>),
    Refused(Option<Response<Either<tonic::body::Body, Body>>>),
}

/// What is known of a request before its principal is.
#[derive(Debug)]
struct Admission {
    peer: Peer,
    required: MethodAccess,
    is_grpc: bool,
}

/// When a request arrived whose principal was not known at once.
#[derive(Debug, Clone, Copy)]
struct Arrival(Instant);

/// A request whose password is being verified.
pub(crate) struct Verifying {
    protocols: Arc<Protocols>,
    /// `None`: it went on.
    request: Option<Request<ReceivedBody>>,
    admission: Admission,
    verifying: BoxFuture<'static, Result<Principal, AuthenticationError>>,
}

/// An answer by HTTP on its way.
pub(crate) struct HttpAnswer {
    answer: RouteFuture<Infallible>,
    scope: RequestScope,
    /// The timeout of a request that only reads.
    reads_within: Option<Duration>,
}

impl HttpAnswer {
    /// Returns the response as it is sent: one that stays open keeps what was asked for.
    fn finished(&mut self, mut response: Response<Body>) -> Response<Body> {
        if http_api::stays_open(&response) {
            let kept = self.scope.keep(OPEN_CALL_BYTES);
            response = match kept.and_then(|()| self.scope.keep_request()) {
                Ok(()) => {
                    let scope = self.scope.clone();
                    response.map(|body| Body::new(ScopedBody { body, scope }))
                }
                Err(exhausted) => http_api::overloaded(exhausted),
            };
        }
        response
    }
}

impl Answer {
    /// Who the request is from, once that is known.
    fn principal(&self) -> Option<Principal> {
        match self {
            Self::Grpc(_, scope) | Self::Open(_, scope) | Self::Session(_, scope) => {
                Some(scope.principal())
            }
            Self::Http(http) => Some(http.scope.principal()),
            Self::Verifying(_) | Self::Refused(_) => None,
        }
    }

    fn refused(status: Status) -> Self {
        Self::Refused(Some(status.into_http().map(Either::Left)))
    }
}

/// Returns the body of a call of gRPC that goes on in this scope.
fn scoped(body: tonic::body::Body, scope: RequestScope) -> Either<tonic::body::Body, Body> {
    Either::Left(tonic::body::Body::new(ScopedBody { body, scope }))
}

impl Future for Answer {
    type Output = Result<Response<Either<tonic::body::Body, Body>>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Self::Verifying(waiting) = this {
            let outcome = ready!(waiting.verifying.as_mut().poll(context));
            // Polled again after its end, it has nothing to say any more.
            let Some(request) = waiting.request.take() else {
                return Poll::Pending;
            };
            let protocols = Arc::clone(&waiting.protocols);
            *this = protocols.admit(request, &waiting.admission, outcome);
        }
        match this {
            Self::Verifying(_) => Poll::Pending,
            Self::Grpc(answer, scope) => scope
                .enter(|| answer.as_mut().poll(context))
                .map_ok(|response| response.map(Either::Left)),
            Self::Open(answer, scope) => {
                scope
                    .enter(|| answer.as_mut().poll(context))
                    .map_ok(|response| match scope.keep_request() {
                        Ok(()) => response.map(|body| scoped(body, scope.clone())),
                        Err(exhausted) => overloaded(exhausted).into_http().map(Either::Left),
                    })
            }
            Self::Session(answer, scope) => {
                scope
                    .enter(|| answer.as_mut().poll(context))
                    .map_ok(|response| {
                        let scope = scope.for_answers();
                        response.map(|body| scoped(body, scope))
                    })
            }
            Self::Http(http) => {
                let HttpAnswer { answer, scope, .. } = &mut **http;
                let response = ready!(scope.enter(|| Pin::new(answer).poll(context)));
                Poll::Ready(response.map(|response| http.finished(response).map(Either::Right)))
            }
            // Polled again after its end, it has nothing to say any more.
            Self::Refused(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}

#[cfg(test)]
mod tests;
