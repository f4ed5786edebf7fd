//! Clients that hold memory or time: stalled uploads, answers not taken, messages that swell.
//!
//! **Owns:** one test for each bound of docs/settings.md on memory and time. **Does not know:** how bounds are kept.
//! **Invariants:** while the hostile clients hold on, an honest one appends and reads; afterwards so it does.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use leftfold_proto::{
    event_store::client::{
        Empty, StreamIdentifier, Uuid,
        streams::{
            AppendReq, MetadataEntry, ReadReq, append_req,
            read_req::{
                Options,
                options::{
                    AllOptions, CountOption, FilterOption, FilterOptions, StreamOption,
                    SubscriptionOptions, UuidOption, all_options::AllOption, filter_options,
                    uuid_option,
                },
            },
        },
        uuid,
    },
    leftfold::v1::{Query, QueryItem, SubscribeRequest},
    prost::{Message, encoding::encode_varint},
    umadb::v1 as umadb,
};
use tokio::sync::Mutex;

use super::*;

pub(super) const MIB: usize = 1024 * 1024;

/// Held by the tests that measure memory, which the whole process shares.
pub(super) static MEASURED: Mutex<()> = Mutex::const_new(());

/// Memory of this process, clients and server together.
pub(super) fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
    kib.unwrap_or(0_usize) * 1024
}

impl TestServer {
    /// An append of an honest client, which has to work.
    async fn appends(&self, data: &str) {
        let body = format!("{{\"type\":\"T\",\"data\":{data}}}");
        let request = format!(
            "POST /api/v1/streams/a/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = self.answer(request.as_bytes()).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// A message of gRPC.
fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.put_slice(message);
    framed.freeze()
}

/// The status of an answer of gRPC that has no message.
async fn grpc_status(answer: h2::client::ResponseFuture) -> (String, String) {
    let answer = timeout(PATIENCE, answer).await.expect("an answer").unwrap();
    let text = |name| {
        let value = answer.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    (text("grpc-status"), text("grpc-message"))
}

#[tokio::test]
async fn uploads_that_only_announce_their_bytes_hold_nobody_up() {
    let bounds = [("in_flight_bytes_max", "32MiB")];
    let server = TestServer::with(&bounds).await;
    let head =
        b"POST /api/v1/streams/a/events HTTP/1.1\r\nhost: x\r\ncontent-length: 16777216\r\n\r\n";
    let mut idle = Vec::new();
    for _ in 0..16 {
        let mut socket = server.connect().await;
        socket.write_all(head).await.unwrap();
        idle.push(socket);
    }
    let (client, driven) = server.h2().await;
    let mut calls = Vec::new();
    for _ in 0..16 {
        let mut ready = client.clone().ready().await.unwrap();
        let call = server.grpc("/leftfold.v1.Store/Append");
        let (answer, mut body) = ready.send_request(call, false).unwrap();
        body.send_data(Bytes::from_static(&[0, 0, 0xff, 0xff, 0xff]), false)
            .unwrap();
        calls.push((answer, body));
    }
    server.appends("1").await;
    drop((idle, calls));
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn a_call_without_a_message_or_with_half_a_prefix_ends_at_its_deadline() {
    let server = TestServer::with(&[("request_timeout", "300ms")]).await;
    let (client, driven) = server.h2().await;
    for path in [
        "/leftfold.v1.Store/Append",
        "/umadb.v1.DCB/Head",
        "/leftfold.v1.Store/AppendChunked",
        "/event_store.client.persistent_subscriptions.PersistentSubscriptions/Read",
    ] {
        for begun in [&[][..], &[0, 0, 0]] {
            let mut ready = client.clone().ready().await.unwrap();
            let (answer, mut body) = ready.send_request(server.grpc(path), false).unwrap();
            if !begun.is_empty() {
                body.send_data(Bytes::from_static(begun), false).unwrap();
            }
            let (code, text) = grpc_status(answer).await;
            assert_eq!(code, "4", "{path}: {text}");
        }
    }
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn a_message_of_empty_elements_is_refused_before_it_is_decoded() {
    let server = TestServer::with(&[]).await;
    let _alone = MEASURED.lock().await;
    // One write with seven million events of two bytes.
    let events = [0x1a, 0x00].repeat(7 * MIB);
    let mut append = BytesMut::new();
    append.put_u8(0x0a);
    encode_varint(events.len() as u64, &mut append);
    append.put_slice(&events);
    let message = framed(&append);
    let before = resident();
    let (client, driven) = server.h2().await;
    let mut ready = client.ready().await.unwrap();
    let call = server.grpc("/leftfold.v1.Store/Append");
    let (answer, mut body) = ready.send_request(call, false).unwrap();
    // The server ends the call before all of it is sent.
    let _ = body.send_data(message, true);
    let (code, text) = grpc_status(answer).await;
    assert_eq!(code, "3", "{text}");
    assert!(text.contains("APPEND_EVENTS_MAX"), "{text}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 * MIB, "{grown} bytes more");
    driven.abort();
    server.appends("1").await;
    server.goes_on().await;
}

#[tokio::test]
async fn answers_that_nobody_takes_are_bounded_and_leave_room_for_the_others() {
    let _alone = MEASURED.lock().await;
    let bounds = [("response_bytes_max", "64MiB")];
    let server = TestServer::with(&bounds).await;
    server
        .appends(&format!("\"{}\"", "x".repeat(15 * MIB)))
        .await;
    let before = resident();
    let path = format!("http://{}/api/v1/events", server.address);
    let mut hostile = Vec::new();
    for _ in 0..4 {
        let mut builder = h2::client::Builder::new();
        let builder = builder.initial_window_size(0);
        let (client, connection) = builder
            .handshake::<_, Bytes>(server.connect().await)
            .await
            .unwrap();
        let driven = tokio::spawn(async { drop(connection.await) });
        let mut answers = Vec::new();
        for _ in 0..15 {
            let mut ready = client.clone().ready().await.unwrap();
            let request = http::Request::get(&path).body(()).unwrap();
            answers.push(ready.send_request(request, true).unwrap().0);
        }
        hostile.push((client, driven, tokio::spawn(join_all(answers))));
    }
    // An honest client is served while they hold on: those that take nothing are ended when memory is short.
    let mut honest = Vec::new();
    for _ in 0..3 {
        let request = b"GET /api/v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = server.answer(request).await;
        honest.push((answer.len() > 15 * MIB, answer.starts_with(b"HTTP/1.1 200")));
    }
    assert_eq!(honest, [(true, true); 3]);
    let grown = resident().saturating_sub(before);
    assert!(grown < 400 * MIB, "{} MiB more", grown / MIB);
    for (client, driven, answers) in hostile {
        drop(client);
        driven.abort();
        answers.abort();
    }
    server.appends("1").await;
    server.goes_on().await;
}

#[tokio::test]
async fn many_resets_at_once_leave_the_connection_to_its_other_calls() {
    let server = TestServer::with(&[]).await;
    let (client, driven) = server.h2().await;
    let mut calls = Vec::new();
    for _ in 0..200 {
        let mut ready = client.clone().ready().await.unwrap();
        let call = server.grpc("/leftfold.v1.Store/Appends");
        calls.push(ready.send_request(call, false).unwrap());
    }
    for (_, body) in &mut calls {
        body.send_reset(h2::Reason::CANCEL);
    }
    let mut ready = client.clone().ready().await.unwrap();
    let mut call = server.grpc("/no.Such/Method");
    *call.method_mut() = http::Method::POST;
    let (answer, _body) = ready.send_request(call, true).unwrap();
    assert_eq!(grpc_status(answer).await.0, "12");
    driven.abort();
    server.goes_on().await;
}

/// Counts the calls that stay open: those with an answer that has no status.
async fn stay_open(calls: impl IntoIterator<Item = h2::client::ResponseFuture>) -> usize {
    let answers = join_all(calls).await;
    let open = |answer: &&Result<http::Response<h2::RecvStream>, h2::Error>| {
        answer
            .as_ref()
            .is_ok_and(|answer| !answer.headers().contains_key("grpc-status"))
    };
    answers.iter().filter(open).count()
}

/// A query of a mebibyte in two protocols, and a filter in a third.
fn large_selections() -> [(&'static str, Vec<u8>); 3] {
    let tags = (0..4_000).map(|nth| QueryItem {
        tags: vec![format!("{nth:05}{}", "t".repeat(240))],
        types: Vec::new(),
    });
    let query = Some(Query {
        items: tags.collect(),
    });
    let own = SubscribeRequest {
        query,
        ..SubscribeRequest::default()
    };
    let query = umadb::Query::decode(&own.query.clone().unwrap().encode_to_vec()[..]);
    let umadb = umadb::SubscribeRequest {
        query: query.ok(),
        ..umadb::SubscribeRequest::default()
    };
    let prefixes = (0..1_000).map(|nth| format!("{nth:05}{}", "p".repeat(1_000)));
    let filter = filter_options::Expression {
        regex: String::new(),
        prefix: prefixes.collect(),
    };
    [
        ("/leftfold.v1.Store/Subscribe", own.encode_to_vec()),
        ("/umadb.v1.DCB/Subscribe", umadb.encode_to_vec()),
        ("/event_store.client.streams.Streams/Read", filtered(filter)),
    ]
}

/// A subscription to everything with this filter.
fn filtered(expression: filter_options::Expression) -> Vec<u8> {
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
    request.encode_to_vec()
}

#[tokio::test]
async fn what_subscriptions_keep_of_their_requests_is_bounded() {
    let _alone = MEASURED.lock().await;
    for (path, message) in large_selections() {
        let server = TestServer::with(&[("in_flight_bytes_max", "34MiB")]).await;
        let message = framed(&message);
        let before = resident();
        let (client, driven) = server.h2().await;
        let mut answers = Vec::new();
        // One at a time, so that only what is kept adds up.
        for _ in 0..100 {
            let mut ready = client.clone().ready().await.unwrap();
            let (answer, mut body) = ready.send_request(server.grpc(path), false).unwrap();
            body.send_data(message.clone(), true).unwrap();
            answers.push(timeout(PATIENCE, answer).await.expect("an answer").unwrap());
        }
        let refused = |answer: &&http::Response<h2::RecvStream>| {
            answer
                .headers()
                .get("grpc-status")
                .is_some_and(|code| code == "14")
        };
        let refused = answers.iter().filter(refused).count();
        assert!((1..100).contains(&refused), "{path}: {refused} refused");
        let grown = resident().saturating_sub(before);
        assert!(grown < 100 * MIB, "{path}: {} MiB more", grown / MIB);
        server.appends("1").await;
        drop(answers);
        driven.abort();
        server.goes_on().await;
    }
}

#[tokio::test]
async fn what_expressions_compile_to_is_bounded_for_all_open_calls_together() {
    let _alone = MEASURED.lock().await;
    let server = TestServer::with(&[("in_flight_bytes_max", "34MiB")]).await;
    let before = resident();
    let (client, driven) = server.h2().await;
    let mut calls = Vec::new();
    for nth in 0..60 {
        let expression = filter_options::Expression {
            regex: format!(r"\w{{20}}{nth}"),
            prefix: Vec::new(),
        };
        let message = framed(&filtered(expression));
        let mut ready = client.clone().ready().await.unwrap();
        let call = server.grpc("/event_store.client.streams.Streams/Read");
        let (answer, mut body) = ready.send_request(call, false).unwrap();
        body.send_data(message, true).unwrap();
        calls.push(answer);
    }
    let open = timeout(PATIENCE, stay_open(calls)).await.expect("answers");
    assert!((1..60).contains(&open), "{open} stay open");
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
    server.appends("1").await;
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn a_call_that_ends_gives_back_what_it_kept() {
    let server = TestServer::with(&[("in_flight_bytes_max", "34MiB")]).await;
    let (_, message) = large_selections().into_iter().next().unwrap();
    let message = framed(&message);
    let (client, driven) = server.h2().await;
    // Far more than there is memory for at once.
    for _ in 0..100 {
        let mut ready = client.clone().ready().await.unwrap();
        let call = server.grpc("/leftfold.v1.Store/Read");
        let (answer, mut body) = ready.send_request(call, false).unwrap();
        body.send_data(message.clone(), true).unwrap();
        let answer = timeout(PATIENCE, answer).await.expect("an answer").unwrap();
        let mut messages = answer.into_body();
        while let Some(message) = messages.data().await {
            let _ = messages
                .flow_control()
                .release_capacity(message.unwrap().len());
        }
        let ended = messages.trailers().await.unwrap().unwrap();
        assert_eq!(ended["grpc-status"], "0");
    }
    driven.abort();
    server.goes_on().await;
}

#[tokio::test]
async fn small_answers_that_nobody_takes_are_bounded_too() {
    let bounds = [("response_bytes_max", "16MiB")];
    let server = TestServer::with(&bounds).await;
    let path = format!("http://{}/info", server.address);
    let (mut clients, mut answers, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..8 {
        let mut builder = h2::client::Builder::new();
        let builder = builder.initial_window_size(0);
        let (client, connection) = builder
            .handshake::<_, Bytes>(server.connect().await)
            .await
            .unwrap();
        connections.push(tokio::spawn(async { drop(connection.await) }));
        for _ in 0..1_000 {
            // A connection that the server ended takes no more.
            let Ok(mut ready) = client.clone().ready().await else {
                break;
            };
            let request = http::Request::get(&path).body(()).unwrap();
            let Ok((answer, _)) = ready.send_request(request, true) else {
                break;
            };
            answers.push(tokio::spawn(answer));
        }
        clients.push(client);
    }
    let ended = futures_util::future::select_all(connections);
    let (ended, ..) = timeout(PATIENCE, ended).await.expect("one is ended");
    ended.unwrap();
    server.appends("1").await;
    drop((answers, clients));
    server.goes_on().await;
}

#[tokio::test]
async fn headers_of_calls_without_a_message_are_bounded_for_all_calls_together() {
    let server = TestServer::with(&[("in_flight_bytes_max", "34MiB")]).await;
    let large = "x".repeat(15_000);
    let (mut answers, mut bodies, mut connections) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let (client, driven) = server.h2().await;
        connections.push(driven);
        for _ in 0..800 {
            let mut ready = client.clone().ready().await.unwrap();
            let mut call = server.grpc("/leftfold.v1.Store/Append");
            call.headers_mut().insert("x", large.parse().unwrap());
            let (answer, body) = ready.send_request(call, false).unwrap();
            answers.push(answer);
            bodies.push(body);
        }
    }
    let (first, ..) = futures_util::future::select_all(answers).await;
    let headers = first.unwrap().headers().clone();
    let message = headers["grpc-message"].to_str().unwrap();
    assert_eq!(headers["grpc-status"], "14", "{message}");
    assert!(message.contains("in_flight_bytes_max"), "{message}");
    connections.iter().for_each(JoinHandle::abort);
    drop(bodies);
    // The server sees the end of connections a moment later.
    while metric(&server, "leftfold_connections").await > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.appends("1").await;
    server.goes_on().await;
}

#[tokio::test]
async fn unread_small_events_of_subscriptions_are_bounded_too() {
    let bounds = [("response_bytes_max", "16MiB")];
    let server = TestServer::with(&bounds).await;
    let message = framed(&SubscribeRequest::default().encode_to_vec());
    let (mut answers, mut unread) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let mut builder = h2::client::Builder::new();
        // The client lets the server send as much as it likes, and reads nothing of it.
        let builder = builder.initial_window_size(1 << 30);
        let builder = builder.initial_connection_window_size(1 << 30);
        let socket = server.connect().await;
        let (client, mut connection) = builder.handshake::<_, Bytes>(socket).await.unwrap();
        let subscribe = async {
            for _ in 0..200 {
                let mut ready = client.clone().ready().await.unwrap();
                let call = server.grpc("/leftfold.v1.Store/Subscribe");
                let (answer, mut body) = ready.send_request(call, false).unwrap();
                body.send_data(message.clone(), true).unwrap();
                answers.push(answer.await.unwrap());
            }
        };
        tokio::select! {
            () = subscribe => unread.push(connection),
            ended = &mut connection => panic!("{ended:?}"),
        }
    }
    let data = format!("\"{}\"", "x".repeat(2_000));
    let mut appended = 0;
    // Far more than what is allowed to wait: a thousand times 2 KB each.
    while metric(&server, "leftfold_subscriptions").await >= 1_000 {
        assert!(appended < 60, "no connection is ended");
        server.appends(&data).await;
        appended += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop((answers, unread));
    server.goes_on().await;
}

/// The value of a figure that the server counts.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = server.answer(request).await;
    let answer = String::from_utf8_lossy(&answer);
    let mut lines = answer.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    // While there is no memory for the request, all that is counted is there still.
    value.unwrap_or(u64::MAX)
}

/// Sends bytes as fast as the server takes them, so that none wait here.
async fn send(body: &mut h2::SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        body.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|context| body.poll_capacity(context));
        let room = timeout(PATIENCE, room).await.expect("the server reads");
        let piece = bytes.split_to(room.unwrap().unwrap().min(bytes.len()));
        body.send_data(piece, false).unwrap();
    }
}

#[tokio::test]
async fn events_of_an_append_keep_no_more_of_their_messages_than_their_own_bytes() {
    let _alone = MEASURED.lock().await;
    let server = TestServer::with(&[]).await;
    let options = append_req::Options {
        stream_identifier: Some(StreamIdentifier {
            stream_name: Bytes::from_static(b"a"),
        }),
        expected_stream_revision: Some(append_req::options::ExpectedStreamRevision::Any(Empty {})),
    };
    let options = AppendReq {
        content: Some(append_req::Content::Options(options)),
    };
    let before = resident();
    let (client, driven) = server.h2().await;
    let mut ready = client.ready().await.unwrap();
    let call = server.grpc("/event_store.client.streams.Streams/Append");
    let (answer, mut body) = ready.send_request(call, false).unwrap();
    body.send_data(framed(&options.encode_to_vec()), false)
        .unwrap();
    let junk = Bytes::from(vec![0; 4 * MIB]);
    for nth in 0..60 {
        let mut event = append_req::ProposedMessage {
            id: Some(Uuid {
                value: Some(uuid::Value::String(format!(
                    "00000000-0000-4000-8000-0000000000{nth:02}"
                ))),
            }),
            data: Bytes::from_static(b"1"),
            ..append_req::ProposedMessage::default()
        };
        for (key, value) in [("type", "T"), ("content-type", "application/json")] {
            let (key, value) = (Bytes::from(key), Bytes::from(value));
            event.metadata.push(MetadataEntry { key, value });
        }
        let event = AppendReq {
            content: Some(append_req::Content::ProposedMessage(event)),
        };
        let mut head = BytesMut::new();
        let message = event.encode_to_vec();
        // A field that no contract has: number 100, with bytes.
        let mut unknown = BytesMut::from(&[0xa2, 0x06][..]);
        encode_varint(junk.len() as u64, &mut unknown);
        head.put_u8(0);
        head.put_u32(u32::try_from(message.len() + unknown.len() + junk.len()).unwrap());
        head.put_slice(&message);
        head.put_slice(&unknown);
        send(&mut body, head.freeze()).await;
        send(&mut body, junk.clone()).await;
    }
    // All but the last have been read by the server, which waits for the end.
    let grown = resident().saturating_sub(before);
    assert!(grown < 100 * MIB, "{} MiB more", grown / MIB);
    body.send_data(Bytes::new(), true).unwrap();
    let answer = timeout(PATIENCE, answer).await.expect("an answer").unwrap();
    assert_eq!(answer.headers().get("grpc-status"), None);
    driven.abort();
    server.goes_on().await;
}
