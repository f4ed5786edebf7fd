//! Servers that tests start, stop and kill.
//!
//! **Owns:** [`serve`], and [`Running`]: a server over a directory that can come back on its port.
//! **Does not know:** requests.

use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use leftfold_client::{Client, ClientOptions};
use leftfold_server::{Server, Settings};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
};

/// Long enough for a busy machine; reached only by what hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Serves a store as long as the test runs, and tells where.
pub(crate) async fn serve(store: Arc<dyn EventStore>, settings: &[(&str, &str)]) -> String {
    let server = bind(store, settings).await.unwrap();
    let address = format!("leftfold://{}", server.address());
    tokio::spawn(server.run(std::future::pending()));
    address
}

async fn bind(
    store: Arc<dyn EventStore>,
    given: &[(&str, &str)],
) -> Result<Server, leftfold_server::BindError> {
    let mut settings = Settings::default();
    settings.set("listen", "127.0.0.1:0").unwrap();
    for (name, value) in given {
        settings.set(name, value).unwrap();
    }
    Server::bind(store, settings).await
}

/// Options of a client that does not wait longer than it must.
pub(crate) fn quick() -> ClientOptions {
    ClientOptions::default()
        .with_backoff(Duration::from_millis(1), Duration::from_millis(20))
        .with_write_timeout(PATIENCE)
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
    gate: JoinHandle<()>,
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
        let directory = self.directory.path().to_owned();
        let server = runtime.spawn(async move { in_time(come_up(&directory)).await });
        let server = server.await.unwrap();
        let (port, gate) = gate(self.port, server.address()).await;
        self.port = port;
        let (stop, stopped) = oneshot::channel::<()>();
        let end = runtime.spawn(async move {
            let stopped = async { drop(stopped.await) };
            server.run(stopped).await.unwrap();
        });
        self.life = Some(Life {
            runtime,
            gate,
            stop,
            end,
        });
    }

    /// Copies the directory of a server that was stopped.
    pub(crate) fn back_up(&self) -> TempDir {
        assert!(
            self.life.is_none(),
            "a server that runs changes its directory"
        );
        let copy = tempfile::tempdir().unwrap();
        copy_files(self.directory.path(), copy.path());
        copy
    }

    /// Puts a copy in the place of the directory of a server that was stopped.
    pub(crate) fn restore(&mut self, copy: TempDir) {
        assert!(
            self.life.is_none(),
            "a server that runs keeps its directory"
        );
        self.directory = copy;
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) {
        let life = self.life.take().unwrap();
        life.stop.send(()).unwrap();
        in_time(life.end).await.unwrap();
        shut(life.gate).await;
        life.runtime.shutdown_background();
    }

    /// Ends it wherever it is.
    pub(crate) async fn kill(&mut self) {
        let life = self.life.take().unwrap();
        // Cut the connections first: a killed process sends no farewell.
        shut(life.gate).await;
        life.runtime.shutdown_background();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(life) = self.life.take() {
            life.runtime.shutdown_background();
        }
    }
}

/// Tries until the server before this one has let go of the directory.
async fn come_up(directory: &Path) -> Server {
    loop {
        if let Ok(store) = EmbeddedStore::open(directory, LogOptions::default()).await {
            return bind(Arc::new(store), &[]).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The way to a server, on a port that stays when the server is another. It takes the connections with it when it ends.
async fn gate(port: u16, server: SocketAddr) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let open = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut server = TcpStream::connect(server).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    (port, open)
}

async fn shut(gate: JoinHandle<()>) {
    gate.abort();
    let _ = gate.await;
}
