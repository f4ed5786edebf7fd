//! Connections that are cut at the worst moment.
//!
//! **Owns:** a small relay between the store and the server, and what it does to answers. **Does not know:** the protocol.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
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
    fixtures::{dense, followed, surely, to, types},
    server::{schema, server},
};

/// Which answers are swallowed, with the connection that waits for them.
#[derive(Clone, Copy)]
enum Cut {
    Nothing,
    Everything,
    /// Those to a message that holds this word.
    AnswersTo(&'static str),
}

/// Passes bytes on, until it is told to swallow answers and cut their connections.
struct Relay {
    port: u16,
    cut: Arc<Mutex<Cut>>,
}

impl Relay {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let cut = Arc::new(Mutex::new(Cut::Nothing));
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

    fn cut(&self, cut: Cut) {
        *self.cut.lock().unwrap() = cut;
    }
}

async fn pass(client: tokio::net::TcpStream, socket: PathBuf, cut: Arc<Mutex<Cut>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = UnixStream::connect(socket).await.unwrap().into_split();
    let asked = Arc::new(AtomicBool::new(false));
    let upwards = tokio::spawn({
        let (cut, asked) = (Arc::clone(&cut), Arc::clone(&asked));
        async move {
            let mut bytes = vec![0; 65_536];
            while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                if let Cut::AnswersTo(word) = *cut.lock().unwrap() {
                    let mut parts = bytes[..count].windows(word.len());
                    asked.store(parts.any(|part| part == word.as_bytes()), Ordering::SeqCst);
                }
                if to_server.write_all(&bytes[..count]).await.is_err() {
                    break;
                }
            }
        }
    });
    let mut bytes = vec![0; 65_536];
    while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
        let swallowed = match *cut.lock().unwrap() {
            Cut::Nothing => false,
            Cut::Everything => true,
            Cut::AnswersTo(_) => asked.load(Ordering::SeqCst),
        };
        if swallowed || to_client.write_all(&bytes[..count]).await.is_err() {
            break;
        }
    }
    upwards.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_leaves_the_outcome_unknown_and_a_repetition_finds_it() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    store.append(to("a", Any, "First")).await.unwrap();
    let append = to("a", Any, "Second");
    // The server answers a statement when it has committed it.
    relay.cut(Cut::AnswersTo("Second"));
    let unknown = store.append(append.clone()).await.unwrap_err();
    assert!(
        matches!(unknown, AppendError::OutcomeUnknown { .. }),
        "{unknown}"
    );
    relay.cut(Cut::Nothing);
    let found = surely(&store, &append).await;
    assert_eq!((found.first, found.repeated), (Position::new(2), true));
    assert_eq!(types(&store).await, ["First", "Second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_proves_that_nothing_was_written() {
    let relay = Relay::start().await;
    let store = PostgresStore::open_with(relay.options()).await.unwrap();
    relay.cut(Cut::Everything);
    // The first one may lose a connection that is open; from then on none can be made.
    let _ = store.append(to("a", Any, "Perhaps")).await;
    let refused = store.append(to("a", Any, "Never")).await.unwrap_err();
    assert!(
        matches!(refused, AppendError::Unavailable { .. }),
        "{refused}"
    );
    relay.cut(Cut::Nothing);
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
            relay.cut(Cut::Everything);
            assert!(store.append(append.clone()).await.is_err());
            relay.cut(Cut::Nothing);
        }
        surely(&store, &append).await;
    }
    assert_eq!(follower.await.unwrap(), dense(30));
}
