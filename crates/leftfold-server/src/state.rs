//! The state that all protocols of one server share.
//!
//! **Owns:** [`ServerState`]. **Does not know:** protocols.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    thread,
    time::Instant,
};

use leftfold_store::EventStore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    Settings,
    access::{AccessControl, Tickets},
    background::metered_store::MeteredStore,
    background::metrics::Metrics,
    background::scavenger::ScavengeManager,
    blocking_threads::BlockingThreads,
    connection::{AnswerMemory, CallMemory, MemoryBudget, TlsServer},
    groups::{FilterMemory, GroupManager},
};

/// The store, the settings and the state of one server.
#[derive(Debug)]
pub(crate) struct ServerState {
    /// Handlers get the store of a principal by [`ServerState::store`].
    store: Arc<dyn EventStore>,
    pub(crate) settings: Settings,
    /// The address that the server listens on.
    pub(crate) address: SocketAddr,
    /// A new id for each start of the server.
    pub(crate) instance: Uuid,
    pub(crate) started: Instant,
    /// Cancelled when the server is told to end: it is not ready any more, and still takes requests for a while.
    pub(crate) draining: CancellationToken,
    /// Cancelled when a shutdown begins: subscriptions end, nothing new begins.
    pub(crate) stopping: CancellationToken,
    /// Work that must finish before the store closes, even if its client is gone.
    pub(crate) tasks: TaskTracker,
    /// The memory budget of all requests.
    pub(crate) request_memory: MemoryBudget,
    /// The memory budget of what open calls keep of their requests: queries, filters, compiled expressions.
    pub(crate) open_call_memory: MemoryBudget,
    /// The memory of all responses until they are sent.
    pub(crate) answer_memory: AnswerMemory,
    /// Where long bodies are decoded: on half of the processors at most, so that others are left for short requests.
    pub(crate) decoding: BlockingThreads,
    pub(crate) scavenges: ScavengeManager,
    /// The groups of competing consumers that this server acts for.
    pub(crate) groups: Arc<GroupManager>,
    pub(crate) metrics: Arc<Metrics>,
    /// `None`: connections are not encrypted.
    pub(crate) tls: Option<Arc<TlsServer>>,
    /// `None`: nobody has to say who they are, and everyone may do everything.
    pub(crate) access: Option<Arc<AccessControl>>,
    /// Tickets that clients may show instead of a header. A server that does not authenticate issues them as well, so that a
    /// page works with both.
    pub(crate) tickets: Tickets,
}

/// What keeps others out.
#[derive(Debug, Default)]
pub(crate) struct Security {
    pub(crate) tls: Option<Arc<TlsServer>>,
    pub(crate) access: Option<Arc<AccessControl>>,
}

impl ServerState {
    /// Creates the state of a server that anyone may use.
    #[cfg(test)]
    pub(crate) fn new(
        store: Arc<dyn EventStore>,
        settings: Settings,
        address: SocketAddr,
    ) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        let store = MeteredStore::new(store, Arc::clone(&metrics));
        Self::with_security((store, metrics), settings, address, Security::default())
    }

    /// Creates the state of a server that anyone may use, over a store in memory, with default settings.
    #[cfg(test)]
    pub(crate) fn over_memory() -> Arc<Self> {
        let settings = Settings::default();
        let address = settings.listen;
        Self::new(
            Arc::new(leftfold_store::MemoryStore::new()),
            settings,
            address,
        )
    }

    /// The state of a server that keeps others out; the store counts in the metrics.
    #[expect(
        clippy::disallowed_methods,
        reason = "only to say how long the server has been up"
    )]
    pub(crate) fn with_security(
        (store, metrics): (Arc<MeteredStore>, Arc<Metrics>),
        settings: Settings,
        address: SocketAddr,
        security: Security,
    ) -> Arc<Self> {
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let store: Arc<dyn EventStore> = store;
        let host = match settings.advertised_host.as_str() {
            "" => address.ip().to_string(),
            host => host.to_owned(),
        };
        let open_call_memory = MemoryBudget::new(settings.in_flight_bytes_max.len());
        let of_groups = open_call_memory.without_connection();
        Arc::new(Self {
            groups: GroupManager::new(
                Arc::clone(&store),
                format!("{host}:{}", address.port()),
                FilterMemory::new(move || {
                    let mut memory = of_groups.begin();
                    move |bytes| memory.grow(bytes).is_ok()
                }),
                (tasks.clone(), stopping.clone()),
            ),
            scavenges: ScavengeManager::new(
                Arc::clone(&store),
                settings.scavenge_bytes_per_second,
                (tasks.clone(), stopping.clone()),
            ),
            store,
            answer_memory: AnswerMemory::new(settings.response_bytes_max.len()),
            decoding: BlockingThreads::new(
                thread::available_parallelism().map_or(1, |threads| threads.get().div_ceil(2)),
            ),
            request_memory: MemoryBudget::new(settings.in_flight_bytes_max.len()),
            open_call_memory,
            settings,
            address,
            instance: Uuid::new_v4(),
            started: Instant::now(),
            draining: CancellationToken::new(),
            stopping,
            tasks,
            metrics,
            tls: security.tls,
            access: security.access,
            tickets: Tickets::default(),
        })
    }

    /// Returns the shares of a connection from this address.
    pub(crate) fn call_memory(&self, address: IpAddr) -> CallMemory {
        CallMemory {
            requests: self.request_memory.connection(address),
            open_calls: self.open_call_memory.connection(address),
        }
    }

    /// Returns shares that only the whole budgets bound.
    pub(crate) fn call_memory_without_connection(&self) -> CallMemory {
        CallMemory {
            requests: self.request_memory.without_connection(),
            open_calls: self.open_call_memory.without_connection(),
        }
    }

    /// The store without regard to whom a request is from: for what the server does by itself.
    pub(crate) fn unguarded_store(&self) -> &Arc<dyn EventStore> {
        &self.store
    }
}
