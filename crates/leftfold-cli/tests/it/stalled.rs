//! Clients that subscribe and never take what they are sent.
//!
//! **Owns:** the memory that they cost a server. **Does not know:** how it is bounded.

use std::{
    any::Any,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use futures_util::StreamExt;
use leftfold_client::{Client, ClientOptions};
use leftfold_model::{
    Append, ContentType, EventType, ExpectedRevision, NewEvent, Position, StreamName,
};
use leftfold_store::{EventStore, Subscription};

use crate::served::{Served, binary};

/// What the server may take at its highest.
const MEMORY_MAX: u64 = 256 * 1024 * 1024;
/// Subscribers that stall, by each protocol.
const EACH: usize = 50;
/// What there is for them to be sent: many small events, then large ones. Half of them begin with these.
const SMALL: u64 = 100_000;
const SMALL_BYTES: usize = 100;
const LARGE: u64 = 5_120;
const LARGE_BYTES: usize = 16 * 1024;

/// A bound on the memory of processes, pages of files included, where this machine lets tests make one.
struct Bound {
    group: Option<PathBuf>,
}

impl Bound {
    fn new() -> Self {
        let name = format!("leftfold-stalled-{}", std::process::id());
        let old = Path::new("/sys/fs/cgroup/memory");
        let (group, limit) = if old.is_dir() {
            (old.join(name), "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup").join(name), "memory.max")
        };
        let made = fs::create_dir(&group)
            .and_then(|()| fs::write(group.join(limit), MEMORY_MAX.to_string()));
        Self {
            group: made.is_ok().then_some(group),
        }
    }

    /// A command that runs the server within the bound.
    fn command(&self) -> Command {
        let server = binary();
        match &self.group {
            None => Command::new(server),
            Some(group) => {
                let mut command = Command::new("sh");
                let join = r#"echo $$ > "$0/cgroup.procs" && exec "$@""#;
                command.args(["-c", join]).arg(group).arg(server);
                command
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // A group that cannot be removed does no harm.
            let _ = fs::remove_dir(group);
        }
    }
}

/// A server over the store in `data`, within the bound.
fn served(bound: &Bound, data: &Path) -> Served {
    Served::by(
        bound
            .command()
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .stderr(Stdio::null()),
    )
}

async fn connected(server: &Served, connections: usize) -> Client {
    let options = ClientOptions::default().with_connections(connections);
    Client::connect_with(&format!("leftfold://{}", server.address), options)
        .await
        .unwrap()
}

/// The most memory the server had at any time, of its own; `None` where the system does not tell.
fn peak(server: &Served) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib = line.split_whitespace().nth(1)?;
    Some(kib.parse::<u64>().ok()? * 1024)
}

async fn append(client: &Client, events: u64, bytes: usize) -> Position {
    let data = vec![b'x'; bytes];
    let kind = EventType::new("Happened").unwrap();
    let event = || NewEvent::new(kind.clone(), ContentType::Binary, data.clone());
    let events = (0..events).map(|_| event()).collect();
    let stream = StreamName::new("all").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, events).unwrap();
    client.append(append).await.unwrap().last
}

/// Where the nth subscriber begins: before the small events, or before the large ones.
fn beginning(nth: usize) -> u64 {
    if nth.is_multiple_of(2) { 0 } else { SMALL }
}

/// Numbers as Protocol Buffers write them.
fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A message within another.
fn nested(field: u8, message: &[u8]) -> Vec<u8> {
    let length = varint(message.len() as u64);
    [&[field << 3 | 2], &*length, message].concat()
}

/// A subscription of KurrentDB's clients to everything, from a position on, with ids as texts.
fn everything(from: u64) -> Vec<u8> {
    let position = [&[0x08], &*varint(from), &[0x10], &*varint(from)].concat();
    let options = [
        nested(2, &nested(1, &position)),
        nested(6, &[]),
        nested(8, &[]),
        nested(9, &nested(2, &[])),
    ];
    nested(1, &options.concat())
}

/// A subscription of UmaDB's clients, behind a position.
fn behind(after: u64) -> Vec<u8> {
    [&[0x10], &*varint(after)].concat()
}

/// Subscribers that took what they are sent first, and take nothing more while this is kept.
#[derive(Default)]
struct Stalled {
    kept: Vec<Box<dyn Any>>,
}

impl Stalled {
    async fn by_leftfold(&mut self, server: &Served) {
        let client = connected(server, 10).await;
        for nth in 0..EACH {
            let after = Position::new(beginning(nth));
            let mut subscription = client.subscribe(Subscription::after(after));
            let first = subscription.next().await.unwrap().unwrap();
            assert!(!first.events.is_empty());
            self.kept.push(Box::new(subscription));
        }
    }

    /// Calls a method over gRPC with a request that is encoded by hand.
    async fn by_grpc(&mut self, server: &Served, method: &str, request: impl Fn(u64) -> Vec<u8>) {
        let socket = tokio::net::TcpStream::connect(&server.address)
            .await
            .unwrap();
        // Calls that stall must not take the window of all.
        let connecting = h2::client::Builder::new()
            .initial_connection_window_size(1 << 30)
            .initial_window_size(64 * 1024)
            .handshake::<_, Bytes>(socket);
        let (client, connection) = connecting.await.unwrap();
        self.kept.push(Box::new(tokio::spawn(connection)));
        for nth in 0..EACH {
            let head = http::Request::post(format!("http://{}/{method}", server.address))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let mut client = client.clone().ready().await.unwrap();
            let (answer, mut body) = client.send_request(head, false).unwrap();
            let message = request(beginning(nth));
            let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
            frame.extend(message);
            body.send_data(frame.into(), true).unwrap();
            let mut answer = answer.await.unwrap().into_body();
            // What is taken is never given back as room for more.
            let first = answer.data().await.unwrap().unwrap();
            assert!(first.len() > 5, "{method} answers a message");
            self.kept.push(Box::new((client, body, answer)));
        }
    }

    fn by_http(&mut self, server: &Served) {
        for nth in 0..EACH {
            let mut socket = TcpStream::connect(&server.address).unwrap();
            let path = format!("/api/v1/subscribe?after={}", beginning(nth));
            let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
            socket.write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 12];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            self.kept.push(Box::new(socket));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_stalled_subscribers_cost_little_memory_and_nobody_else_waits() {
    let data = tempfile::tempdir().unwrap();
    let bound = Bound::new();
    if bound.group.is_none() {
        println!("the server's own memory is looked at only: no bound can be set here");
    }
    let mut server = served(&bound, data.path());
    let client = connected(&server, 1).await;
    for _ in 0..SMALL / 5_000 {
        append(&client, 5_000, SMALL_BYTES).await;
    }
    for _ in 0..LARGE / 256 {
        append(&client, 256, LARGE_BYTES).await;
    }

    let mut stalled = Stalled::default();
    stalled.by_leftfold(&server).await;
    let read = "event_store.client.streams.Streams/Read";
    stalled.by_grpc(&server, read, everything).await;
    let subscribe = "umadb.v1.DCB/Subscribe";
    stalled.by_grpc(&server, subscribe, behind).await;
    stalled.by_http(&server);

    let last = append(&client, 1, SMALL_BYTES).await;
    let mut new = client.subscribe(Subscription::after(last.previous()));
    let delivery = new.next().await.unwrap().unwrap();
    assert_eq!(delivery.events.first().unwrap().position, last);
    assert!(server.child.try_wait().unwrap().is_none(), "it still runs");
    // Two of them are connections.
    assert_eq!(stalled.kept.len(), 4 * EACH + 2);
    if let Some(peak) = peak(&server) {
        println!("{} MiB at the most", peak >> 20);
        assert!(peak < MEMORY_MAX, "{} MiB at the most", peak >> 20);
    }
}
