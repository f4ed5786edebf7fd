//! A relay between the store and the server that loses, delays or holds back bytes.
//!
//! **Owns:** the relay. **Does not know:** the protocol.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use leftfold_postgres::PostgresOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    sync::watch,
};

use crate::server::{schema, server};

/// What the relay does to the responses of the server.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Drops every response and its connection.
    Disconnect,
    /// Drops the responses to messages that contain this word, and their connections.
    DisconnectOn(&'static str),
    /// Keeps every connection open and forwards nothing.
    Silence,
}

/// Forwards bytes until it is given a fault.
pub(crate) struct Relay {
    port: u16,
    fault: Arc<watch::Sender<Fault>>,
    sent: Arc<AtomicU64>,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let fault = Arc::new(watch::channel(Fault::None).0);
        let sent = Arc::new(AtomicU64::new(0));
        let socket = server()
            .directory()
            .join(format!(".s.PGSQL.{}", server().port()));
        tokio::spawn({
            let (fault, sent) = (Arc::clone(&fault), Arc::clone(&sent));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(forward(
                        client,
                        socket.clone(),
                        Arc::clone(&fault),
                        Arc::clone(&sent),
                    ));
                }
            }
        });
        Self { port, fault, sent }
    }

    pub(crate) fn address(&self) -> String {
        format!("postgres://leftfold@127.0.0.1:{}/postgres", self.port)
    }

    /// Options for a store of its own behind the relay.
    pub(crate) fn options(&self) -> PostgresOptions {
        let options: PostgresOptions = self.address().parse().unwrap();
        options.with_schema(schema())
    }

    /// How many bytes clients have sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

/// Waits while the relay is silent.
async fn until_heard(fault: &watch::Sender<Fault>) {
    let heard = fault
        .subscribe()
        .wait_for(|fault| *fault != Fault::Silence)
        .await
        .is_ok();
    assert!(heard);
}

async fn forward(
    client: tokio::net::TcpStream,
    socket: PathBuf,
    fault: Arc<watch::Sender<Fault>>,
    sent: Arc<AtomicU64>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = UnixStream::connect(socket).await.unwrap().into_split();
    let requested = Arc::new(AtomicBool::new(false));
    let requests = tokio::spawn({
        let (fault, requested) = (Arc::clone(&fault), Arc::clone(&requested));
        async move {
            let mut bytes = vec![0; 65_536];
            while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                sent.fetch_add(count as u64, Ordering::SeqCst);
                until_heard(&fault).await;
                if let Fault::DisconnectOn(word) = *fault.borrow() {
                    let mut parts = bytes[..count].windows(word.len());
                    requested.store(parts.any(|part| part == word.as_bytes()), Ordering::SeqCst);
                }
                if to_server.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
        }
    });
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
        until_heard(&fault).await;
        let dropped = match *fault.borrow() {
            Fault::None | Fault::Silence => false,
            Fault::Disconnect => true,
            Fault::DisconnectOn(_) => requested.load(Ordering::SeqCst),
        };
        if dropped || to_client.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
    requests.abort();
}
