//! Connections that are cut at the worst moment.
//!
//! **Owns:** a small relay between the store and the server, and what it does to answers. **Does not know:** the protocol.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use leftfold_model::{ExpectedRevision::Any, Position};
use leftfold_postgres::{PostgresOptions, PostgresStore};
use leftfold_store::{AppendError, EventStore};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
};

use crate::{
    server::{schema, server},
    story::{dense, followed, surely, to, types, until},
};

/// Passes bytes on, until it is told to swallow the next answer and cut the connection.
struct Relay {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Relay {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(AtomicBool::new(false));
        let socket = server()
            .directory()
            .join(format!(".s.PGSQL.{}", server().port()));
        tokio::spawn({
            let cut = Arc::clone(&cut);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(pass(client, socket.clone(), Arc::clone(&cut)));
                }
            }
        });
        Self { port, cut }
    }

    fn options(&self) -> PostgresOptions {
        let address = format!("postgres://leftfold@127.0.0.1:{}/postgres", self.port);
        let options: PostgresOptions = address.parse().unwrap();
        options.with_schema(schema())
    }

    /// From the next answer on that is longer than a keyword, connections are cut instead.
    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

async fn pass(client: tokio::net::TcpStream, socket: PathBuf, cut: Arc<AtomicBool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = UnixStream::connect(socket).await.unwrap().into_split();
    let upwards = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
    });
    let mut bytes = vec![0; 65_536];
    while let Ok(count) = from_server.read(&mut bytes).await {
        if count == 0
            || cut.load(Ordering::SeqCst)
            || to_client.write_all(&bytes[..count]).await.is_err()
        {
            break;
        }
    }
    upwards.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_the_outcome_unknown_and_a_repetition_finds_it() {
    let relay = Relay::start().await;
    let options = relay.options();
    let name = format!("cut {}", options.schema());
    let store = PostgresStore::open_with(options.named(&name))
        .await
        .unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    // Other processes are told a moment later; after that there is one connection, and it is idle.
    let told = format!(
        "select count(*) from pg_stat_activity where application_name = '{name}' and state = 'idle' \
         and query like '%pg_notify%'"
    );
    until(|| async { server().psql("postgres", &told).trim() == "1" }).await;
    // The server is done, but its answer may still be on its way: this one's connection has none to wait for.
    store.head().await.unwrap();
    let append = to("a", Any, "Second");
    relay.cut(true);
    let unknown = store.append(append.clone()).await.unwrap_err();
    assert!(
        matches!(unknown, AppendError::OutcomeUnknown { .. }),
        "{unknown}"
    );
    relay.cut(false);
    let found = surely(&store, &append).await;
    assert_eq!((found.first, found.repeated), (Position::new(2), true));
    assert_eq!(types(&store).await, ["First", "Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_proves_that_nothing_was_written() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    relay.cut(true);
    // The first one may lose a connection that is open; from then on none can be made.
    let _ = store.append(to("a", Any, "Perhaps")).await;
    let refused = store.append(to("a", Any, "Never")).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Unavailable { .. }),
        "{refused}"
    );
    relay.cut(false);
    surely(&store, &to("a", Any, "Last")).await;
    assert!(!types(&store).await.contains(&"Never".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_outlives_its_connections() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    let follower = tokio::spawn({
        let store = store.clone();
        async move { followed(&store, 30).await }
    });
    for n in 0..30 {
        let append = to("a", Any, "Written");
        if n % 10 == 5 {
            relay.cut(true);
            assert!(store.append(append.clone()).await.is_err());
            relay.cut(false);
        }
        surely(&store, &append).await;
    }
    assert_eq!(follower.await.unwrap(), dense(30));
}
