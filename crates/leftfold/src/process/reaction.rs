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

impl<E, C> Reaction<E, C> {
    /// Nothing comes of it, and nothing is remembered. After a crash a timer that was ignored may be told of once more.
    pub fn ignore() -> Self {
        Self {
            events: Vec::new(),
            commands: Vec::new(),
            timers: Vec::new(),
        }
    }

    /// The process remembers this event. Whatever else it decides goes with it.
    pub fn remember(event: E) -> Self {
        Self {
            events: vec![event],
            ..Self::ignore()
        }
    }
}

impl<E, C> Reaction<E, C> {
    /// And this event. Like everything below it needs [`Self::remember`] first: a reaction that ignores stays one.
    pub fn and(mut self, event: E) -> Self {
        if !self.is_ignored() {
            self.events.push(event);
        }
        self
    }

    /// Sends a command, behind those before it.
    pub fn send(mut self, command: C) -> Self {
        if !self.is_ignored() {
            self.commands.push(command);
        }
        self
    }

    /// Sets the timer of this name to so long behind the time of what was seen. A timer that is set already is moved.
    pub fn after(self, timer: impl Into<String>, pause: Duration) -> Self {
        self.timer(timer.into(), Some(When::After(pause)))
    }

    /// Sets the timer of this name to a time. One that is past is due at once.
    pub fn at(self, timer: impl Into<String>, time: Timestamp) -> Self {
        self.timer(timer.into(), Some(When::At(time)))
    }

    /// Cancels the timer of this name; one that is not set is no error.
    pub fn cancel(self, timer: impl Into<String>) -> Self {
        self.timer(timer.into(), None)
    }

    fn timer(mut self, name: String, when: Option<When>) -> Self {
        if !self.is_ignored() {
            self.timers.retain(|(known, _)| *known != name);
            self.timers.push((name, when));
        }
        self
    }

    pub(crate) fn is_ignored(&self) -> bool {
        self.events.is_empty()
    }
}
