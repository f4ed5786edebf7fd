//! Decoding events, and choosing which events this wire shows.
//!
//! **Owns:** [`decode`], [`is_shown`]; `encode` writes events. **Does not know:** where events go.
//! **Invariants:**
//! - Data passes unchanged.
//! - The store gets a distinct id for each event; reads return the id that the client gave, or none if it gave none.

use std::collections::HashSet;

use leftfold_model::{ContentType, EventId, NewEvent, RecordedEvent};
use leftfold_proto::umadb::v1 as wire;
use serde::de::IgnoredAny;
use tonic::Status;

use super::{
    metadata::{ClientId, EventMetadata},
    status,
};
use crate::protocol::{client_id, interner::NameInterner};

/// Returns whether clients see an event: not one of a system stream.
pub(super) fn is_shown(event: &RecordedEvent) -> bool {
    !event.stream.as_str().starts_with('$')
}

/// Returns an event under a fresh id, with the client's id in its metadata if it was stored under that.
pub(super) fn with_fresh_id(event: &NewEvent) -> NewEvent {
    let id = event.id();
    let event = event.clone().with_id(EventId::fresh());
    let notes_id = !event.metadata().is_empty()
        && EventMetadata::from_json(event.metadata()).id != ClientId::Stored;
    if notes_id {
        return event;
    }
    let metadata = client_id::note(event.metadata(), Some(id));
    event.with_metadata(metadata)
}

/// Decodes an event, and the id that the client gave it. `tracking` is stored with it.
///
/// The event has the client's id, unless `used` holds that already: an id may come twice in an append.
pub(super) fn decode(
    event: wire::Event,
    tracking: Option<&wire::TrackingInfo>,
    names: &mut NameInterner,
    used: &mut HashSet<EventId>,
) -> Result<(NewEvent, Option<EventId>), Status> {
    let refused = |error| status::of_model(&error);
    let event_type = names.event_type(&event.event_type).map_err(refused)?;
    let tags = names.tags(&event.tags).map_err(refused)?;
    let id: Option<EventId> = match event.uuid.as_str() {
        "" => None,
        id => Some(id.parse().map_err(refused)?),
    };
    let stored = id.filter(|&id| !id.is_nil() && used.insert(id));
    let kept = EventMetadata {
        id: match (id, stored) {
            (None, _) => ClientId::Missing,
            (Some(_), Some(_)) => ClientId::Stored,
            (Some(id), None) => ClientId::Given(id),
        },
        pairs: event.metadata,
        tracking: tracking.cloned(),
        // Sorted and without doubles they come back as they are.
        tags: (!event.tags.is_sorted_by(|a, b| a < b)).then_some(event.tags),
    };
    let metadata = kept.to_json().map_err(status::invalid)?;
    let content_type = content_type(&event.data);
    let stored = stored.unwrap_or_else(EventId::fresh);
    let event = NewEvent::new_with_id(stored, event_type, content_type, event.data);
    let event = event.with_metadata(metadata).with_tags(tags);
    Ok((event.map_err(refused)?, id))
}

/// Returns the content type of data, which the wire does not carry.
///
/// A JSON object or list counts as JSON, so that clients that want JSON get it.
fn content_type(data: &[u8]) -> ContentType {
    let begins = data.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_json =
        matches!(begins, Some(b'{' | b'[')) && serde_json::from_slice::<IgnoredAny>(data).is_ok();
    if is_json {
        ContentType::Json
    } else {
        ContentType::Binary
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_objects_and_lists_are_taken_for_json() {
        for json in [&b"{}"[..], b" [1]\n", b"{\"a\":1}"] {
            assert_eq!(content_type(json), ContentType::Json);
        }
        for other in [&b""[..], b"1", b"\"text\"", b"{", b"{}}", b"\xff"] {
            assert_eq!(content_type(other), ContentType::Binary);
        }
    }
}
