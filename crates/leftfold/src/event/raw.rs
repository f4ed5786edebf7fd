//! Stored events of a type that the program does not know.
//!
//! **Owns:** [`UnknownEvent`]. **Does not know:** why they are unknown.
//! **Invariants:** holds exactly the stored event, so that it can be stored again.

use serde::{Deserialize, Serialize};

use leftfold_model::{ContentType, RecordedEvent};

use super::{Encoded, UpcastEvent};

/// An event of a type the program does not know, for the variant marked `#[event(other)]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownEvent {
    /// Its type on the wire.
    pub event_type: String,
    /// The version of its shape.
    pub version: u32,
    /// [`ContentType::code`] of its data.
    content_type: u8,
    /// Its data, as stored.
    pub data: Vec<u8>,
}

impl UnknownEvent {
    pub(crate) fn of(recorded: &RecordedEvent, version: u32) -> Self {
        Self {
            event_type: recorded.event_type.to_string(),
            version,
            content_type: recorded.content_type.code(),
            data: recorded.data.to_vec(),
        }
    }

    /// Creates the raw event of an upcaster's result that the program does not know.
    pub(crate) fn from_upcast(old: &UpcastEvent) -> Self {
        Self {
            event_type: old.name.clone(),
            version: old.version,
            content_type: ContentType::Json.code(),
            data: old.data.to_string().into_bytes(),
        }
    }

    /// Returns the encoding of [`Self::data`].
    #[must_use]
    pub fn content_type(&self) -> ContentType {
        ContentType::from_code(self.content_type).unwrap_or(ContentType::Binary)
    }

    /// Returns the event's data, unchanged.
    #[must_use]
    pub fn encoded(&self) -> Encoded {
        Encoded {
            content_type: self.content_type(),
            data: self.data.clone(),
        }
    }
}
