//! How long connections stay.
//!
//! **Owns:** the hints of HTTP/1 how long it is; what a client has sent before it knew that its call had ended.
//! **Does not know:** how many connections there may be.

#![expect(clippy::big_endian_bytes, reason = "numbers of HTTP/2 are so")]

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Duration, PATIENCE, PREFACE, TestServer,
    memory::{MEASURED, MIB, resident},
};

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

#[tokio::test]
async fn an_answer_to_a_body_that_is_not_read_says_that_the_connection_ends() {
    let server = TestServer::with(&[]).await;
    for (line, kind, length, status) in [
        ("POST /api/v1/append", "application/json", 999_999_999, 413),
        ("POST /api/v1/append", "text/html", 100_000, 415),
        ("POST /nothing", "text/html", 100_000, 404),
        ("DELETE /api/v1/events", "text/html", 100_000, 405),
        ("GET /ping", "text/html", 100_000, 200),
    ] {
        let head = format!(
            "{line} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        );
        let answer = String::from_utf8(server.answer(head.as_bytes()).await).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        assert!(!answer.contains("keep-alive"), "{answer}");
    }
    server.goes_on().await;
}

/// The types of frames that are looked at.
const HEADERS: u8 = 1;
const GO_AWAY: u8 = 7;
const PING: u8 = 6;
/// Flags of frames.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a call of gRPC.
fn head(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    let literal = |out: &mut Vec<u8>, text: &str| {
        match text.len().checked_sub(127) {
            None => out.push(u8::try_from(text.len()).unwrap()),
            // Seven bits at a time, the lowest first.
            Some(mut rest) => {
                out.push(127);
                while rest >= 128 {
                    out.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                out.push(u8::try_from(rest).unwrap());
            }
        }
        out.extend(text.as_bytes());
    };
    // POST and http, from the static table.
    let mut block = vec![0x83, 0x86, 0x04];
    literal(&mut block, path);
    for (name, value) in [
        (":authority", "x"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(0);
        literal(&mut block, name);
        literal(&mut block, value);
    }
    frame(HEADERS, END_HEADERS | flags, stream, &block)
}

/// The next frame from the server: its type, its flags and its stream.
async fn next_frame(socket: &mut TcpStream) -> (u8, u8, u32) {
    let mut head = [0; 9];
    let read = socket.read_exact(&mut head);
    timeout(PATIENCE, read).await.expect("a frame").unwrap();
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    socket.read_exact(&mut payload).await.unwrap();
    (kind, flags, u32::from_be_bytes(stream))
}

#[tokio::test]
async fn what_is_on_its_way_when_calls_are_refused_ends_no_connection() {
    let server = TestServer::with(&[]).await;
    let mut socket = server.connect().await;
    let calls = || (0..300).map(|nth| 2 * nth + 1);
    let mut sent = PREFACE.to_vec();
    // Settings, with nothing set.
    sent.extend(frame(4, 0, 0, &[]));
    calls().for_each(|call| sent.extend(head(call, "/no.Such/Method", 0)));
    socket.write_all(&sent).await.unwrap();
    let mut refused = 0;
    while refused < calls().count() {
        let (kind, flags, _) = next_frame(&mut socket).await;
        refused += usize::from(kind == HEADERS && flags & END_STREAM != 0);
    }
    // A client far away has sent this before it knew.
    for _ in 0..8 {
        let small = |call| frame(0, 0, call, &[0; 8]);
        let round: Vec<u8> = calls().flat_map(small).collect();
        socket.write_all(&round).await.unwrap();
        socket.write_all(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
        loop {
            let (kind, flags, _) = next_frame(&mut socket).await;
            match kind {
                GO_AWAY => panic!("the connection ends"),
                PING if flags & 1 != 0 => break,
                _ => {}
            }
        }
    }
    server.goes_on().await;
}

#[tokio::test]
async fn answers_without_a_body_that_nobody_takes_are_bounded() {
    let _alone = MEASURED.lock().await;
    let server = TestServer::with(&[("response_bytes_max", "16MiB")]).await;
    let path = format!("/no.Such/{}", "x".repeat(15_000));
    let before = resident();
    let mut sockets = Vec::new();
    let mut most = 0;
    for _ in 0..20 {
        let mut socket = server.connect().await;
        let mut begin = PREFACE.to_vec();
        begin.extend(frame(4, 0, 0, &[]));
        socket.write_all(&begin).await.unwrap();
        let mut sent = 0;
        for nth in 0..1_000 {
            let call = head(2 * nth + 1, &path, END_STREAM);
            // The server takes no more, or has ended the connection.
            let written = timeout(Duration::from_millis(300), socket.write_all(&call));
            if !matches!(written.await, Ok(Ok(()))) {
                break;
            }
            sent += 1;
        }
        most = most.max(resident().saturating_sub(before));
        println!(
            "{sent} calls, {} MiB",
            resident().saturating_sub(before) / MIB
        );
        sockets.push(socket);
    }
    assert!(most < 64 * MIB, "{} MiB more", most / MIB);
    server.goes_on().await;
}
