//! The settings of groups.
//!
//! **Owns:** [`GroupSettings`], [`ConsumerStrategy`], [`GroupStart`] and their limits. **Does not know:** what they do.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{id::GroupSource, invalid::InvalidGroup};

/// Events that a group buffers, at most.
const BUFFER_MAX: u32 = 100_000;

/// How events are shared among the consumers of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ConsumerStrategy {
    /// To each consumer in turn.
    #[default]
    RoundRobin,
    /// To one consumer, and to the next one while that one is full.
    DispatchToSingle,
    /// Events of one stream to one consumer.
    Pinned,
    /// Events of one correlation, `$correlationId` in their metadata, to one consumer.
    PinnedByCorrelation,
}

impl ConsumerStrategy {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::RoundRobin,
        Self::DispatchToSingle,
        Self::Pinned,
        Self::PinnedByCorrelation,
    ];

    /// Its name, as clients spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::DispatchToSingle => "DispatchToSingle",
            Self::Pinned => "Pinned",
            Self::PinnedByCorrelation => "PinnedByCorrelation",
        }
    }
}

impl std::str::FromStr for ConsumerStrategy {
    type Err = InvalidGroup;

    fn from_str(text: &str) -> Result<Self, InvalidGroup> {
        let known = Self::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| {
            let shown: String = text.chars().take(64).collect();
            let names = Self::ALL.map(Self::name).join(", ");
            InvalidGroup::new(
                "consumer strategy",
                format!("{shown:?}"),
                format!("one of {names}"),
            )
        })
    }
}

/// Where a group begins that has no checkpoint yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupStart {
    /// With the first event.
    Start,
    /// With the first event behind the end that the source had when this was said.
    #[default]
    End,
    /// With this revision of the stream.
    Revision(u64),
    /// With this position of the log.
    Position(u64),
}

/// The settings of a group. They can be changed while consumers are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct GroupSettings {
    /// Where it begins.
    pub start: GroupStart,
    /// Whether consumers get what links lead to.
    pub resolve_links: bool,
    /// Whether how long consumers take is measured.
    pub extra_statistics: bool,
    /// How long a consumer has for an event before the event is retried; 0: as long as it is connected.
    pub message_timeout_ms: u32,
    /// How often an event is retried before it is parked.
    pub max_retry_count: u32,
    /// How long a checkpoint waits for more acknowledgements.
    pub checkpoint_after_ms: u32,
    /// How many acknowledgements a checkpoint waits for, but at its time limit when nothing is in flight.
    pub min_checkpoint_count: u32,
    /// How many acknowledgements make a checkpoint due at once.
    pub max_checkpoint_count: u32,
    /// How many consumers may be connected; 0: any number.
    pub max_subscriber_count: u32,
    /// How many live events are buffered.
    pub live_buffer_size: u32,
    /// How many events are read at a time.
    pub read_batch_size: u32,
    /// How many events are buffered.
    pub history_buffer_size: u32,
    /// How events are shared.
    pub consumer_strategy: ConsumerStrategy,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            start: GroupStart::End,
            resolve_links: false,
            extra_statistics: false,
            message_timeout_ms: 30_000,
            max_retry_count: 10,
            checkpoint_after_ms: 2_000,
            min_checkpoint_count: 10,
            max_checkpoint_count: 1_000,
            max_subscriber_count: 0,
            live_buffer_size: 500,
            read_batch_size: 20,
            history_buffer_size: 500,
            consumer_strategy: ConsumerStrategy::RoundRobin,
        }
    }
}

impl GroupSettings {
    /// How long a consumer has for an event; `None`: no limit.
    #[must_use]
    pub fn message_timeout(&self) -> Option<Duration> {
        let timeout = Duration::from_millis(self.message_timeout_ms.into());
        (!timeout.is_zero()).then_some(timeout)
    }

    /// Checks that the settings fit each other and the source.
    ///
    /// # Errors
    /// [`InvalidGroup`].
    pub fn check(&self, source: &GroupSource) -> Result<(), InvalidGroup> {
        let sizes = [
            ("live buffer size", self.live_buffer_size),
            ("history buffer size", self.history_buffer_size),
            ("read batch size", self.read_batch_size),
        ];
        for (what, size) in sizes {
            if !(1..=BUFFER_MAX).contains(&size) {
                return Err(InvalidGroup::new(what, size, format!("1 to {BUFFER_MAX}")));
            }
        }
        if self.read_batch_size >= self.history_buffer_size {
            return Err(InvalidGroup::new(
                "read batch size",
                self.read_batch_size,
                format!(
                    "less than the history buffer size, {}",
                    self.history_buffer_size
                ),
            ));
        }
        if self.min_checkpoint_count > self.max_checkpoint_count {
            return Err(InvalidGroup::new(
                "minimum checkpoint count",
                self.min_checkpoint_count,
                format!("at most the maximum, {}", self.max_checkpoint_count),
            ));
        }
        match (source, self.start) {
            (GroupSource::All, GroupStart::Revision(at)) => Err(InvalidGroup::new(
                "start of a group of $all",
                format!("revision {at}"),
                "a position",
            )),
            (GroupSource::Stream(_), GroupStart::Position(at)) => Err(InvalidGroup::new(
                "start of a group of a stream",
                format!("position {at}"),
                "a revision",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use leftfold_model::StreamName;

    use super::*;
    use crate::groups::GroupName;

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_name() {
        let source = GroupSource::Stream(StreamName::new("a").unwrap());
        let refused = |change: fn(&mut GroupSettings)| {
            let mut settings = GroupSettings::default();
            change(&mut settings);
            settings.check(&source).unwrap_err().to_string()
        };
        assert!(refused(|s| s.read_batch_size = 500).contains("read batch size"));
        assert!(refused(|s| s.live_buffer_size = 0).contains("live buffer size"));
        assert!(refused(|s| s.min_checkpoint_count = 2_000).contains("checkpoint"));
        assert!(refused(|s| s.start = GroupStart::Position(1)).contains("a revision"));
        assert!("Fastest".parse::<ConsumerStrategy>().is_err());
        assert!(GroupName::new("a\nb").is_err());
    }
}
