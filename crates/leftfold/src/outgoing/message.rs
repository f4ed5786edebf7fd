//! What leaves, in the form of CloudEvents.
//!
//! **Owns:** [`Outgoing`], [`CloudEvent`] and its JSON. **Does not know:** where it goes.
//! **Invariants:** one event gives one id, whoever asks and however often.

use serde::Serialize;
use serde_json::Value;

use crate::{Event, Recorded, clock::rfc3339};

/// Makes messages for other systems of events.
///
/// What others are told is a contract with them: it changes when you say so, and not when an event of yours does.
pub trait Outgoing: Send + Sync + 'static {
    /// The events that messages are made of.
    type Event: Event;

    /// The name of the consumer, which must never change: the checkpoint is kept under it.
    const NAME: &'static str;

    /// Where messages come from, as a URI reference: `source` of each.
    const SOURCE: &'static str;

    /// The type of the message that this event makes, and its data; `None` if others are not told.
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
}
