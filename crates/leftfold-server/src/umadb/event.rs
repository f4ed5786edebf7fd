//! Events to and from the wire.
//!
//! **Owns:** the translation. **Does not know:** where events go.
//! **Invariants:** data passes unchanged; an event without an id gets one.

use leftfold_model::{ContentType, EventId, EventType, NewEvent, RecordedEvent, Tag};
use leftfold_proto::umadb::v1 as wire;
use serde::de::IgnoredAny;
use tonic::Status;

use super::{metadata::Kept, status};

/// An event as a client gives it. `tracking` is noted with it.
pub(super) fn given(
    event: wire::Event,
    tracking: Option<&wire::TrackingInfo>,
) -> Result<NewEvent, Status> {
    let refused = |error| status::of_model(&error);
    let event_type = EventType::new(event.event_type).map_err(refused)?;
    let tags: Vec<_> = event
        .tags
        .iter()
        .map(|tag| Tag::new(tag.as_str()))
        .collect::<Result<_, _>>()
        .map_err(refused)?;
    let kept = Kept {
        pairs: event.metadata,
        tracking: tracking.cloned(),
        // Sorted and without doubles they come back as they are.
        tags: (!event.tags.is_sorted_by(|a, b| a < b)).then_some(event.tags),
    };
    let metadata = kept.to_json().map_err(status::invalid)?;
    let content_type = content_type(&event.data);
    let new = NewEvent::new(event_type, content_type, event.data).with_metadata(metadata);
    let new = match event.uuid.as_str() {
        "" => new,
        id => new.with_id(id.parse::<EventId>().map_err(refused)?),
    };
    new.with_tags(tags).map_err(refused)
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

/// An event as a client gets it.
pub(super) fn shown(event: RecordedEvent) -> wire::SequencedEvent {
    let kept = Kept::from_json(&event.metadata);
    let tags = event.tags.iter().map(|tag| tag.as_str().to_owned());
    let tags = in_order(tags.collect(), kept.tags);
    wire::SequencedEvent {
        position: event.position.get(),
        event: Some(wire::Event {
            event_type: event.event_type.as_str().to_owned(),
            tags,
            data: event.data,
            uuid: event.id.to_string(),
            metadata: kept.pairs,
        }),
        tracking_info: kept.tracking,
    }
}

/// The tags of an event, in the order in which they were given if that is known.
fn in_order(tags: Vec<String>, given: Option<Vec<String>>) -> Vec<String> {
    let Some(given) = given else { return tags };
    let mut set: Vec<_> = given.iter().collect();
    set.sort();
    set.dedup();
    if set.into_iter().eq(&tags) {
        given
    } else {
        tags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_in_the_order_given_only_if_they_are_the_tags() {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        let tags = |given: &[&str]| in_order(texts(&["x", "y"]), Some(texts(given)));
        assert_eq!(tags(&["y", "x", "y"]), ["y", "x", "y"]);
        assert_eq!(tags(&["y", "z"]), ["x", "y"]);
        assert_eq!(tags(&[]), ["x", "y"]);
        assert_eq!(in_order(texts(&["x"]), None), ["x"]);
    }

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
