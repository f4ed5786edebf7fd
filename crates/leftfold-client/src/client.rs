//! The client: connecting, closing, and the methods of the contract.
//!
//! **Owns:** [`Client`], and which module implements which method. **Does not know:** what an outcome means.

use std::{error::Error, fmt, sync::Arc};

use futures_core::{future::BoxFuture, stream::BoxStream};
use leftfold_model::{Append, Appended, Position, Read, StreamName};
use leftfold_proto::leftfold::v1::{self as wire, store_client::StoreClient};
use leftfold_store::{
    AppendError, Capabilities, Cause, Delete, Delivery, EventStore, ListStreams, ReadBatch,
    ReadError, Scavenge, ScavengeProgress, SnapshotStore, StoreStats, StreamInfo, StreamState,
    Subscription, UnknownOutcomes, consumers::Consumers,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

use crate::{
    ClientOptions, ConnectError, RpcError,
    address::Address,
    append::Writer,
    backoff::Backoff,
    call::ConnectionPool,
    channel::{self, Connected},
    connection::{Connection, LastError, StoreStub},
    consumers::RemoteConsumers,
    credentials::Authorize,
    decode, list, read,
    session::Sender,
    snapshots::RemoteSnapshotStore,
    status::{self, StatusKind},
    subscribe,
};

/// Maximum bytes of one message of appends. More would make small appends wait behind large ones.
const MESSAGE_BYTES: usize = 256 * 1024;
/// Maximum queued appends of each connection.
const QUEUE: usize = 1024;

/// The store of a server. Cheap to clone; clones share the connections.
///
/// ```no_run
/// use leftfold_client::Client;
/// use leftfold_store::EventStore;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Client::connect("leftfold://127.0.0.1:2113").await?;
/// println!("the log ends at {}", store.head().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pool: Arc<ConnectionPool>,
    writer: Arc<Writer>,
    capabilities: Capabilities,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.pool.address)
            .field("capabilities", &self.capabilities)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to the server at `leftfold://host:port`; without a port, 2113.
    ///
    /// With `?tls=true` the connection is encrypted, and the server's certificate must be issued by an authority that the
    /// system trusts; with `?tls=true&tlsCaFile=FILE`, by one in that PEM file.
    ///
    /// The server must be reachable now. While it is still opening its store, this waits for at most the timeout of
    /// connecting. Later the server may restart: see the crate's documentation.
    ///
    /// # Errors
    /// [`ConnectError`]: the address is invalid, no server answers, the server does not become ready in time, or it does not
    /// speak the Leftfold protocol.
    ///
    /// # Panics
    /// If it is called outside of a tokio runtime with time and I/O enabled.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::connect_with(address, ClientOptions::default()).await
    }

    /// Connects with these options.
    ///
    /// # Errors
    /// As [`Self::connect`].
    ///
    /// # Panics
    /// As [`Self::connect`].
    pub async fn connect_with(address: &str, options: ClientOptions) -> Result<Self, ConnectError> {
        let parsed: Address = address.parse()?;
        let (connections, appends) = (options.connections, options.in_flight_appends_max);
        // Fields can be set past the methods that keep them sensible.
        let options = options
            .with_connections(connections)
            .with_in_flight_appends_max(appends);
        let Connected {
            address,
            endpoint,
            authorize,
            channel: first,
        } = channel::connect(&parsed, &options).await?;
        let described = describe(
            calls(first.clone(), &authorize, &options),
            &address,
            &options,
        )
        .await?;
        let taken = usize::try_from(described.message_bytes_max).unwrap_or(usize::MAX);
        // Whatever is about as long as that still fits.
        let message_bytes = (taken / 2).clamp(1, MESSAGE_BYTES);
        let more = (1..options.connections).map(|_| endpoint.connect_lazy());
        let connections: Vec<_> = std::iter::once(first)
            .chain(more)
            .map(|channel| {
                connection(
                    calls(channel, &authorize, &options),
                    &address,
                    &options,
                    message_bytes,
                )
            })
            .collect();
        let in_flight = Arc::new(Semaphore::new(options.in_flight_appends_max));
        let pool = ConnectionPool::new(address, options, connections, CancellationToken::new());
        let pool = Arc::new(pool);
        Ok(Self {
            writer: Arc::new(Writer {
                pool: Arc::clone(&pool),
                in_flight,
                message_bytes,
                outcomes: UnknownOutcomes::default(),
            }),
            pool,
            capabilities: Capabilities::new(described.durable, described.recent_ids),
        })
    }
}

fn calls(channel: Channel, authorize: &Authorize, options: &ClientOptions) -> StoreStub {
    StoreClient::with_interceptor(channel, authorize.clone())
        .max_decoding_message_size(options.received_message_bytes_max)
        .max_encoding_message_size(usize::MAX)
}

/// Returns what the server says of itself. Waits while it is starting or shutting down, for the timeout of connecting.
async fn describe(
    calls: StoreStub,
    address: &str,
    options: &ClientOptions,
) -> Result<wire::DescribeResponse, ConnectError> {
    let after = options.connect_timeout;
    let mut not_ready = None;
    let described = timeout(after, describe_when_ready(calls, options, &mut not_ready)).await;
    let address = address.to_owned();
    let status = match described {
        Ok(Ok(described)) => return Ok(described),
        Ok(Err(status)) => status,
        // A server that says nothing may be overloaded, and still be one.
        Err(_) => {
            let cause: Cause = match not_ready {
                Some(status) => Arc::new(status),
                None => RpcError::Timeout { after, cause: None }.cause(),
            };
            return Err(ConnectError::NotReady {
                address,
                after,
                cause,
            });
        }
    };
    let cause = match StatusKind::of(status, &address) {
        StatusKind::Store(failure) => Arc::new(status::read_error(failure)),
        StatusKind::ShuttingDown => RpcError::ShuttingDown.cause(),
        StatusKind::Rejected(cause) | StatusKind::NoResponse(cause) => cause,
    };
    Err(ConnectError::ProtocolMismatch { address, cause })
}

/// Repeats the call while the server responds that it is unavailable. Keeps the last such response in `not_ready`.
async fn describe_when_ready(
    mut calls: StoreStub,
    options: &ClientOptions,
    not_ready: &mut Option<Status>,
) -> Result<wire::DescribeResponse, Status> {
    let mut backoff = Backoff::of(options);
    loop {
        let status = match calls.describe(wire::DescribeRequest {}).await {
            Ok(described) => return Ok(described.into_inner()),
            Err(status) => status,
        };
        // A status with a source was made here, of a failed connection.
        let is_connection_error = status.source().is_some();
        if status.code() == Code::Unavailable && !is_connection_error {
            *not_ready = Some(status);
        } else if !(is_connection_error && not_ready.is_some()) {
            return Err(status);
        }
        backoff.wait().await;
    }
}

/// Creates a connection, with the task that sends its appends. It ends with the client.
fn connection(
    calls: StoreStub,
    address: &str,
    options: &ClientOptions,
    message_bytes: usize,
) -> Connection {
    let (appends, queue) = mpsc::channel(QUEUE);
    let last_error = Arc::new(LastError::default());
    let sender = Sender {
        calls: calls.clone(),
        address: address.to_owned(),
        queue,
        last_error: Arc::clone(&last_error),
        backoff: Backoff::of(options),
        message_bytes,
    };
    tokio::spawn(sender.run());
    Connection {
        calls,
        appends,
        last_error,
    }
}

impl EventStore for Client {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(self.writer.append(append))
    }

    fn read(&self, read: Read) -> BoxStream<'static, Result<ReadBatch, ReadError>> {
        read::read(Arc::clone(&self.pool), read)
    }

    fn subscribe(
        &self,
        subscription: Subscription,
    ) -> BoxStream<'static, Result<Delivery, ReadError>> {
        subscribe::subscribe(Arc::clone(&self.pool), subscription)
    }

    fn head(&self) -> BoxFuture<'_, Result<Position, ReadError>> {
        Box::pin(self.pool.head())
    }

    fn stream_state(&self, stream: StreamName) -> BoxFuture<'_, Result<StreamState, ReadError>> {
        Box::pin(async move {
            let ask = |mut calls: StoreStub| {
                let stream = stream.to_string();
                async move { calls.state(wire::StateRequest { stream }).await }
            };
            let answer = self.pool.read_with_retry(ask).await?;
            decode::state(answer).map_err(status::unreadable)
        })
    }

    fn delete(&self, delete: Delete) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(self.writer.delete(delete))
    }

    fn scavenge(
        &self,
        scavenge: Scavenge,
    ) -> BoxStream<'static, Result<ScavengeProgress, ReadError>> {
        list::scavenge(Arc::clone(&self.pool), scavenge)
    }

    fn streams(&self, list: ListStreams) -> BoxStream<'static, Result<Vec<StreamInfo>, ReadError>> {
        list::list(Arc::clone(&self.pool), list)
    }

    fn stats(&self) -> BoxFuture<'_, Result<StoreStats, ReadError>> {
        Box::pin(async {
            let ask =
                |mut calls: StoreStub| async move { calls.stats(wire::StatsRequest {}).await };
            self.pool.read_with_retry(ask).await.map(decode::stats)
        })
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::new(RemoteSnapshotStore(Arc::clone(&self.pool)))
    }

    fn consumers(&self) -> Arc<dyn Consumers> {
        Arc::new(RemoteConsumers(Arc::clone(&self.pool)))
    }

    /// Closes this client and its clones; the server's store stays open.
    fn close(&self) -> BoxFuture<'_, Result<(), AppendError>> {
        Box::pin(async {
            self.writer.close().await;
            Ok(())
        })
    }
}
