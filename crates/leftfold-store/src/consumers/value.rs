//! The values of the consumers' contract, and their limits.
//!
//! **Owns:** claims, changes, parked events, timers, and their validation.
//! **Does not know:** where they are stored. **Invariants:** every store validates with the functions here, so that each limit
//! exists once; a caller's value is validated before anything changes.

use std::time::Duration;

use bytes::Bytes;
use leftfold_model::{Position, Timestamp};

use super::{error::ConsumerError, name::ConsumerName};

/// Bytes of a holder's name, at most.
pub const HOLDER_BYTES_MAX: usize = 255;
/// Bytes of the key of a parked event, at most: room for a stream's name and more.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of the reason of a parked event, at most.
pub const REASON_BYTES_MAX: usize = 4_096;
/// Bytes of a timer's id, at most.
pub const TIMER_ID_BYTES_MAX: usize = 255;
/// Bytes of a timer's data, at most.
pub const TIMER_DATA_BYTES_MAX: usize = 64 * 1_024;
/// Changes in one call of [`Consumers::advance`](super::Consumers::advance), at most.
pub const CHANGES_MAX: usize = 10_000;
/// Bytes of all texts and data of the changes in one call, at most: what one message or document of a store can carry.
pub const CHANGES_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Parked events of one consumer, at most. A consumer with more has a fault of its own, not a few poison events.
pub const PARKED_MAX: u64 = 100_000;
/// Entries in one answer, at most.
pub const LIST_MAX: usize = 1_000;
/// Maximum time to live of a claim: a new holder waits no longer for one that crashed.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A request to act as a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClaimRequest {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The holder: unique to one running task, because a second claim of a holder only prolongs the first. 1 to
    /// [`HOLDER_BYTES_MAX`] bytes.
    pub holder: String,
    /// How long the claim lasts unless it is renewed; [`TTL_MAX`] at most.
    pub ttl: Duration,
    /// The checkpoint of a consumer that is not known yet.
    pub start: Position,
}

impl ClaimRequest {
    /// Creates a claim of a consumer that starts before the first event.
    pub fn new(consumer: ConsumerName, holder: impl Into<String>, ttl: Duration) -> Self {
        Self {
            consumer,
            holder: holder.into(),
            ttl,
            start: Position::START,
        }
    }

    /// Sets the start of a consumer that is not known yet.
    #[must_use]
    pub fn start(mut self, start: Position) -> Self {
        self.start = start;
        self
    }

    /// Checks the limits. For stores.
    ///
    /// # Errors
    /// [`ConsumerError::Invalid`].
    pub fn check(&self) -> Result<(), ConsumerError> {
        check_text("holder", &self.holder, 1, HOLDER_BYTES_MAX)?;
        check_ttl(self.ttl)
    }
}

/// The right to act as a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The consumer.
    pub consumer: ConsumerName,
    /// The holder.
    pub holder: String,
    /// The fencing token: higher than that of every earlier holder. Pass it to systems that can compare it.
    pub term: u64,
    /// The checkpoint: everything up to here is handled.
    pub position: Position,
}

/// A change that is written with a checkpoint. All are idempotent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsumerChange {
    /// Parks an event, or replaces the entry of a parked one.
    Park(ParkedEvent),
    /// Removes a parked event; one that is not parked is no error.
    Unpark(Position),
    /// Sets a timer, or moves the one with its id.
    SetTimer(Timer),
    /// Cancels the timer with this id; one that is not set is no error.
    CancelTimer(String),
}

/// An event that a consumer could not handle, or that waits behind one of the same key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParkedEvent {
    /// The position of the event. The event itself stays in the log.
    pub position: Position,
    /// Events of one key are handled in order, so later ones wait for this one. At most [`KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// The reason, for people: at most [`REASON_BYTES_MAX`] bytes.
    pub reason: String,
    /// The number of attempts; 0 for an event that only waits behind another.
    pub attempts: u32,
    /// When it was parked.
    pub time: Timestamp,
    /// An operator's request. [`Consumers::resolve`](super::Consumers::resolve) sets it; parking clears it.
    pub resolution: Option<Resolution>,
}

/// An operator's request about a parked event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// Handle it again, and then the events of its key that wait behind it.
    Retry,
    /// Skip it permanently, and handle the events of its key that wait behind it.
    Skip,
}

/// A point in time at which a consumer wants to act.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timer {
    /// Its id among the consumer's timers: 1 to [`TIMER_ID_BYTES_MAX`] bytes.
    pub id: String,
    /// When it is due.
    pub due: Timestamp,
    /// Data for the consumer: at most [`TIMER_DATA_BYTES_MAX`] bytes.
    pub data: Bytes,
}

/// A request to list parked events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListParked {
    /// Only those after this position; for paging.
    pub after: Position,
    /// Only those of this key.
    pub key: Option<String>,
    /// Only those with an operator's request.
    pub resolved: bool,
    /// The maximum number; [`LIST_MAX`] in any case.
    pub limit: usize,
}

impl Default for ListParked {
    fn default() -> Self {
        Self {
            after: Position::START,
            key: None,
            resolved: false,
            limit: LIST_MAX,
        }
    }
}

impl ListParked {
    /// Returns whether an event is selected. For stores.
    #[must_use]
    pub fn selects(&self, event: &ParkedEvent) -> bool {
        event.position > self.after
            && self.key.as_ref().is_none_or(|key| *key == event.key)
            && (!self.resolved || event.resolution.is_some())
    }
}

/// The status of a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerStatus {
    /// Its name.
    pub consumer: ConsumerName,
    /// The checkpoint: everything up to here is handled or parked.
    pub position: Position,
    /// The newest term.
    pub term: u64,
    /// The holder of a claim that lasts, and its remaining time unless it is renewed.
    pub holder: Option<(String, Duration)>,
    /// How many events are parked.
    pub parked: u64,
    /// How many timers are set.
    pub timers: u64,
    /// When the checkpoint last moved.
    pub time: Timestamp,
}

/// Checks how long a claim is to last. For stores.
///
/// # Errors
/// [`ConsumerError::Invalid`].
pub fn check_ttl(ttl: Duration) -> Result<(), ConsumerError> {
    if ttl <= TTL_MAX {
        return Ok(());
    }
    Err(ConsumerError::Invalid {
        what: "duration of a claim",
        value: format!("{ttl:?}"),
        expected: format!("{TTL_MAX:?} at most"),
    })
}

impl ConsumerChange {
    /// Checks the changes of one call. For stores.
    ///
    /// # Errors
    /// [`ConsumerError::Invalid`].
    pub fn check_all(changes: &[Self]) -> Result<(), ConsumerError> {
        if changes.len() > CHANGES_MAX {
            return Err(ConsumerError::Invalid {
                what: "number of changes",
                value: changes.len().to_string(),
                expected: format!("{CHANGES_MAX} at most"),
            });
        }
        changes.iter().try_for_each(Self::check)?;
        let bytes: usize = changes.iter().map(Self::bytes).sum();
        if bytes > CHANGES_BYTES_MAX {
            return Err(ConsumerError::Invalid {
                what: "size of the changes",
                value: format!("{bytes} bytes"),
                expected: format!("{CHANGES_BYTES_MAX} bytes at most"),
            });
        }
        Ok(())
    }

    /// How many of the first changes one call may have: all of them, unless they are too many or too large together.
    /// At least 1 if there are any.
    #[must_use]
    pub fn count_within_limits(changes: &[Self]) -> usize {
        let mut bytes = 0;
        let beyond = changes.iter().take(CHANGES_MAX).position(|change| {
            bytes += change.bytes();
            bytes > CHANGES_BYTES_MAX
        });
        beyond.unwrap_or(changes.len().min(CHANGES_MAX))
    }

    /// Bytes of its texts and data.
    fn bytes(&self) -> usize {
        match self {
            Self::Park(event) => event.key.len() + event.reason.len(),
            Self::Unpark(_) => 0,
            Self::SetTimer(timer) => timer.id.len() + timer.data.len(),
            Self::CancelTimer(id) => id.len(),
        }
    }

    fn check(&self) -> Result<(), ConsumerError> {
        match self {
            Self::Park(parked) => {
                check_text("key of a parked event", &parked.key, 0, KEY_BYTES_MAX)?;
                check_text(
                    "reason of a parked event",
                    &parked.reason,
                    0,
                    REASON_BYTES_MAX,
                )
            }
            Self::SetTimer(timer) => {
                check_text("id of a timer", &timer.id, 1, TIMER_ID_BYTES_MAX)?;
                check_size("data of a timer", timer.data.len(), 0, TIMER_DATA_BYTES_MAX)
            }
            Self::CancelTimer(id) => check_text("id of a timer", id, 1, TIMER_ID_BYTES_MAX),
            Self::Unpark(_) => Ok(()),
        }
    }
}

impl Claim {
    /// Returns whether a checkpoint at `actual` must move to `to`: `true` if it moves, `false` if it is there
    /// already because the call is a repetition. For stores, after they compared the term.
    ///
    /// # Errors
    /// [`ConsumerError::Moved`], [`ConsumerError::Invalid`] for a way back.
    pub fn check_advance(&self, actual: Position, to: Position) -> Result<bool, ConsumerError> {
        if to < self.position {
            return Err(ConsumerError::Invalid {
                what: "checkpoint",
                value: to.to_string(),
                expected: format!("{} at least, where the consumer is", self.position),
            });
        }
        if actual == self.position {
            return Ok(true);
        }
        if actual == to {
            return Ok(false);
        }
        Err(ConsumerError::Moved {
            consumer: self.consumer.clone(),
            expected: self.position,
            actual,
        })
    }

    /// Compares the term with the newest one. For stores.
    ///
    /// # Errors
    /// [`ConsumerError::Lost`].
    pub fn check_term(&self, newest: u64) -> Result<(), ConsumerError> {
        if newest == self.term {
            return Ok(());
        }
        Err(ConsumerError::Lost {
            consumer: self.consumer.clone(),
            term: self.term,
            newest,
        })
    }
}

fn check_text(
    what: &'static str,
    text: &str,
    least: usize,
    most: usize,
) -> Result<(), ConsumerError> {
    check_size(what, text.len(), least, most)
}

fn check_size(
    what: &'static str,
    bytes: usize,
    least: usize,
    most: usize,
) -> Result<(), ConsumerError> {
    if (least..=most).contains(&bytes) {
        return Ok(());
    }
    Err(ConsumerError::Invalid {
        what,
        value: format!("{bytes} bytes"),
        expected: format!("{least} to {most} bytes"),
    })
}
