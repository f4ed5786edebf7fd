//! The server: binding an address, running, shutting down.
//!
//! **Owns:** [`StartingServer`], [`Server`]. **Does not know:** protocols, connections.
//! **Invariants:** the server listens on loopback only, unless the settings allow other addresses; at shutdown it accepts
//! nothing new, finishes what it accepted, and closes the store.

use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc};

use leftfold_store::EventStore;
use prometheus_client::metrics::counter::Counter;
use tokio::{net::TcpListener, time::timeout};

use crate::{
    BindError, ServeError, Settings,
    access::{AccessControl, TokenVerifier},
    background::{metered_store::MeteredStore, metrics::Metrics},
    connection::{self, StartingListener, TlsServer},
    multiplex::{self, ProtocolMux},
    state::{Security, ServerState},
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
pub struct Server {
    listener: TcpListener,
    shared: Arc<ServerState>,
    first_password: Option<String>,
}

impl fmt::Debug for Server {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Server");
        debug
            .field("address", &self.shared.address)
            .finish_non_exhaustive()
    }
}

/// Reads the certificates of a running server again. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle(Option<Arc<TlsServer>>);

impl ReloadHandle {
    /// Reads the certificates again and uses them for the connections that come from now on. Files that cannot be used are
    /// logged, and those before stay in use. Reads files, so it takes a moment.
    pub fn reload(&self) {
        if let Some(tls) = &self.0 {
            tls.reload_logged();
        }
    }
}

/// A server whose store is not open yet.
#[derive(Debug)]
#[must_use = "dropping it leaves the address"]
pub struct StartingServer {
    listener: StartingListener,
    address: SocketAddr,
    settings: Settings,
    tls: Option<Arc<TlsServer>>,
    tokens: Option<TokenVerifier>,
}

impl StartingServer {
    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens the server over its store. Connections queue from now on until [`Server::run`] accepts them.
    ///
    /// # Errors
    /// [`BindError`]: users and rights cannot be read, or the first administrator cannot be created.
    pub async fn open(self, store: Arc<dyn EventStore>) -> Result<Server, BindError> {
        let Self {
            listener,
            address,
            settings,
            tls,
            tokens,
        } = self;
        let metrics = Arc::new(Metrics::new());
        let metered = MeteredStore::new(Arc::clone(&store), Arc::clone(&metrics));
        let (access, first_password) = match settings.authenticates() {
            true => {
                let denials = metrics.access_denied.clone();
                let guarded = (Arc::clone(&metered), denials);
                let (access, password) = open_access(store, guarded, &settings, tokens).await?;
                (Some(access), password)
            }
            false => (None, None),
        };
        let refused = |source| BindError::Refused { address, source };
        let listener = listener.into_listener().await;
        let listener = listener.map_err(|ended| refused(io::Error::other(ended)))?;
        let security = Security { tls, access };
        Ok(Server {
            listener,
            shared: ServerState::with_security((metered, metrics), settings, address, security),
            first_password,
        })
    }
}

impl Server {
    /// Binds the address, and answers from now on that the server is starting: 200 at `/health/live`, 503 or UNAVAILABLE
    /// everywhere else. Call it before the store is opened, which can take long after an unclean stop.
    ///
    /// # Errors
    /// [`BindError`]: the address is exposed, the system refuses it, or a setting is invalid.
    pub async fn start(mut settings: Settings) -> Result<StartingServer, BindError> {
        settings.check()?;
        let address = settings.listen;
        let tls = TlsServer::from_settings(&settings)?.map(Arc::new);
        let tokens = TokenVerifier::from_settings(&settings)?;
        if !address.ip().is_loopback() && !settings.insecure {
            if tls.is_none() {
                return Err(BindError::Exposed { address });
            }
            if !settings.authenticates() {
                return Err(BindError::Unauthenticated { address });
            }
        }
        settings.connections_max = connection::connections_within_limit(settings.connections_max)?;
        let refused = |source| BindError::Refused { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let actual = listener.local_addr().map_err(refused)?;
        tracing::info!(address = %actual, "listening: the store is not open yet");
        let answer = multiplex::answer_while_starting;
        Ok(StartingServer {
            listener: StartingListener::new(listener, tls.clone(), &settings, answer),
            address: actual,
            settings,
            tls,
            tokens,
        })
    }

    /// Binds the address and opens the server over a store that is open. Connections queue from now on until [`Self::run`]
    /// accepts them.
    ///
    /// # Errors
    /// [`BindError`]: the address is exposed, the system refuses it, a setting is invalid, or users cannot be read.
    pub async fn bind(store: Arc<dyn EventStore>, settings: Settings) -> Result<Self, BindError> {
        Self::start(settings).await?.open(store).await
    }

    /// The password of the first administrator, whose login is [`FIRST_ADMINISTRATOR`], if both were made just now.
    ///
    /// [`FIRST_ADMINISTRATOR`]: crate::access::FIRST_ADMINISTRATOR
    #[must_use]
    pub fn first_password(&self) -> Option<&str> {
        self.first_password.as_deref()
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.shared.tls.is_some()
    }

    /// Whether requests must say who they are from.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.shared.access.is_some()
    }

    /// By which certificates are read again while the server runs.
    #[must_use]
    pub fn reload_handle(&self) -> ReloadHandle {
        ReloadHandle(self.shared.tls.clone())
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves until `stop` resolves, and for the time of the setting `shutdown_delay` after that. Then shuts down:
    /// subscriptions end with a status, calls in flight may finish, accepted appends do, and the store closes.
    ///
    /// # Errors
    /// [`ServeError`].
    ///
    /// # Cancel safety
    /// Dropping the future stops the server without waiting for anything; accepted appends are still written.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let Self {
            listener, shared, ..
        } = self;
        let stop = drained(stop, &shared);
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
        if let Some(access) = &shared.access {
            // What is not written by then is in the log.
            let _ = timeout(shared.settings.shutdown_timeout, access.audit.flush()).await;
        }
        shared
            .unguarded_store()
            .close()
            .await
            .map_err(ServeError::Close)
    }
}

/// Resolves a while after `stop` did. In between the server is not ready, so that load balancers turn away from it.
async fn drained(stop: impl Future<Output = ()>, shared: &ServerState) {
    stop.await;
    shared.draining.cancel();
    let delay = shared.settings.shutdown_delay;
    if !delay.is_zero() {
        tracing::info!(?delay, "draining: requests are still taken");
        tokio::time::sleep(delay).await;
    }
}

/// Reads users and rights, and creates the first administrator; gives the password if it was made here.
async fn open_access(
    store: Arc<dyn EventStore>,
    (metered, denials): (Arc<MeteredStore>, Counter),
    settings: &Settings,
    tokens: Option<TokenVerifier>,
) -> Result<(Arc<AccessControl>, Option<String>), BindError> {
    let access = AccessControl::open(store, metered, settings, denials, tokens).await?;
    let password = match settings.admin_password_file.as_str() {
        "" => None,
        file => {
            let read = std::fs::read_to_string(file).map_err(|source| BindError::PasswordFile {
                file: file.into(),
                source,
            })?;
            Some(read.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    let made = access
        .create_first_administrator(password.as_deref())
        .await?;
    Ok((access, made))
}
