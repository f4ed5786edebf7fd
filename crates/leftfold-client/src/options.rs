//! The options of a client.
//!
//! **Owns:** [`ClientOptions`] and its defaults. **Does not know:** which module uses them.

use std::time::Duration;

use crate::Credentials;

/// Options of a client. The defaults suit a server in the same network.
///
/// ```
/// use std::time::Duration;
/// use leftfold_client::ClientOptions;
/// let patient = ClientOptions::default().with_write_timeout(Duration::from_secs(120));
/// assert_eq!(patient.write_timeout.as_secs(), 120);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Number of connections to the server; default 1. Appends of one connection share a call, so more help only where single
    /// reads are so fast that one connection's thread is busy.
    pub connections: usize,
    /// Timeout for connecting; default 5 s.
    pub connect_timeout: Duration,
    /// Timeout for an append or a deletion, retries and new connections included; default 30 s.
    pub write_timeout: Duration,
    /// Timeout for any other call that is answered once, and for a read to find a new connection; default 30 s.
    pub call_timeout: Duration,
    /// Interval between keep-alive pings on an idle connection; default 10 s.
    pub keepalive_interval: Duration,
    /// Timeout for the answer to a ping; default 10 s.
    pub keepalive_timeout: Duration,
    /// Longest time before the second attempt; default 50 ms. It doubles with each attempt. A random part of it is left
    /// out, so that clients do not reconnect all at once.
    pub backoff_initial: Duration,
    /// Longest time between attempts; default 2 s.
    pub backoff_max: Duration,
    /// Maximum number of appends in flight; default 4,096. Further appends wait.
    pub in_flight_appends_max: usize,
    /// Maximum size of a message from the server in bytes; default 64 MiB. Only a large event comes close.
    pub received_message_bytes_max: usize,
    /// Bytes that the server may send ahead on each read and each subscription; default 1 MiB.
    pub stream_window_bytes: u32,
    /// Who the client is; default nobody.
    pub credentials: Option<Credentials>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connections: 1,
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            backoff_initial: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            in_flight_appends_max: 4096,
            received_message_bytes_max: 64 * 1024 * 1024,
            stream_window_bytes: 1024 * 1024,
            credentials: None,
        }
    }
}

impl ClientOptions {
    /// Sets who the client is.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }
    /// Sets the number of connections, at least one.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }
    /// Sets the timeout for connecting.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
    /// Sets the timeout for an append or a deletion.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }
    /// Sets the timeout for any other call that is answered once.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }
    /// Sets the interval between keep-alive pings, and the timeout for their answer.
    #[must_use]
    pub fn with_keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = interval;
        self.keepalive_timeout = timeout;
        self
    }
    /// Sets the first and the longest backoff between attempts.
    #[must_use]
    pub fn with_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.backoff_initial = first;
        self.backoff_max = max;
        self
    }
    /// Sets the maximum number of appends in flight, at least one.
    #[must_use]
    pub fn with_in_flight_appends_max(mut self, appends: usize) -> Self {
        self.in_flight_appends_max = appends.clamp(1, 1 << 20);
        self
    }
    /// Sets the maximum size of a message from the server.
    #[must_use]
    pub fn with_received_message_bytes_max(mut self, bytes: usize) -> Self {
        self.received_message_bytes_max = bytes;
        self
    }
    /// Sets the bytes that the server may send ahead on each read, from 64 KiB to 1 GiB.
    #[must_use]
    pub fn with_stream_window_bytes(mut self, bytes: u32) -> Self {
        self.stream_window_bytes = bytes.clamp(64 * 1024, 1 << 30);
        self
    }
}
