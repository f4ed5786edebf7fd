//! How a client behaves.
//!
//! **Owns:** [`ClientOptions`] and its defaults. **Does not know:** who heeds them.

use std::time::Duration;

/// Settings of a client. The defaults are right for a server nearby.
///
/// ```
/// use std::time::Duration;
/// use leftfold_client::ClientOptions;
/// let patient = ClientOptions::default().with_append_timeout(Duration::from_secs(120));
/// assert_eq!(patient.append_timeout.as_secs(), 120);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Connections to the server; 1 unless set. Appends of one connection share a call, so more help only where single
    /// reads are so fast that one connection's thread is busy.
    pub connections: usize,
    /// How long connecting may take; 5 s unless set.
    pub connect_timeout: Duration,
    /// How long an append or a deletion may take with all repetitions and new connections; 30 s unless set.
    pub append_timeout: Duration,
    /// How long anything else that is answered once may take, and how long a read looks for a new connection;
    /// 30 s unless set.
    pub call_timeout: Duration,
    /// How often a silent connection is asked whether it is still there; 10 s unless set.
    pub keepalive_interval: Duration,
    /// How long it may take to answer that; 10 s unless set.
    pub keepalive_timeout: Duration,
    /// The pause before a second attempt, at most; 50 ms unless set. It doubles with each further one, and a random part
    /// of it is left out, so that clients do not come back all at once.
    pub backoff_initial: Duration,
    /// The longest pause; 2 s unless set.
    pub backoff_max: Duration,
    /// Appends under way at once; 4,096 unless set. Further ones wait.
    pub appends_max: usize,
    /// Bytes of a message from the server; 64 MiB unless set. Only events that are larger by themselves come close.
    pub message_bytes_max: usize,
    /// Bytes that the server may send ahead on each read and each subscription; 1 MiB unless set.
    pub window_bytes: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connections: 1,
            connect_timeout: Duration::from_secs(5),
            append_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(10),
            backoff_initial: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            appends_max: 4096,
            message_bytes_max: 64 * 1024 * 1024,
            window_bytes: 1024 * 1024,
        }
    }
}

impl ClientOptions {
    /// The same, with so many connections, at least one.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }
    /// The same, connecting within this time.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }
    /// The same, with this time for an append or a deletion.
    #[must_use]
    pub fn with_append_timeout(mut self, timeout: Duration) -> Self {
        self.append_timeout = timeout;
        self
    }
    /// The same, with this time for any other answer.
    #[must_use]
    pub fn with_call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }
    /// The same, asking a silent connection this often, and waiting this long for its answer.
    #[must_use]
    pub fn with_keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = interval;
        self.keepalive_timeout = timeout;
        self
    }
    /// The same, with pauses between attempts from `first` to `max`.
    #[must_use]
    pub fn with_backoff(mut self, first: Duration, max: Duration) -> Self {
        self.backoff_initial = first;
        self.backoff_max = max;
        self
    }
    /// The same, with so many appends under way at once, at least one.
    #[must_use]
    pub fn with_appends_max(mut self, appends: usize) -> Self {
        self.appends_max = appends.clamp(1, 1 << 20);
        self
    }
    /// The same, taking messages of at most this many bytes.
    #[must_use]
    pub fn with_message_bytes_max(mut self, bytes: usize) -> Self {
        self.message_bytes_max = bytes;
        self
    }
    /// The same, letting the server send this many bytes ahead on each read, from 64 KiB to 1 GiB.
    #[must_use]
    pub fn with_window_bytes(mut self, bytes: u32) -> Self {
        self.window_bytes = bytes.clamp(64 * 1024, 1 << 30);
        self
    }
}
