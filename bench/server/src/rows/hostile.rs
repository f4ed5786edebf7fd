//! What hostile clients cost honest ones.
//!
//! **Owns:** the attacks, and honest writers beside each of them. **Does not know:** how the server bounds an attack.
//! **Invariants:** the server has its defaults; attackers come from an address of their own, and begin again when they are cut
//! off; no attack has a right that anybody else lacks.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use h2::client::SendRequest;
use leftfold_proto::{
    event_store::client::{
        Empty,
        streams::{
            ReadReq,
            read_req::{
                Options,
                options::{
                    AllOptions, CountOption, FilterOption, FilterOptions, StreamOption,
                    SubscriptionOptions, UuidOption, all_options::AllOption, filter_options,
                    uuid_option,
                },
            },
        },
    },
    prost::{Message, encoding::encode_varint},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{closed, plan::Plan, report::Report, server::Kind, wire::Wire};

use super::{Side, appends, in_turn, start};

/// Honest writers, each with a connection.
const HONEST: u64 = 50;
/// Where attackers come from.
const HOSTILE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Data of the event that attackers ask for and do not take.
const LARGE_BYTES: usize = 15 * 1024 * 1024;
/// Pause of an attacker that was cut off.
const AGAIN: Duration = Duration::from_millis(100);
/// How long an attacker holds on that is not cut off.
const HOLD: Duration = Duration::from_secs(15);

/// What one attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    IdleSockets,
    StalledUploads,
    UnreadAnswers,
    Resets,
    EmptyElements,
    Expressions,
    Conditions,
}

const ATTACKS: [(&str, Attack); 7] = [
    ("1,000 idle sockets", Attack::IdleSockets),
    ("8 stalled uploads", Attack::StalledUploads),
    ("60 unread answers of 15 MiB", Attack::UnreadAnswers),
    ("40 resets every 100 ms", Attack::Resets),
    (
        "messages of 7 million empty elements",
        Attack::EmptyElements,
    ),
    ("4 costly expressions", Attack::Expressions),
    ("4 costly conditions", Attack::Conditions),
];

pub(crate) async fn hostile(plan: &Plan, report: &Report) -> anyhow::Result<()> {
    let all = ATTACKS.map(|(_, attack)| attack);
    let mut rows: Vec<(&str, &[Attack])> = vec![("none", &[])];
    let alone = all.chunks(1).zip(&ATTACKS);
    rows.extend(alone.map(|(attack, (name, _))| (*name, attack)));
    let together = ("all of them", &all[..]);
    rows.push(together);
    for (attackers, attacks) in plan.choose(&rows, together) {
        let name = format!("hostile: {HONEST} writers x 1, beside: {attackers}");
        if plan.wants(&name) {
            row(plan, report, &name, attacks).await?;
        }
    }
    Ok(())
}

async fn row(plan: &Plan, report: &Report, name: &str, attacks: &[Attack]) -> anyhow::Result<()> {
    let sides = start(plan, &[(Kind::Leftfold, Wire::Leftfold)]).await?;
    for side in &sides {
        store_events(side.server.port).await?;
    }
    let measure = async |side: &Side| {
        let works = appends(plan, side, HONEST).await?;
        let mut attackers = JoinSet::new();
        for &attack in attacks {
            attackers.spawn(attack.go_on(side.server.port));
        }
        closed::run(works, Some(plan.timing), &side.server).await
    };
    report.row(name, &in_turn(plan.runs, &sides, measure).await?, None);
    Ok(())
}

/// Appends the event that unread answers hold, and events for conditions to look at.
async fn store_events(port: u16) -> anyhow::Result<()> {
    let data = "x".repeat(LARGE_BYTES);
    let large = format!(r#"{{"type":"Large","data":"{data}"}}"#);
    let half = |n: usize| format!(r#"{{"type":"Noted","data":0,"tags":["half:{}"]}}"#, n % 2);
    let halves: Vec<_> = (0..10_000).map(half).collect();
    for (stream, body, times) in [
        ("large-1", large, 1),
        ("noted-1", format!("[{}]", halves.join(",")), 10),
    ] {
        for _ in 0..times {
            let answer = post(port, &format!("/api/v1/streams/{stream}/events"), &body).await?;
            anyhow::ensure!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        }
    }
    Ok(())
}

impl Attack {
    /// Attacks until it is dropped.
    async fn go_on(self, port: u16) {
        loop {
            // However it ended, the next one begins.
            let _ = self.once(port).await;
            sleep(AGAIN).await;
        }
    }

    async fn once(self, port: u16) -> anyhow::Result<()> {
        match self {
            Self::IdleSockets => {
                let mut sockets = Vec::new();
                for _ in 0..1_000 {
                    sockets.push(connect(port).await?);
                }
                sleep(HOLD).await;
            }
            Self::StalledUploads => {
                let head = "POST /api/v1/streams/a/events HTTP/1.1\r\nhost: localhost\r\n\
                            content-type: application/json\r\ncontent-length: 16777216\r\n\r\n";
                let stalled = (0..8).map(|_| async {
                    let mut socket = connect(port).await?;
                    socket.write_all(head.as_bytes()).await?;
                    socket.read_to_end(&mut Vec::new()).await?;
                    anyhow::Ok(())
                });
                join_all(stalled).await;
            }
            Self::UnreadAnswers => {
                let mut sockets = Vec::new();
                for _ in 0..60 {
                    let mut socket = connect(port).await?;
                    let get =
                        b"GET /api/v1/streams/large-1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
                    socket.write_all(get).await?;
                    sockets.push(socket);
                }
                sleep(HOLD).await;
            }
            Self::Resets => resets(port).await?,
            Self::EmptyElements => {
                let mut connection = h2_connection(port).await?;
                let message = empty_elements();
                call(&mut connection, "/leftfold.v1.Store/Append", message).await?;
            }
            Self::Expressions => {
                let costly = (0..4).map(|n| async move {
                    let mut connection = h2_connection(port).await?;
                    let message = filtered(&format!("{}{n}", r"(?>\w{1000})".repeat(60)));
                    let read = "/event_store.client.streams.Streams/Read";
                    call(&mut connection, read, message).await
                });
                join_all(costly).await;
            }
            Self::Conditions => {
                let costly = (0..4).map(|n| async move {
                    let body = condition(n);
                    post(port, "/api/v1/append", &body).await
                });
                join_all(costly).await;
            }
        }
        Ok(())
    }
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((HOSTILE, 0)))?;
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(server).await
}

/// Posts JSON; answers the whole response.
async fn post(port: u16, path: &str, body: &str) -> std::io::Result<String> {
    let mut socket = connect(port).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// A connection of HTTP/2, with the task that drives it.
struct H2 {
    requests: SendRequest<Bytes>,
    _driven: JoinSet<()>,
}

async fn h2_connection(port: u16) -> anyhow::Result<H2> {
    let (requests, connection) = h2::client::handshake(connect(port).await?).await?;
    let mut driven = JoinSet::new();
    driven.spawn(async { drop(connection.await) });
    Ok(H2 {
        requests,
        _driven: driven,
    })
}

fn grpc(path: &str) -> anyhow::Result<http::Request<()>> {
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    Ok(request.body(())?)
}

/// Sends one message, and waits for the head of the answer and a while more.
async fn call(connection: &mut H2, path: &str, message: Bytes) -> anyhow::Result<()> {
    let mut ready = connection.requests.clone().ready().await?;
    let (answer, mut body) = ready.send_request(grpc(path)?, false)?;
    // The server may end the call before all of it is sent.
    let _ = body.send_data(message, true);
    let _answer = answer.await?;
    sleep(AGAIN).await;
    Ok(())
}

/// Begins 40 calls and resets them, again and again.
async fn resets(port: u16) -> anyhow::Result<()> {
    let connection = h2_connection(port).await?;
    loop {
        for _ in 0..40 {
            let mut ready = connection.requests.clone().ready().await?;
            let (_answer, mut body) =
                ready.send_request(grpc("/leftfold.v1.Store/Appends")?, false)?;
            body.send_reset(h2::Reason::CANCEL);
        }
        sleep(AGAIN).await;
    }
}

/// A message of gRPC: not compressed, with its length.
fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// An append of one write with seven million events of two bytes.
fn empty_elements() -> Bytes {
    let events = [0x1a, 0x00].repeat(7 * 1024 * 1024);
    let mut append = BytesMut::new();
    append.put_u8(0x0a);
    encode_varint(events.len() as u64, &mut append);
    append.put_slice(&events);
    framed(&append)
}

/// A subscription to everything on the wire of KurrentDB, by an expression on names of streams.
fn filtered(expression: &str) -> Bytes {
    let expression = filter_options::Expression {
        regex: expression.to_owned(),
        prefix: Vec::new(),
    };
    let filter = FilterOptions {
        filter: Some(filter_options::Filter::StreamIdentifier(expression)),
        window: Some(filter_options::Window::Max(32)),
        checkpoint_interval_multiplier: 1,
    };
    let options = Options {
        stream_option: Some(StreamOption::All(AllOptions {
            all_option: Some(AllOption::Start(Empty {})),
        })),
        count_option: Some(CountOption::Subscription(SubscriptionOptions {})),
        filter_option: Some(FilterOption::Filter(filter)),
        uuid_option: Some(UuidOption {
            content: Some(uuid_option::Content::String(Empty {})),
        }),
        ..Options::default()
    };
    let request = ReadReq {
        options: Some(options),
    };
    framed(&request.encode_to_vec())
}

/// An append under as many terms as are allowed, which nothing matches, or under two tags that never meet.
fn condition(number: u64) -> String {
    let items = if number % 2 == 0 {
        let item = |item: u64| {
            let types = (0..256).map(|n| format!(r#""Never{number}-{item}-{n}""#));
            format!(r#"{{"types":[{}]}}"#, types.collect::<Vec<_>>().join(","))
        };
        (0..256).map(item).collect::<Vec<_>>().join(",")
    } else {
        r#"{"tags":["half:0","half:1"]}"#.to_owned()
    };
    let writes =
        format!(r#"[{{"stream":"costly-{number}","events":[{{"type":"Costly","data":0}}]}}]"#);
    format!(r#"{{"writes":{writes},"conditions":[{{"items":[{items}],"after":0}}]}}"#)
}
