//! The log of slow calls.
//!
//! **Owns:** [`SlowCallLog`]: which calls are slow, their log entries, and how many of those there may be.
//! **Does not know:** protocols; what a call does.
//! **Invariants:** an entry has no header, no query string and no event; there are ten entries at once and one more per second at
//! most, and the next one says how many were left out.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Uri};
use tokio::time::Instant;

use crate::access::Principal;

/// Entries at once.
const BURST: u32 = 10;
/// Time for one more entry.
const REFILL: Duration = Duration::from_secs(1);
/// Characters of a path in an entry, at most.
const PATH_CHARS_MAX: usize = 256;

/// The log of calls that take longer than a threshold.
#[derive(Debug)]
pub(crate) struct SlowCallLog {
    /// `None`: no call is logged.
    threshold: Option<Duration>,
    bucket: Mutex<TokenBucket>,
}

/// How many entries may be written.
#[derive(Debug)]
struct TokenBucket {
    /// When all entries so far are paid for.
    paid: Instant,
    left_out: u64,
}

/// A call in progress.
#[derive(Debug)]
pub(crate) struct CallTimer {
    begun: Instant,
    threshold: Duration,
    /// `None`: a call of gRPC.
    method: Option<Method>,
    uri: Uri,
    peer: Option<SocketAddr>,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CallEnd {
    /// Its response began.
    Answered,
    /// Its client left before that.
    Abandoned,
}

impl SlowCallLog {
    /// Logs calls that take longer than this; none if it is zero.
    pub(crate) fn new(threshold: Duration) -> Self {
        Self {
            threshold: Some(threshold).filter(|threshold| !threshold.is_zero()),
            bucket: Mutex::new(TokenBucket {
                paid: Instant::now(),
                left_out: 0,
            }),
        }
    }

    /// Begins to time a call; `None` if no call is logged.
    pub(crate) fn begin<B>(
        &self,
        request: &http::Request<B>,
        is_grpc: bool,
        peer: Option<SocketAddr>,
    ) -> Option<CallTimer> {
        Some(CallTimer {
            threshold: self.threshold?,
            begun: Instant::now(),
            method: (!is_grpc).then(|| request.method().clone()),
            uri: request.uri().clone(),
            peer,
        })
    }

    /// Logs a call if it was slow.
    pub(crate) fn end(&self, timer: &CallTimer, principal: Option<&Principal>, end: CallEnd) {
        let elapsed = timer.begun.elapsed();
        if elapsed < timer.threshold {
            return;
        }
        let Some(left_out) = self.admit() else {
            return;
        };
        tracing::warn!(
            target: "slow_call",
            method = timer.name(),
            principal = principal.map(tracing::field::display),
            peer = timer.peer.map(tracing::field::display),
            duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            left_out,
            "{}",
            match end {
                CallEnd::Answered => "call answered slowly",
                CallEnd::Abandoned => "call abandoned by its client",
            }
        );
    }

    /// Returns how many entries were left out before this one, or `None` if this one is to be left out as well.
    fn admit(&self) -> Option<u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let paid = bucket.paid.max(now) + REFILL;
        if paid.duration_since(now) > REFILL * BURST {
            bucket.left_out += 1;
            return None;
        }
        bucket.paid = paid;
        Some(std::mem::take(&mut bucket.left_out))
    }
}

impl CallTimer {
    /// The method of gRPC, or the method and path of HTTP.
    fn name(&self) -> String {
        let path = self.uri.path().chars().take(PATH_CHARS_MAX);
        match &self.method {
            Some(method) => format!("{method} {}", path.collect::<String>()),
            None => path.skip(1).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn entries_are_bounded_and_the_next_one_says_how_many_were_left_out() {
        let log = SlowCallLog::new(Duration::from_secs(1));
        for _ in 0..BURST {
            assert_eq!(log.admit(), Some(0));
        }
        assert_eq!(log.admit(), None);
        assert_eq!(log.admit(), None);
        tokio::time::advance(REFILL).await;
        assert_eq!(log.admit(), Some(2));
        assert_eq!(log.admit(), None);
    }

    #[test]
    fn a_call_is_named_without_its_query_string() {
        let log = SlowCallLog::new(Duration::from_secs(1));
        let name = |uri: &str, is_grpc| {
            let request = http::Request::get(uri).body(()).unwrap();
            log.begin(&request, is_grpc, None).unwrap().name()
        };
        assert_eq!(name("/api/v1/events?type=T", false), "GET /api/v1/events");
        assert_eq!(
            name("/leftfold.v1.Store/Head", true),
            "leftfold.v1.Store/Head"
        );
        let long = format!("/{}", "a".repeat(1_000));
        assert_eq!(name(&long, false).len(), "GET ".len() + PATH_CHARS_MAX);
    }

    #[test]
    fn a_threshold_of_zero_times_nothing() {
        let request = http::Request::get("/").body(()).unwrap();
        assert!(
            SlowCallLog::new(Duration::ZERO)
                .begin(&request, false, None)
                .is_none()
        );
    }
}
