//! Connections while the store is being opened.
//!
//! **Owns:** [`StartingListener`]: answering on the server's address until the server itself does.
//! **Does not know:** the answers, which are passed in.
//! **Invariants:** a bounded number of connections, for a bounded time each; those over it wait and are not closed, so that no
//! client takes the server for another program; nothing of a request body is read; after the end no connection is left.

use std::{convert::Infallible, error::Error, future, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    PAUSE_WHEN_REFUSED,
    http_version::{self, HttpVersion, Opening},
    tls::TlsServer,
};
use crate::Settings;

/// Connections at a time; further ones wait until one of them ends.
const CONNECTIONS_MAX: usize = 64;
/// Time for a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener whose connections get answers that need no store.
#[derive(Debug)]
pub(crate) struct StartingListener {
    accepting: JoinHandle<TcpListener>,
    /// Ends accepting and every connection, also if this is dropped.
    stop: DropGuard,
}

impl StartingListener {
    /// Answers each request on the listener by `answer`, from now on.
    pub(crate) fn new<B>(
        listener: TcpListener,
        tls: Option<Arc<TlsServer>>,
        settings: &Settings,
        answer: fn(&Request<Incoming>) -> Response<B>,
    ) -> Self
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (stopped, insecure) = (stop.clone(), settings.insecure);
        let serve = move |socket| connection(socket, tls.clone(), insecure, answer);
        Self {
            accepting: tokio::spawn(accept(listener, stopped, serve)),
            stop: stop.drop_guard(),
        }
    }

    /// Ends all connections, and returns the listener. Connections that come meanwhile wait in it.
    pub(crate) async fn into_listener(self) -> Result<TcpListener, JoinError> {
        let Self { accepting, stop } = self;
        drop(stop);
        accepting.await
    }
}

async fn accept<F>(
    listener: TcpListener,
    stop: CancellationToken,
    serve: impl Fn(TcpStream) -> F + Send,
) -> TcpListener
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = next => next,
        };
        let Ok((socket, _)) = accepted else {
            tokio::time::sleep(PAUSE_WHEN_REFUSED).await;
            continue;
        };
        let (stop, connection) = (stop.clone(), timeout(CONNECTION_TIMEOUT, serve(socket)));
        connections.spawn(async move {
            let _ = stop.run_until_cancelled(connection).await;
            drop(permit);
        });
    }
    connections.close();
    connections.wait().await;
    listener
}

/// Serves a connection; `None` if it says nothing that can be answered.
async fn connection<B>(
    socket: TcpStream,
    tls: Option<Arc<TlsServer>>,
    insecure: bool,
    answer: fn(&Request<Incoming>) -> Response<B>,
) -> Option<()>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let here = socket.local_addr().ok()?;
    match (
        http_version::detect(&socket, CONNECTION_TIMEOUT).await?,
        tls,
    ) {
        (Opening::Tls, Some(tls)) => {
            let stream = tls.accept(socket).await.ok()?;
            let version = HttpVersion::of_alpn(stream.get_ref().1.alpn_protocol());
            serve(version, stream, answer).await
        }
        (Opening::Plain(version), _) if insecure || here.ip().is_loopback() => {
            serve(version, socket, answer).await
        }
        _ => None,
    }
}

async fn serve<B>(
    version: HttpVersion,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: fn(&Request<Incoming>) -> Response<B>,
) -> Option<()>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let answered = CancellationToken::new();
    let after = answered.clone();
    let answers = service_fn(move |request| {
        after.cancel();
        let answered: Result<_, Infallible> = Ok(answer(&request));
        future::ready(answered)
    });
    let stream = TokioIo::new(stream);
    match version {
        HttpVersion::Http1 => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).keep_alive(false);
            builder.serve_connection(stream, answers).await.ok()
        }
        HttpVersion::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).max_concurrent_streams(16);
            let mut connection = pin!(builder.serve_connection(stream, answers));
            tokio::select! {
                biased;
                ended = &mut connection => return ended.ok(),
                () = answered.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            // Its client connects again for the next call, and leaves its place to another until then.
            connection.await.ok()
        }
    }
}
