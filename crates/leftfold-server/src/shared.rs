//! What all protocols of one server share.
//!
//! **Owns:** [`Shared`]. **Does not know:** protocols.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use leftfold_store::EventStore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{Settings, scavenges::Scavenges};

/// The store, the settings, and how the server is doing. One per server.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) settings: Settings,
    /// Where the server listens.
    pub(crate) address: SocketAddr,
    /// Another one each time the server starts.
    pub(crate) instance: Uuid,
    pub(crate) started: Instant,
    /// Cancelled when the server begins to stop: subscriptions end, nothing new begins.
    pub(crate) stopping: CancellationToken,
    /// Work that must be finished before the store closes, also when the client that asked for it is gone.
    pub(crate) tasks: TaskTracker,
    pub(crate) scavenges: Scavenges,
}

impl Shared {
    #[expect(
        clippy::disallowed_methods,
        reason = "only to say how long the server has been up"
    )]
    pub(crate) fn new(
        store: Arc<dyn EventStore>,
        settings: Settings,
        address: SocketAddr,
    ) -> Arc<Self> {
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        Arc::new(Self {
            scavenges: Scavenges::over(Arc::clone(&store), tasks.clone(), stopping.clone()),
            store,
            settings,
            address,
            instance: Uuid::new_v4(),
            started: Instant::now(),
            stopping,
            tasks,
        })
    }
}
