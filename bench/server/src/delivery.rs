//! Appends at a given pace, and how long each takes to reach those who follow.
//!
//! **Owns:** the pace, the measured window, the count of what has to arrive. **Does not know:** who appends or follows how.
//! **Invariants:** every follower has to get every event that is for it, or the run fails; only appends begun within the window
//! are timed.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt, future::try_join_all, pin_mut};
use tokio::time::{interval_at, sleep, sleep_until};

use crate::{
    closed::Timing,
    event::moment,
    machine::{self, Used},
    outcome::{Outcome, percentiles},
    server::Server,
};

/// How long deliveries may take after the last append before they count as lost.
const LATE: Duration = Duration::from_secs(20);

/// What has arrived, at all followers together.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// The moment from which on appends are timed.
    begin: AtomicU64,
    count: AtomicU64,
    nanos: Mutex<Vec<u64>>,
    failure: Mutex<Option<anyhow::Error>>,
}

impl Arrivals {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            begin: AtomicU64::new(u64::MAX),
            count: AtomicU64::new(0),
            nanos: Mutex::default(),
            failure: Mutex::default(),
        })
    }

    /// An event arrived whose append was begun at `begun`.
    pub(crate) fn took(&self, begun: u64) {
        if begun >= self.begin.load(Ordering::Relaxed) {
            let nanos = moment().saturating_sub(begun);
            self.nanos
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(nanos);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that a follower ended early.
    pub(crate) fn failed(&self, error: anyhow::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    fn failure(&self) -> Option<anyhow::Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    /// Takes what a subscription gives, until the task is ended.
    pub(crate) async fn take_all(
        self: Arc<Self>,
        moments: impl Stream<Item = anyhow::Result<u64>>,
    ) {
        pin_mut!(moments);
        loop {
            match moments.next().await {
                Some(Ok(begun)) => self.took(begun),
                Some(Err(error)) => return self.failed(error),
                None => return self.failed(anyhow::anyhow!("a subscription ended")),
            }
        }
    }

    /// Waits until so many events have arrived.
    async fn complete(&self, expected: u64) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.count.load(Ordering::Relaxed) < expected {
            if let Some(error) = self.failure() {
                return Err(error);
            }
            let count = self.count.load(Ordering::Relaxed);
            anyhow::ensure!(
                begun.elapsed() < LATE,
                "{count} of {expected} events arrived"
            );
            sleep(Duration::from_millis(10)).await;
        }
        let count = self.count.load(Ordering::Relaxed);
        anyhow::ensure!(count == expected, "{count} events arrived, not {expected}");
        Ok(())
    }
}

/// How fast is appended, and how many followers get each event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Writers with one append under way each.
    pub(crate) writers: u64,
    /// Appends per second of all of them.
    pub(crate) per_second: u64,
    pub(crate) followers_of_each: u64,
    pub(crate) timing: Timing,
}

/// Appends at this pace, and times the way to the followers that report to `arrivals`.
///
/// `append` gets the writer and how many appends it has begun before.
pub(crate) async fn run<F>(
    pace: Pace,
    server: &Server,
    arrivals: &Arrivals,
    append: impl Fn(u64, u64) -> F + Clone + Send + 'static,
) -> anyhow::Result<Outcome>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let start = Instant::now();
    let begin = start + pace.timing.warm_up;
    let end = begin + pace.timing.measured;
    let period = Duration::from_secs_f64(pace.writers as f64 / pace.per_second as f64);
    let writer = |writer: u64| {
        let append = append.clone();
        // One after another within a period, or all would append at once.
        let first = start + period.mul_f64(writer as f64 / pace.writers as f64);
        tokio::spawn(async move {
            let mut ticks = interval_at(first.into(), period);
            let mut count = 0;
            loop {
                ticks.tick().await;
                if Instant::now() >= end {
                    return anyhow::Ok(count);
                }
                append(writer, count).await?;
                count += 1;
            }
        })
    };
    let writers: Vec<_> = (0..pace.writers).map(writer).collect();
    sleep_until(begin.into()).await;
    arrivals.begin.store(moment(), Ordering::Relaxed);
    let before = Used::by(server.process())?;
    sleep_until(end.into()).await;
    let (server_cores, client_cores) = before.cores_until(Used::by(server.process())?);
    let counts = try_join_all(writers).await?;
    let appended = counts.into_iter().sum::<anyhow::Result<u64>>()?;
    arrivals.complete(appended * pace.followers_of_each).await?;
    let (resident_mib, peak_mib) = machine::memory(server.process())?;
    let nanos = std::mem::take(
        &mut *arrivals
            .nanos
            .lock()
            .unwrap_or_else(PoisonError::into_inner),
    );
    let per_second = nanos.len() as f64 / pace.timing.measured.as_secs_f64();
    let (p50_ms, p99_ms) = percentiles(nanos);
    Ok(Outcome {
        operations_per_second: per_second,
        events_per_second: per_second,
        p50_ms,
        p99_ms,
        server_cores,
        client_cores,
        resident_mib,
        peak_mib,
    })
}
