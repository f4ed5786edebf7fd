//! Exponential backoff with jitter.
//!
//! **Owns:** [`Backoff`]. **Does not know:** what is retried.
//! **Invariants:** delays grow to a maximum, and their random part spreads the retries of many clients.

use std::time::Duration;

use leftfold_model::EventId;

use crate::ClientOptions;

/// The delays between the attempts of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn of(options: &ClientOptions) -> Self {
        Self {
            first: options.backoff_initial,
            max: options.backoff_max,
            attempts: 0,
        }
    }

    /// Waits, longer each time.
    pub(crate) async fn wait(&mut self) {
        // Any source of chance will do; the random part of a fresh id is one.
        let [.., chance] = *EventId::fresh().as_bytes();
        tokio::time::sleep(self.next(chance)).await;
    }

    /// Returns the number of waits since the last success.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Resets the delay after a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    fn next(&mut self, chance: u8) -> Duration {
        let doublings = self.attempts.min(16);
        let whole = self.first.saturating_mul(1 << doublings).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        let half = whole / 2;
        half + half * u32::from(chance) / 255
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_success() {
        let options = ClientOptions::default()
            .with_backoff(Duration::from_millis(10), Duration::from_millis(50));
        let mut pauses = Backoff::of(&options);
        let millis: Vec<_> = (0..5).map(|_| pauses.next(255).as_millis()).collect();
        assert_eq!(millis, [10, 20, 40, 50, 50]);
        pauses.reset();
        assert_eq!(pauses.next(0).as_millis(), 5);
    }

    #[test]
    fn any_number_of_attempts_has_a_pause() {
        let mut pauses = Backoff::of(&ClientOptions::default());
        for _ in 0..100 {
            assert!(pauses.next(255) <= Duration::from_secs(2));
        }
    }
}
