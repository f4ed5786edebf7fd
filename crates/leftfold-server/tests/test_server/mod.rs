//! A server that runs for one test.
//!
//! **Owns:** [`TestServer`]. **Does not know:** protocols.
//! **Invariants:** it listens on a port of its own, and ends when its test stops it.

#![allow(dead_code, reason = "not every binary uses every helper")]

use std::sync::Arc;

use leftfold_server::{ServeError, Server, Settings};
use leftfold_store::{EventStore, MemoryStore};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::transport::{Channel, Endpoint};

/// A server, and what runs it.
pub(crate) struct TestServer {
    pub(crate) store: Arc<dyn EventStore>,
    url: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    /// A server over an empty store in memory.
    pub(crate) async fn start() -> Self {
        Self::new(Arc::new(MemoryStore::new()), &[]).await
    }

    /// A server over this store, with these settings.
    pub(crate) async fn new(store: Arc<dyn EventStore>, given: &[(&str, &str)]) -> Self {
        let mut settings = Settings::default();
        settings.set("listen", "127.0.0.1:0").unwrap();
        for (name, value) in given {
            settings.set(name, value).unwrap();
        }
        let server = Server::bind(Arc::clone(&store), settings).await.unwrap();
        let url = format!("http://{}", server.address());
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self {
            store,
            url,
            stop,
            ended,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.url.clone()).unwrap();
        endpoint.connect().await.unwrap()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.ended.await.unwrap().unwrap();
    }
}
