//! What answers of HTTP/1 say of their connection.
//!
//! **Owns:** the hints how long it stays. **Does not know:** how many connections there may be.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};

use crate::TestServer;

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
    let head = "POST /api/v1/append HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 999999999\r\n\r\n";
    let answer = String::from_utf8(server.answer(head.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(!answer.contains("keep-alive"), "{answer}");
    server.goes_on().await;
}
