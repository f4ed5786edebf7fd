//! Fixtures for tests of domain code: no store, no runtime.
//!
//! **Owns:** [`Given`], [`GivenEvents`], [`GivenProcess`], [`GivenProjection`], [`GivenLive`],
//! [`EventsLock`], [`TestClock`] and [`store()`].
//! **Does not know:** any test framework: a failed assertion panics.
//! **Invariants:** events pass through their stored form on the way, so that a test also fails if they cannot be stored;
//! nothing depends on the time of day or on chance.

mod clock;
mod decision_result;
mod given;
mod given_events;
mod given_process;
mod given_projection;
mod lock;

pub use clock::{TestClock, sequential_ids, store};
pub use decision_result::DecisionResult;
pub use given::{Given, When};
pub use given_events::GivenEvents;
pub use given_process::{GivenProcess, WhenProcess};
pub use given_projection::{GivenLive, GivenProjection};
pub use lock::EventsLock;

use leftfold_model::{
    ErrorChain, EventId, EventType, Position, RecordedEvent, Revision, StreamName, Tag, Timestamp,
};

use crate::{Event, Metadata, command::encode_readable, erasure::revealed};

/// An event as a store would keep it at this place.
fn stored<V: Event>(event: &V, place: u64) -> RecordedEvent {
    stored_with(event, place, &Metadata::new())
}

/// An event as a store would keep it at this place, with this metadata.
#[expect(
    clippy::panic,
    reason = "in a test an event that cannot be stored is a failure"
)]
fn stored_with<V: Event>(event: &V, place: u64, metadata: &Metadata) -> RecordedEvent {
    let fail = |what: &str, error: &(dyn std::error::Error + 'static)| -> ! {
        panic!(
            "event {place} of type {}: {what}: {}",
            event.event_type(),
            ErrorChain(error)
        )
    };
    let encoded = revealed(|| encode_readable(event));
    let encoded = encoded.unwrap_or_else(|error| fail("cannot be encoded", &error));
    let event_type = EventType::new(event.event_type())
        .unwrap_or_else(|error| fail("has no valid type", &error));
    let mut tags: Vec<Tag> = event
        .tags()
        .unwrap_or_else(|error| fail("has no valid tags", &error));
    tags.sort();
    tags.dedup();
    let metadata = metadata
        .encode(event.event_type(), event.version())
        .unwrap_or_else(|error| fail("has no metadata", &error));
    RecordedEvent {
        position: Position::new(place + 1),
        stream: StreamName::default_stream(),
        revision: Revision::new(place),
        id: EventId::from_bytes([0; 16]),
        event_type,
        content_type: encoded.content_type,
        data: encoded.data.into(),
        metadata: metadata.into(),
        tags,
        time: Timestamp::from_micros(place),
    }
}
