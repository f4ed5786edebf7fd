//! The server: binding an address, running, shutting down.
//!
//! **Owns:** [`Server`]. **Does not know:** protocols, connections.
//! **Invariants:** the server listens on loopback only, unless the settings allow other addresses; at shutdown it accepts
//! nothing new, finishes what it accepted, and closes the store.

use std::{future::Future, net::SocketAddr, sync::Arc};

use leftfold_store::EventStore;
use tokio::{net::TcpListener, time::timeout};

use crate::{
    BindError, ServeError, Settings, connection, multiplex::ProtocolMux, state::ServerState,
};

/// A server that is bound to its address and can run.
///
/// ```
/// use std::sync::Arc;
/// use leftfold_server::{Server, Settings};
/// use leftfold_store::MemoryStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut settings = Settings::default();
/// settings.set("listen", "127.0.0.1:0")?;
/// let server = Server::bind(Arc::new(MemoryStore::new()), settings).await?;
/// println!("serving on {}", server.address());
/// let stop = async {}; // In earnest: until a signal comes.
/// server.run(stop).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<ServerState>,
}

impl Server {
    /// Binds the address. Connections queue from now on until [`Self::run`] accepts them.
    ///
    /// # Errors
    /// [`BindError`]: the address is exposed, the system refuses it, or a setting is invalid.
    pub async fn bind(
        store: Arc<dyn EventStore>,
        mut settings: Settings,
    ) -> Result<Self, BindError> {
        settings.check()?;
        let address = settings.listen;
        if !address.ip().is_loopback() && !settings.insecure {
            return Err(BindError::Exposed { address });
        }
        settings.connections_max = connection::connections_within_limit(settings.connections_max)?;
        let refused = |source| BindError::Refused { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let actual = listener.local_addr().map_err(refused)?;
        Ok(Self {
            listener,
            shared: ServerState::new(store, settings, actual),
        })
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves until `stop` resolves, then shuts down: subscriptions end with a status, calls in flight may finish, accepted
    /// appends do, and the store closes.
    ///
    /// # Errors
    /// [`ServeError`].
    ///
    /// # Cancel safety
    /// Dropping the future stops the server without waiting for anything; accepted appends are still written.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let Self { listener, shared } = self;
        connection::serve(listener, &shared, ProtocolMux::new(&shared), stop).await;
        shared.tasks.close();
        // No connection is left. The store finishes appends in flight when it closes.
        if timeout(shared.settings.shutdown_timeout, shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = shared.tasks.len(),
                "closing the store, its calls had no more time"
            );
        }
        shared.store.close().await.map_err(ServeError::Close)
    }
}
