//! Messages in the form of CloudEvents.
//!
//! **Owns:** [`Outgoing`], [`CloudEvent`] and its JSON, the id of its delivery. **Does not know:** where it goes.
//! **Invariants:** every message of an event has the same id; messages that differ in source or type have different delivery
//! ids, so that no receiver takes one for a repetition of another.

use serde::Serialize;
use serde_json::Value;

use crate::{Event, Recorded, clock::rfc3339};

/// Makes messages for other systems of events.
///
/// The type and data of a message are a contract with other systems, so they are independent of the event's own shape.
pub trait Outgoing: Send + Sync + 'static {
    /// The events that messages are made of.
    type Event: Event;

    /// The name of the consumer, which must never change: the checkpoint is kept under it.
    const NAME: &'static str;

    /// Where messages come from, as a URI reference: `source` of each. A receiver may take messages with one `source` and one
    /// `id` for one message, so let those that are made of the same events for one receiver differ in it.
    const SOURCE: &'static str;

    /// Returns the type and the data of this event's message; `None` if it has none.
    fn message(&self, event: &Recorded<Self::Event>) -> Option<(String, Value)>;
}

/// A message, as CloudEvents 1.0 has it. Serializes to its JSON form.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CloudEvent {
    /// Always `1.0`.
    pub specversion: &'static str,
    /// The event's id; of a later part of an event that an upcast split, with `/` and the number of the part.
    pub id: String,
    /// Where it comes from.
    pub source: &'static str,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// The event's stream. Messages of one subject come in order.
    pub subject: String,
    /// When the event was committed, as RFC 3339.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: &'static str,
    /// The event's correlation, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlationid: Option<String>,
    /// What is told.
    pub data: Value,
}

impl CloudEvent {
    /// The message of an event.
    pub(super) fn of<O: Outgoing>(outgoing: &O, event: &Recorded<O::Event>) -> Option<Self> {
        let (kind, data) = outgoing.message(event)?;
        let id = match event.part {
            0 => event.id.to_string(),
            part => format!("{}/{part}", event.id),
        };
        Some(Self {
            specversion: "1.0",
            id,
            source: O::SOURCE,
            kind,
            subject: event.stream.to_string(),
            time: rfc3339(event.time),
            datacontenttype: "application/json",
            correlationid: event.metadata.correlation.clone(),
            data,
        })
    }

    /// The id by which what receives messages at this place recognises a repetition. The event's id alone would make the
    /// messages that several [`Outgoing`] make of one event repetitions of the first.
    #[cfg(any(feature = "webhook", feature = "nats"))]
    pub(super) fn delivery_id(&self, place: &str) -> String {
        crate::metadata::derived_id(&["message", place, self.source, &self.kind, &self.id])
            .to_string()
    }
}
