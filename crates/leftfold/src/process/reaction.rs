//! What a process sees, and what it decides.
//!
//! **Owns:** [`Seen`], [`Reaction`]. **Does not know:** how a reaction is committed.
//! **Invariants:** a reaction that sends commands or changes timers remembers at least one event, by which its repetition is
//! recognised.

use std::time::Duration;

use leftfold_model::Timestamp;

use crate::Recorded;

/// What a process reacts to.
#[derive(Debug)]
pub enum Seen<'a, E> {
    /// An event of another stream.
    Event(&'a Recorded<E>),
    /// The timer of this name, which is due.
    Timer(&'a str),
}

impl<E> Clone for Seen<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Seen<'_, E> {}

/// When a timer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// So long behind what was seen: the time of the event, or when the timer was due.
    After(Duration),
    /// Then.
    At(Timestamp),
}

impl When {
    /// The time it is, for what was seen at `seen`.
    pub(crate) fn time(self, seen: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(pause) => {
                let pause = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
                Timestamp::from_micros(seen.as_micros().saturating_add(pause))
            }
        }
    }
}

/// What a process decides: events of its own, commands to others, timers.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Reaction<E, C> {
    pub(crate) events: Vec<E>,
    pub(crate) commands: Vec<C>,
    /// By name, in the order they were said: set, or cancelled.
    pub(crate) timers: Vec<(String, Option<When>)>,
}

/// A reaction that acts without remembering it.
#[derive(Debug, thiserror::Error)]
#[error(
    "reaction has no event: {commands} commands and {timers} timers; expected Reaction::remember with an event, by which a \
     repetition is recognized"
)]
pub(crate) struct ReactionError {
    commands: usize,
    timers: usize,
}

impl<E, C> Reaction<E, C> {
    /// Creates a reaction that does nothing. After a crash, a timer that was ignored may fire again.
    ///
    /// Add nothing but events to it. By its first event a process recognizes that it has reacted before, so a reaction with
    /// commands or timers and without an event fails, and is retried and parked as other failures are.
    pub fn ignore() -> Self {
        Self {
            events: Vec::new(),
            commands: Vec::new(),
            timers: Vec::new(),
        }
    }

    /// Creates a reaction that records this event of the process. Commands and timers are added to it.
    pub fn remember(event: E) -> Self {
        Self {
            events: vec![event],
            ..Self::ignore()
        }
    }
}

impl<E, C> Reaction<E, C> {
    /// Adds an event.
    pub fn and(mut self, event: E) -> Self {
        self.events.push(event);
        self
    }

    /// Sends a command, after those added before.
    pub fn send(mut self, command: C) -> Self {
        self.commands.push(command);
        self
    }

    /// Sets the timer of this name to `pause` after the time of what was seen. A timer that is already set is moved.
    pub fn after(self, timer: impl Into<String>, pause: Duration) -> Self {
        self.timer(timer.into(), Some(When::After(pause)))
    }

    /// Sets the timer of this name to a time. A time in the past is due at once.
    pub fn at(self, timer: impl Into<String>, time: Timestamp) -> Self {
        self.timer(timer.into(), Some(When::At(time)))
    }

    /// Cancels the timer of this name; one that is not set is no error.
    pub fn cancel(self, timer: impl Into<String>) -> Self {
        self.timer(timer.into(), None)
    }

    fn timer(mut self, name: String, when: Option<When>) -> Self {
        self.timers.retain(|(known, _)| *known != name);
        self.timers.push((name, when));
        self
    }

    pub(crate) fn is_ignored(&self) -> bool {
        self.events.is_empty()
    }

    /// Fails if commands or timers are there and no event, by which a repetition would be recognized.
    pub(crate) fn check(&self) -> Result<(), ReactionError> {
        if !self.events.is_empty() || (self.commands.is_empty() && self.timers.is_empty()) {
            return Ok(());
        }
        Err(ReactionError {
            commands: self.commands.len(),
            timers: self.timers.len(),
        })
    }
}
