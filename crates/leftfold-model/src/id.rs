//! The identity of an event.
//!
//! **Owns:** [`EventId`]. **Does not know:** an event's place in the log; that is its position.
//! **Invariants:** an id is 16 bytes; the store never orders by it.

use std::{fmt, str::FromStr};

use uuid::Uuid;

use crate::error::{ModelError, quote_for_display};

/// An event's UUID, chosen by the caller that appends it; makes a retry recognisable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

impl EventId {
    /// Creates a fresh id: UUID version 7, so that ids created close in time sort close together.
    #[must_use]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// Derives an id from a name within a namespace (UUID version 5); equal input gives equal ids.
    #[must_use]
    pub fn derived(namespace: EventId, name: &[u8]) -> Self {
        Self(Uuid::new_v5(&namespace.0, name))
    }

    /// Creates an id of exactly these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns whether all bits are zero. Clients send this for a missing id, and no store accepts it.
    #[must_use]
    pub const fn is_nil(&self) -> bool {
        self.0.is_nil()
    }

    /// Returns the 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}
impl From<EventId> for Uuid {
    fn from(id: EventId) -> Self {
        id.0
    }
}
impl FromStr for EventId {
    type Err = ModelError;
    fn from_str(text: &str) -> Result<Self, ModelError> {
        let refused = |_| ModelError::NotAnEventId {
            value: quote_for_display(text),
        };
        Uuid::parse_str(text).map(Self).map_err(refused)
    }
}
impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
