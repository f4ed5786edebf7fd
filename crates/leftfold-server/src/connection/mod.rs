//! Connections: accepting them, detecting their HTTP version, limiting them, and closing them.
//!
//! **Owns:** the accept loop; the memory that requests take. **Does not know:** protocols: it serves any [`HttpService`].
//! **Invariants:** a connection over a limit is closed at once; a silent one is closed after a timeout; no failure of one
//! connection ends the loop.

mod answer_memory;
mod certificate_info;
mod connection_limit;
mod descriptors;
mod guarded_bytes;
mod http_version;
mod memory_budget;
mod peer;
mod received_body;
mod request_body;
mod reset_aware_body;
mod starting;
mod tls;

pub(crate) use answer_memory::AnswerMemory;
pub use certificate_info::CertificateInfo;
pub use descriptors::DescriptorError;
pub(crate) use descriptors::connections_within_limit;
pub(crate) use memory_budget::{
    BudgetExhausted, CallMemory, ConnectionMemory, MemoryBudget, Reservation,
};
pub(crate) use peer::Peer;
pub(crate) use received_body::ReceivedBody;
pub(crate) use request_body::{BodyBounds, BoundedBody, Framing, InspectMessage, RequestBodyError};
pub(crate) use reset_aware_body::ResetAwareBody;
pub(crate) use starting::StartingListener;
pub use tls::TlsError;
pub(crate) use tls::TlsServer;

use std::{
    convert::Infallible,
    error::Error,
    future::{self, Future},
    net::{IpAddr, Ipv6Addr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{TryFutureExt, future::MapOk};
use http::{Request, Response, Version};
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tower::Service;

use self::{
    answer_memory::{ChargedBody, ConnectionAnswers},
    connection_limit::ConnectionLimiter,
    http_version::{HttpVersion, Opening},
};
use crate::{Settings, state::ServerState};

/// Pause of the accept loop when the system has no descriptor left.
const PAUSE_WHEN_REFUSED: Duration = Duration::from_millis(100);
/// Minimum interval between log lines about rejected connections.
const REJECTIONS_LOGGED_EVERY: Duration = Duration::from_secs(10);
/// The answer to plain HTTP/1.1 where only TLS is served.
const TLS_ONLY: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 47\r\n\r\nplain HTTP rejected: this port takes https only\n";
/// Time for that answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval between warnings that the server is reachable from other machines.
const EXPOSED_WARNING_EVERY: Duration = Duration::from_secs(60);

/// The service of all connections; each connection has a clone of it.
pub(crate) trait HttpService:
    Service<
        Request<ReceivedBody>,
        Response = Response<Self::Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static
{
    /// The body of a response.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>
        + Send
        + Unpin
        + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<
            Request<ReceivedBody>,
            Response = Response<B>,
            Error = Infallible,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    type Body = B;
}

/// Serves connections until `stop` resolves; then waits for open ones until the shutdown timeout.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: &Arc<ServerState>,
    service: impl HttpService,
    stop: impl Future<Output = ()>,
) {
    let limiter = ConnectionLimiter::new(&shared.settings);
    let mut rejected = RejectionLog::default();
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let mut stop = pin!(stop);
    let _warns_until_the_end = warn_if_exposed(shared);
    let _reloads_until_the_end = shared.tls.as_ref().map(TlsServer::watch);
    let _sweeps_until_the_end = shared.answer_memory.sweep(shared.settings.write_timeout);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Some(permit) = limiter.try_acquire(peer.ip()) else {
                    shared.metrics.connections_rejected.inc();
                    rejected.note(peer);
                    continue;
                };
                let cut = cut.child_token();
                let service = WithMemory {
                    service: service.clone(),
                    memory: shared.call_memory(peer.ip()),
                    answers: shared.answer_memory.connection(cut.clone()),
                    peer: Peer::plain(peer),
                    stopping: Arc::new(shared.stopping.clone()),
                };
                let connection = Connection {
                    socket,
                    peer,
                    service,
                    shared: Arc::clone(shared),
                };
                let open = ConnectionGauge::counted(shared);
                connections.spawn(async move {
                    // What is cut is dropped here, and with it every call on the connection.
                    let _ = cut.run_until_cancelled(connection.serve()).await;
                    drop((open, permit));
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn Error, "accept failed");
                tokio::time::sleep(PAUSE_WHEN_REFUSED).await;
            }
        }
    }
    drop(listener);
    shared.stopping.cancel();
    connections.close();
    if timeout(shared.settings.shutdown_timeout, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            open = connections.len(),
            "cutting connections, their calls had no more time"
        );
        cut.cancel();
        connections.wait().await;
    }
}

/// The log of rejected connections: one line each time, but not more often than the log can bear.
#[derive(Debug, Default)]
struct RejectionLog {
    last: Option<Instant>,
    unreported: u64,
}

impl RejectionLog {
    fn note(&mut self, peer: SocketAddr) {
        self.unreported += 1;
        let now = Instant::now();
        if self
            .last
            .is_none_or(|last| now - last >= REJECTIONS_LOGGED_EVERY)
        {
            tracing::warn!(%peer, rejected = self.unreported, "connections rejected: limit reached");
            (self.last, self.unreported) = (Some(now), 0);
        }
    }
}

/// Returns what counts as one address: a whole IPv4 address, or the /64 of IPv6, which one customer has at least.
pub(super) fn address_block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// A service that attaches the connection's memory share to each request, and charges its responses.
#[derive(Debug, Clone)]
struct WithMemory<S> {
    service: S,
    memory: CallMemory,
    answers: Arc<ConnectionAnswers>,
    peer: Peer,
    stopping: Arc<CancellationToken>,
}

type ChargeAnswer<B> = Box<dyn FnOnce(Response<B>) -> Response<ChargedBody<B>> + Send>;

impl<S: HttpService> Service<Request<Incoming>> for WithMemory<S> {
    type Response = Response<ChargedBody<S::Body>>;
    type Error = Infallible;
    type Future = MapOk<S::Future, ChargeAnswer<S::Body>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.memory.clone());
        request.extensions_mut().insert(self.peer.clone());
        let answers = Arc::clone(&self.answers);
        let charge: ChargeAnswer<S::Body> =
            Box::new(move |answer| ChargedBody::answer(answer, answers));
        let stopping = (request.version() == Version::HTTP_2).then(|| Arc::clone(&self.stopping));
        let request = request.map(|body| ReceivedBody::new(body, stopping));
        self.service.call(request).map_ok(charge)
    }
}

/// A connection that is counted as open until this is dropped.
struct ConnectionGauge(Arc<ServerState>);

impl ConnectionGauge {
    fn counted(shared: &Arc<ServerState>) -> Self {
        shared.metrics.connections.inc();
        Self(Arc::clone(shared))
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

/// Logs a warning at intervals if the server is reachable from other machines.
fn warn_if_exposed(shared: &ServerState) -> Option<AbortOnDropHandle<()>> {
    let address = shared.address;
    let authenticated = shared.access.is_some();
    let warn = async move {
        loop {
            if authenticated {
                tracing::warn!(%address, "INSECURE: passwords and events may cross the network in plain text");
            } else {
                tracing::warn!(%address, "INSECURE: everyone who reaches this address can read and write everything");
            }
            tokio::time::sleep(EXPOSED_WARNING_EVERY).await;
        }
    };
    let exposed = !address.ip().is_loopback();
    (exposed && shared.settings.insecure).then(|| AbortOnDropHandle::new(tokio::spawn(warn)))
}

/// One connection.
struct Connection<S> {
    socket: TcpStream,
    peer: SocketAddr,
    service: WithMemory<S>,
    shared: Arc<ServerState>,
}

impl<S: HttpService> Connection<S> {
    async fn serve(self) {
        let Self {
            socket,
            peer,
            mut service,
            shared,
        } = self;
        // Answers are small and awaited; a refusal costs only time.
        let _ = socket.set_nodelay(true);
        let spoken = tokio::select! {
            () = shared.stopping.cancelled() => return,
            spoken = http_version::detect(&socket, shared.settings.header_read_timeout) => spoken,
        };
        let ended = match (spoken, &shared.tls) {
            (Some(Opening::Plain(version)), _) if serves_plain(&socket, &shared) => {
                serve_http(version, socket, service, &shared).await
            }
            (Some(Opening::Plain(version)), _) => return refuse_plain(version, socket).await,
            (Some(Opening::Tls), Some(tls)) => match tls.accept(socket).await {
                Ok(stream) => {
                    service.peer = Peer::proved_by(peer, &stream);
                    let version = HttpVersion::of_alpn(stream.get_ref().1.alpn_protocol());
                    serve_http(version, stream, service, &shared).await
                }
                Err(error) => {
                    tracing::debug!(%peer, error = &error as &dyn Error, "TLS handshake failed");
                    shared.metrics.tls_handshakes_failed.inc();
                    return;
                }
            },
            (Some(Opening::Tls), None) | (None, _) => return,
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error = &error as &dyn Error, "connection ended");
        }
    }
}

/// Whether a connection may go on without encryption: no other machine can be at its end, or the operator allows it.
fn serves_plain(socket: &TcpStream, shared: &ServerState) -> bool {
    let here = socket.local_addr();
    shared.settings.insecure || here.is_ok_and(|address| address.ip().is_loopback())
}

/// Ends a connection that is not encrypted; a person with a browser learns why.
async fn refuse_plain(version: HttpVersion, mut socket: TcpStream) {
    if version == HttpVersion::Http1 {
        let refusal = async {
            socket.write_all(TLS_ONLY).await?;
            socket.shutdown().await
        };
        // A client that takes no answer gets none.
        let _ = timeout(REFUSAL_TIMEOUT, refusal).await;
    }
}

async fn serve_http<S>(
    version: HttpVersion,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: WithMemory<S>,
    shared: &ServerState,
) -> Result<(), hyper::Error>
where
    S: HttpService,
{
    match version {
        HttpVersion::Http2 => serve_http2(stream, service, shared).await,
        HttpVersion::Http1 => {
            service.answers.is_http1();
            serve_http1(stream, service, shared).await
        }
    }
}

async fn serve_http2(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: WithMemory<impl HttpService>,
    shared: &ServerState,
) -> Result<(), hyper::Error> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    bound_http2(&mut builder, &shared.settings);
    let connection =
        builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
    serve_until_shutdown(
        connection,
        |connection| connection.graceful_shutdown(),
        shared,
    )
    .await
}

/// Serves a connection to its end, and closes it gracefully at shutdown or at its maximum age.
async fn serve_until_shutdown<C: Future<Output = Result<(), hyper::Error>>>(
    connection: C,
    end: impl FnOnce(Pin<&mut C>),
    shared: &ServerState,
) -> Result<(), hyper::Error> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = shared.stopping.cancelled() => {
            end(connection.as_mut());
            return connection.await;
        }
        () = connection_age_elapsed(&shared.settings) => {}
    }
    end(connection.as_mut());
    // What does not end by itself, as a subscription, is cut: its client goes on elsewhere from where it was.
    timeout(shared.settings.connection_age_grace, connection)
        .await
        .unwrap_or(Ok(()))
}

/// Resolves when a connection that opens now reaches its maximum age.
async fn connection_age_elapsed(settings: &Settings) {
    match settings.connection_age_max {
        Duration::ZERO => future::pending().await,
        age => tokio::time::sleep(age).await,
    }
}

fn bound_http2(builder: &mut http2::Builder<TokioExecutor>, settings: &Settings) {
    let headers = u32::try_from(settings.headers_bytes_max.0).unwrap_or(u32::MAX);
    let calls = settings.concurrent_calls_per_connection_max;
    let resets = usize::try_from(calls).unwrap_or(usize::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(calls)
        .max_header_list_size(headers)
        // A client whose calls all time out at once resets as many as it may have.
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(1024)
        .max_frame_size(64 * 1024)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_send_buf_size(128 * 1024)
        .keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout);
}

async fn serve_http1(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: WithMemory<impl HttpService>,
    shared: &ServerState,
) -> Result<(), hyper::Error> {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.settings.header_read_timeout)
        .max_buf_size(shared.settings.headers_bytes_max.len().max(8 * 1024))
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service));
    serve_until_shutdown(
        connection,
        |connection| connection.graceful_shutdown(),
        shared,
    )
    .await
}
