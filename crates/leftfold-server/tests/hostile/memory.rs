//! Clients that hold memory or time: stalled uploads, answers not taken, messages that swell.
//!
//! **Owns:** one test for each bound of docs/settings.md on memory and time. **Does not know:** how bounds are kept.
//! **Invariants:** while the hostile clients hold on, an honest one appends and reads; afterwards so it does.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use leftfold_proto::prost::encoding::encode_varint;
use tokio::sync::Mutex;

use super::*;

const MIB: usize = 1024 * 1024;

/// Held by the tests that measure memory, which the whole process shares.
static MEASURED: Mutex<()> = Mutex::const_new(());

/// Memory of this process, clients and server together.
fn resident() -> usize {
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

#[tokio::test]
async fn answers_tell_how_long_an_idle_connection_stays() {
    let server = TestServer::with(&[("header_read_timeout", "5s")]).await;
    let socket = hyper_util::rt::TokioIo::new(server.connect().await);
    let (mut client, connection) = hyper::client::conn::http1::handshake(socket).await.unwrap();
    let driven = tokio::spawn(connection);
    let request = http::Request::get("/health/live").header("host", "x");
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["keep-alive"], "timeout=4");
    drop(answer.collect().await.unwrap());
    driven.abort();
    server.goes_on().await;
}
