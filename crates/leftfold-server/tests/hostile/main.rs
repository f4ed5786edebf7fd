//! Clients that want no good: whatever they send, the server goes on serving the others.
//!
//! **Owns:** what can be sent below any protocol. **Does not know:** methods.
//! **Invariants:** each test ends by asking the same server for its health.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests stop at the first surprise"
)]

mod connections;
mod memory;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use leftfold_server::{ServeError, Server, Settings};
use leftfold_store::MemoryStore;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// Far more than anything here takes; a hang fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a connection of the second HTTP begins with.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct TestServer {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    async fn with(changes: &[(&str, &str)]) -> Self {
        let mut settings = Settings::default();
        settings.set("listen", "127.0.0.1:0").unwrap();
        for (name, value) in changes {
            settings.set(name, value).unwrap();
        }
        let server = Server::bind(Arc::new(MemoryStore::new()), settings)
            .await
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        Self {
            address: server.address(),
            stop: Some(stop),
            served: tokio::spawn(server.run(async {
                // A dropped sender stops the server too.
                let _ = stopped.await;
            })),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What the server answers to these bytes until it closes the connection.
    async fn answer(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = self.connect().await;
        // The server may close before everything was sent.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        let _ = timeout(PATIENCE, read).await.expect("the server closes");
        answer
    }

    async fn goes_on(mut self) {
        let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = self.answer(request).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        drop(self.stop.take());
        let served = timeout(PATIENCE, self.served).await.expect("it ends");
        served.unwrap().unwrap();
    }

    /// A connection of the second HTTP.
    async fn h2(&self) -> (h2::client::SendRequest<bytes::Bytes>, JoinHandle<()>) {
        let (client, connection) = h2::client::handshake(self.connect().await).await.unwrap();
        let driven = tokio::spawn(async {
            // However it ends, the test asks the server afterwards.
            let _ = connection.await;
        });
        (client, driven)
    }

    fn grpc(&self, path: &str) -> http::Request<()> {
        http::Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap()
    }
}

/// Numbers that look like chance and are the same each time (xorshift).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

#[tokio::test]
async fn garbage_is_answered_or_cut_but_never_waited_for() {
    let server = TestServer::with(&[("header_read_timeout", "300ms")]).await;
    let seed = 0x5eed_1234_5678_9abc;
    println!("seed {seed:#x}");
    let mut chance = Chance(seed);
    for round in 0..60 {
        let length = chance.next() % 2000 + 1;
        let mut bytes = chance.bytes(length);
        if round % 2 == 0 {
            // Behind a good beginning, garbage is taken for frames.
            bytes.splice(0..0, PREFACE.iter().copied());
        }
        let mut socket = server.connect().await;
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, socket.read_to_end(&mut answer))
            .await
            .expect("the server closes");
    }
    server.goes_on().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_is_closed() {
    let server = TestServer::with(&[("header_read_timeout", "200ms")]).await;
    for begun in [
        &b""[..],
        b"P",
        &PREFACE[..23],
        b"GET / HT",
        b"GET / HTTP/1.1\r\nx: ",
    ] {
        server.answer(begun).await;
    }
    server.goes_on().await;
}

#[tokio::test]
async fn headers_over_the_bound_are_refused() {
    let server = TestServer::with(&[("headers_bytes_max", "8KiB")]).await;
    let long = "a".repeat(60 * 1024);
    let request = format!("GET / HTTP/1.1\r\nhost: x\r\nbomb: {long}\r\n\r\n");
    let answer = server.answer(request.as_bytes()).await;
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    let (mut client, driven) = server.h2().await;
    let mut request = server.grpc("/a.B/C");
    request
        .headers_mut()
        .insert("bomb", long.try_into().unwrap());
    let refused = match client.send_request(request, true) {
        Ok((answer, _)) => answer.await.map_or(true, |answer| answer.status() == 431),
        Err(_) => true,
    };
    assert!(refused);
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn resets_in_a_hurry_do_not_stop_the_others() {
    let server = TestServer::with(&[]).await;
    let (client, driven) = server.h2().await;
    let mut sent = 0;
    while sent < 20_000 {
        let Ok(mut ready) = client.clone().ready().await else {
            break;
        };
        let Ok((_, mut body)) = ready.send_request(server.grpc("/a.B/C"), false) else {
            break;
        };
        body.send_reset(h2::Reason::CANCEL);
        sent += 1;
        if sent % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    println!("{sent} resets were sent");
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_let_go_whatever_it_waits_for() {
    let server = TestServer::with(&[
        ("connection_age_max", "50ms"),
        ("connection_age_grace", "50ms"),
    ])
    .await;
    let (mut client, driven) = server.h2().await;
    // A call that never says all it has to say.
    let request = server.grpc("/umadb.v1.DCB/Append");
    let (answer, _body) = client.send_request(request, false).unwrap();
    timeout(PATIENCE, driven).await.expect("it ends").unwrap();
    answer.await.unwrap_err();
    let mut silent = server.connect().await;
    let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    silent.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = silent.read_to_end(&mut answer);
    timeout(PATIENCE, read).await.expect("it ends").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    server.goes_on().await;
}

#[tokio::test]
async fn an_unknown_method_gets_the_answer_that_grpc_has_for_it() {
    let server = TestServer::with(&[]).await;
    let (mut client, driven) = server.h2().await;
    let (answer, _) = client
        .send_request(server.grpc("/no.Such/Method"), true)
        .unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "12");
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn connections_over_the_bound_are_closed_and_those_inside_stay() {
    let server = TestServer::with(&[("connections_per_address_max", "3")]).await;
    let request = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut socket = server.connect().await;
        socket.write_all(request).await.unwrap();
        let mut first = [0; 12];
        socket.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        inside.push(socket);
    }
    assert_eq!(server.answer(request).await, b"");
    drop(inside);
    // The server sees the end of a connection a moment later.
    let last = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    while server.answer(last).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.goes_on().await;
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_word() {
    let mut settings = Settings::default();
    settings.set("listen", "0.0.0.0:0").unwrap();
    let store = Arc::new(MemoryStore::new());
    let refused = Server::bind(store.clone(), settings.clone()).await;
    assert!(refused.unwrap_err().to_string().contains("insecure"));
    settings.set("insecure", "true").unwrap();
    Server::bind(store, settings).await.unwrap();
}
