//! What is measured of a group and of its consumers.
//!
//! **Owns:** [`Throughput`], [`Latencies`]. **Does not know:** who reads it.
//! **Invariants:** memory is bounded: the newest measurements count.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How many measurements are kept.
const KEPT: usize = 1_000;

/// How many items went by, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Throughput {
    /// All of them.
    pub(crate) total: u64,
    begun: Instant,
    measured: u64,
}

impl Throughput {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            total: 0,
            begun: now,
            measured: 0,
        }
    }

    pub(super) fn add(&mut self, count: u64) {
        self.total += count;
    }

    /// Items since the last look at it.
    pub(crate) fn since_last(&mut self) -> u64 {
        let since = self.total - self.measured;
        self.measured = self.total;
        since
    }

    /// Items per second since the beginning.
    pub(crate) fn per_second(&self, now: Instant) -> u64 {
        self.total / (now - self.begun).as_secs().max(1)
    }
}

/// How long consumers took for the newest events.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(VecDeque<Duration>);

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(took);
    }

    /// Their distribution in milliseconds, under the names that clients know; nothing if there are none.
    pub(crate) fn measurements(&self) -> Vec<(&'static str, i64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let millis = |took: Duration| i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let at = |part: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a place among at most a thousand"
            )]
            let index = ((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1);
            millis(sorted.get(index).copied().unwrap_or_default())
        };
        let count = u32::try_from(sorted.len()).unwrap_or(u32::MAX);
        let mean = sorted.iter().sum::<Duration>() / count;
        vec![
            ("Mean", millis(mean)),
            ("Median", at(0.5)),
            ("Fastest", at(0.0)),
            ("Quintile 1", at(0.2)),
            ("Quintile 2", at(0.4)),
            ("Quintile 3", at(0.6)),
            ("Quintile 4", at(0.8)),
            ("Quintile 5", at(1.0)),
            ("90%", at(0.9)),
            ("95%", at(0.95)),
            ("99%", at(0.99)),
            ("99.5%", at(0.995)),
            ("99.9%", at(0.999)),
            ("Highest", at(1.0)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_tell_the_distribution_of_the_newest_thousand() {
        let mut latencies = Latencies::default();
        assert!(latencies.measurements().is_empty());
        for millis in (1..=1_100).rev() {
            latencies.add(Duration::from_millis(millis));
        }
        let measured = latencies.measurements();
        let of = |name| measured.iter().find(|(key, _)| *key == name).unwrap().1;
        assert_eq!(
            (of("Fastest"), of("Median"), of("Highest")),
            (1, 500, 1_000)
        );
        assert_eq!((of("Mean"), of("99%")), (500, 990));
    }
}
