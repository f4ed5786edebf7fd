//! Events from the wire.
//!
//! **Owns:** the translation; the way back is in `encode`. **Does not know:** where events go.
//! **Invariants:** data passes unchanged; an event without an id gets one.

use leftfold_model::{ContentType, EventId, NewEvent};
use leftfold_proto::umadb::v1 as wire;
use serde::de::IgnoredAny;
use tonic::Status;

use super::{metadata::EventMetadata, status};
use crate::protocol::interner::NameInterner;

/// An event as a client gives it. `tracking` is noted with it.
pub(super) fn decode(
    event: wire::Event,
    tracking: Option<&wire::TrackingInfo>,
    names: &mut NameInterner,
) -> Result<NewEvent, Status> {
    let refused = |error| status::of_model(&error);
    let event_type = names.event_type(&event.event_type).map_err(refused)?;
    let tags = names.tags(&event.tags).map_err(refused)?;
    let kept = EventMetadata {
        pairs: event.metadata,
        tracking: tracking.cloned(),
        // Sorted and without doubles they come back as they are.
        tags: (!event.tags.is_sorted_by(|a, b| a < b)).then_some(event.tags),
    };
    let metadata = kept.to_json().map_err(status::invalid)?;
    let content_type = content_type(&event.data);
    let id = match event.uuid.as_str() {
        "" => EventId::fresh(),
        id => id.parse().map_err(refused)?,
    };
    let new = NewEvent::new_with_id(id, event_type, content_type, event.data);
    new.with_metadata(metadata).with_tags(tags).map_err(refused)
}

/// The wire does not tell what data is. What reads as a JSON object or list is taken for one, so that clients that ask for
/// JSON get it.
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
