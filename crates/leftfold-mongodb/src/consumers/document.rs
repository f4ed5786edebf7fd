//! A consumer as documents.
//!
//! **Owns:** the document of a consumer, and entries of its blocks: parked events and timers.
//! **Does not know:** collections. **Invariants:** numbers that BSON cannot hold become its largest, which no log reaches.

use std::time::Duration;

use bytes::Bytes;
use leftfold_model::{Position, Timestamp};
use leftfold_store::consumers::{
    Claim, ConsumerError, ConsumerName, ConsumerStatus, ParkedEvent, Resolution, Timer,
};
use mongodb::bson::Binary;
use serde::{Deserialize, Serialize};

use super::blocks::{BlockReference, Entry};
use crate::{
    document::{binary, to_i64},
    error::Failure,
};

const RETRY: i32 = 1;
const SKIP: i32 = 2;

/// What is kept of a consumer. Every change raises its version, and is made only to the version it was decided on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ConsumerDocument {
    #[serde(rename = "_id")]
    pub(super) name: String,
    pub(super) version: i64,
    pub(super) position: i64,
    /// Rises with each new holder, each reset and each removal. A removed consumer keeps its document, so it never falls.
    pub(super) term: i64,
    /// Microseconds since 1970.
    pub(super) moved_at: i64,
    pub(super) holder: Option<String>,
    /// Until when the claim lasts: milliseconds since 1970, by the server's clock.
    pub(super) held_until: i64,
    pub(super) parked_count: i64,
    pub(super) timer_count: i64,
    pub(super) removed: bool,
    #[serde(default)]
    pub(super) parked: Vec<BlockReference<i64>>,
    #[serde(default)]
    pub(super) timers: Vec<BlockReference<String>>,
}

impl ConsumerDocument {
    /// The holder whose claim lasts, and for how long.
    pub(super) fn held(&self, now: i64) -> Option<(String, Duration)> {
        let remaining = u64::try_from(self.held_until.checked_sub(now)?).ok()?;
        let holder = self.holder.clone().filter(|_| remaining > 0)?;
        Some((holder, Duration::from_millis(remaining)))
    }

    pub(super) fn check_term(&self, claim: &Claim) -> Result<(), ConsumerError> {
        claim.check_term(number(self.term))
    }

    pub(super) fn status(&self, now: i64) -> Result<ConsumerStatus, ConsumerError> {
        Ok(ConsumerStatus {
            consumer: ConsumerName::new(&self.name)?,
            position: Position::new(number(self.position)),
            term: number(self.term),
            holder: self.held(now),
            parked: number(self.parked_count),
            timers: number(self.timer_count),
            time: Timestamp::from_micros(number(self.moved_at)),
        })
    }
}

/// A number that is never negative.
pub(super) fn number(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// A parked event in a block.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ParkedEntry {
    pub(super) position: i64,
    key: String,
    reason: String,
    attempts: i64,
    /// Microseconds since 1970.
    time: i64,
    /// 0: none. 1: to handle it again. 2: to pass over it.
    resolution: i32,
}

impl ParkedEntry {
    pub(super) fn new(event: ParkedEvent) -> Self {
        Self {
            position: to_i64(event.position.get()),
            key: event.key,
            reason: event.reason,
            attempts: event.attempts.into(),
            time: to_i64(event.time.as_micros()),
            resolution: 0,
        }
    }

    pub(super) fn resolved(mut self, resolution: Resolution) -> Self {
        self.resolution = match resolution {
            Resolution::Retry => RETRY,
            Resolution::Skip => SKIP,
        };
        self
    }

    pub(super) fn decode(self) -> ParkedEvent {
        ParkedEvent {
            position: Position::new(number(self.position)),
            key: self.key,
            reason: self.reason,
            attempts: u32::try_from(self.attempts).unwrap_or(u32::MAX),
            time: Timestamp::from_micros(number(self.time)),
            resolution: match self.resolution {
                RETRY => Some(Resolution::Retry),
                SKIP => Some(Resolution::Skip),
                _ => None,
            },
        }
    }
}

impl Entry for ParkedEntry {
    type Key = i64;

    fn key(&self) -> i64 {
        self.position
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.reason.len()
    }

    /// How many an operator spoke of.
    fn mark(entries: &[Self]) -> i64 {
        let resolved = entries.iter().filter(|entry| entry.resolution != 0);
        to_i64(resolved.count() as u64)
    }
}

/// A timer in a block.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TimerEntry {
    pub(super) id: String,
    /// Microseconds since 1970.
    pub(super) due: i64,
    data: Binary,
}

impl TimerEntry {
    pub(super) fn new(timer: Timer) -> Self {
        Self {
            id: timer.id,
            due: to_i64(timer.due.as_micros()),
            data: binary(timer.data),
        }
    }

    pub(super) fn decode(self) -> Timer {
        Timer {
            id: self.id,
            due: Timestamp::from_micros(number(self.due)),
            data: Bytes::from(self.data.bytes),
        }
    }
}

impl Entry for TimerEntry {
    type Key = String;

    fn key(&self) -> String {
        self.id.clone()
    }

    fn bytes(&self) -> usize {
        self.id.len() + self.data.bytes.len()
    }

    /// When the earliest is due.
    fn mark(entries: &[Self]) -> i64 {
        entries
            .iter()
            .map(|entry| entry.due)
            .min()
            .unwrap_or(i64::MAX)
    }
}

/// What a document must have been written by.
pub(super) fn damaged(failure: &Failure) -> Option<ConsumerError> {
    match failure {
        Failure::Damaged(detail) => Some(ConsumerError::Damaged {
            detail: detail.clone(),
            cause: None,
        }),
        _ => None,
    }
}
