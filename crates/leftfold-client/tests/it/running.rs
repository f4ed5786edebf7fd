//! Servers that tests start, stop and kill.
//!
//! **Owns:** [`serve`], and [`Running`]: a server over a directory that can come back on its port.
//! **Does not know:** what is asked of them.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use leftfold_client::{Client, ClientOptions};
use leftfold_server::{Server, Settings};
use leftfold_store::{EngineStore, EventStore, LogOptions};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

/// Long enough for a busy machine; reached only by what hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Serves a store as long as the test runs, and tells where.
pub(crate) async fn serve(store: Arc<dyn EventStore>, settings: &[(&str, &str)]) -> String {
    let server = bind(store, settings, 0).await.unwrap();
    let address = format!("leftfold://{}", server.address());
    tokio::spawn(server.run(std::future::pending()));
    address
}

async fn bind(
    store: Arc<dyn EventStore>,
    given: &[(&str, &str)],
    port: u16,
) -> Result<Server, leftfold_server::BindError> {
    let mut settings = Settings::default();
    settings
        .set("listen", &format!("127.0.0.1:{port}"))
        .unwrap();
    for (name, value) in given {
        settings.set(name, value).unwrap();
    }
    Server::bind(store, settings).await
}

/// Options of a client that does not wait longer than it must.
pub(crate) fn quick() -> ClientOptions {
    ClientOptions::default()
        .with_pauses(Duration::from_millis(1), Duration::from_millis(20))
        .with_append_timeout(PATIENCE)
        .with_call_timeout(PATIENCE)
}

/// Fails instead of hanging.
pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("hangs"),
    }
}

/// A server over a directory, on a port that it keeps.
pub(crate) struct Running {
    directory: TempDir,
    port: u16,
    life: Option<Life>,
}

struct Life {
    runtime: Runtime,
    stop: oneshot::Sender<()>,
    end: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start() -> Self {
        let mut running = Self {
            directory: tempfile::tempdir().unwrap(),
            port: 0,
            life: None,
        };
        running.go_on().await;
        running
    }

    /// The host and port.
    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        let address = format!("leftfold://{}", self.place());
        Client::connect_with(&address, quick()).await.unwrap()
    }

    /// Starts it again.
    pub(crate) async fn go_on(&mut self) {
        // A runtime of its own can be ended with everything that runs on it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (directory, port) = (self.directory.path().to_owned(), self.port);
        let server = runtime.spawn(async move { in_time(come_up(&directory, port)).await });
        let server = server.await.unwrap();
        self.port = server.address().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let end = runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.run(stopped).await.unwrap();
        });
        self.life = Some(Life { runtime, stop, end });
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) {
        let life = self.life.take().unwrap();
        life.stop.send(()).unwrap();
        in_time(life.end).await.unwrap();
        life.runtime.shutdown_background();
    }

    /// Ends it wherever it is.
    pub(crate) fn kill(&mut self) {
        self.life.take().unwrap().runtime.shutdown_background();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(life) = self.life.take() {
            life.runtime.shutdown_background();
        }
    }
}

/// Tries until the server before this one has let go of the directory and the port.
async fn come_up(directory: &Path, port: u16) -> Server {
    loop {
        if let Ok(store) = EngineStore::open(directory, LogOptions::default()).await
            && let Ok(server) = bind(Arc::new(store), &[], port).await
        {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
