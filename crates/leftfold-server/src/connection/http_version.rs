//! Detection of TLS and of the HTTP version of a new connection.
//!
//! **Owns:** peeking at the first bytes without consuming them. **Does not know:** TLS beyond its first byte; HTTP
//! beyond the preface of HTTP/2.
//! **Invariants:** a client that does not send enough bytes in time is disconnected.

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};

/// The preface of an HTTP/2 connection with prior knowledge (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What every TLS connection begins with: the type of a handshake record (RFC 8446, section 5.1). No method of HTTP does.
const TLS_HANDSHAKE: u8 = 0x16;
/// First and longest pause between two looks at a preface that arrives in pieces; the pause doubles.
const PIECE_PAUSE: Duration = Duration::from_millis(2);
const PIECE_PAUSE_MAX: Duration = Duration::from_millis(500);

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http1,
    Http2,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Tls,
    Plain(HttpVersion),
}

impl HttpVersion {
    /// The version that ALPN agreed on; without ALPN the first, as RFC 9113 demands ALPN for the second over TLS.
    pub(super) fn of_alpn(protocol: Option<&[u8]>) -> Self {
        match protocol {
            Some(b"h2") => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// Returns what this connection begins with; `None` if too little arrives in time, or it is closed.
pub(super) async fn detect(socket: &TcpStream, within: Duration) -> Option<Opening> {
    timeout(within, listen(socket)).await.ok().flatten()
}

async fn listen(socket: &TcpStream) -> Option<Opening> {
    let mut seen = [0; PREFACE.len()];
    let mut pause = PIECE_PAUSE;
    loop {
        let length = socket.peek(&mut seen).await.ok().filter(|n| *n > 0)?;
        if seen.first() == Some(&TLS_HANDSHAKE) {
            return Some(Opening::Tls);
        }
        let begins_alike = seen.iter().zip(PREFACE).take(length).all(|(a, b)| a == b);
        if !begins_alike {
            return Some(Opening::Plain(HttpVersion::Http1));
        }
        if length == PREFACE.len() {
            return Some(Opening::Plain(HttpVersion::Http2));
        }
        // What was seen stays readable, so readiness would not wait for more.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PIECE_PAUSE_MAX);
    }
}
