//! The event at the beginning of every log on this wire.
//!
//! **Owns:** its content. **Does not know:** the store, which does not have it.
//! **Invariants:** always the same, at position 0, where the store never has an event. Clients rely on a log that begins with
//! an event of the system's own.

use leftfold_model::{
    ContentType, EventId, EventType, ModelError, Position, RecordedEvent, Revision, StreamName,
    Timestamp,
};

/// Returns the event as a value of the model.
pub(super) fn event() -> Result<RecordedEvent, ModelError> {
    Ok(RecordedEvent {
        position: Position::START,
        stream: StreamName::new("$leftfold")?,
        revision: Revision::FIRST,
        id: EventId::derived(EventId::from_bytes([0; 16]), b"leftfold.log-begun"),
        event_type: EventType::new("$logBegun")?,
        content_type: ContentType::Json,
        data: "{}".into(),
        metadata: "".into(),
        tags: Vec::new(),
        time: Timestamp::from_micros(0),
    })
}
