//! A log of small segments on a simulated disk, and what tests do with it.

use std::sync::Arc;

use leftfold_log::{Clock, Core, LogOptions, OpenError};
use leftfold_model::{
    Append, EventId, EventType, ExpectedRevision, NewEvent, Position, Read, RecordedEvent,
    StreamName, Timestamp,
};
use leftfold_sim::SimDisk;

/// Events in a full segment.
pub(crate) const SEGMENT_EVENTS: u32 = 24;

/// A clock by which everything happens at once.
#[derive(Debug)]
pub(crate) struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1)
    }
}

/// Opens a log with at most [`SEGMENT_EVENTS`] events in a segment.
pub(crate) fn open(disk: &SimDisk) -> Core {
    try_open(disk).unwrap()
}

/// As [`open`], on a disk that may fail.
pub(crate) fn try_open(disk: &SimDisk) -> Result<Core, OpenError> {
    let options = LogOptions::default()
        .with_segment_bytes(64 * 1024)
        .with_segment_events(SEGMENT_EVENTS)
        .with_log_id([5; 16]);
    Core::open(Arc::new(disk.clone()), options, Arc::new(StillClock))
}

/// Appends the event of this number to one of two streams, `dead` for even numbers.
pub(crate) fn append(core: &mut Core, n: u64) -> Result<Position, String> {
    let event = NewEvent::json(EventType::new("T").unwrap(), vec![b'1'; 200])
        .with_id(EventId::from_bytes(u128::from(n + 1).to_le_bytes()));
    let stream = StreamName::new(if n.is_multiple_of(2) { "dead" } else { "live" }).unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![event]).unwrap();
    let appended = core.commit(&[append]).remove(0);
    appended.map(|a| a.first).map_err(|error| error.to_string())
}

/// Every event that a reader sees.
pub(crate) fn read(core: &Core) -> Vec<RecordedEvent> {
    let mut cursor = core.reader().read(&Read::all()).unwrap();
    let mut events = Vec::new();
    while let Some(batch) = cursor.next_batch().unwrap() {
        events.extend(batch);
    }
    events
}
