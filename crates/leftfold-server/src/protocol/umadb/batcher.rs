//! Batching events into messages that clients accept.
//!
//! **Owns:** [`MessageBatcher`] and the size of a message. **Does not know:** which events.
//! **Invariants:** a message has at most as many events as the client requested, and fits the 4 MiB that clients accept unless
//! one event alone is larger; order is kept.

use std::collections::VecDeque;

use bytes::Bytes;
use leftfold_model::{Position, RecordedEvent};

use super::encode::EventEncoder;
use crate::protocol::wire_format;

/// Default number of events in a message.
const EVENTS_USUALLY: u32 = 1024;
/// Maximum number of events in a message.
const EVENTS_MAX: u32 = 4096;
/// Maximum bytes of a message: clients accept 4 MiB, including the message's overhead.
const BYTES_MAX: u64 = 3_670_016;
/// Events that wait to be sent.
#[derive(Debug)]
pub(super) struct MessageBatcher {
    waiting: VecDeque<(Position, Bytes)>,
    /// Their encoded size.
    bytes: u64,
    events_max: usize,
    writer: EventEncoder,
}

/// The events of a message.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Bytes>,
    /// The position of the last of them.
    pub(super) last: Option<Position>,
}

impl MessageBatcher {
    pub(super) fn of(batch_size: Option<u32>) -> Self {
        let events = batch_size.unwrap_or(EVENTS_USUALLY).clamp(1, EVENTS_MAX);
        Self {
            waiting: VecDeque::new(),
            bytes: 0,
            events_max: usize::try_from(events).unwrap_or(usize::MAX),
            writer: EventEncoder::default(),
        }
    }

    pub(super) fn add(&mut self, event: &RecordedEvent) {
        let bytes = self.writer.write(event);
        self.bytes += wire_format::length_of_bytes(bytes.len());
        self.waiting.push_back((event.position, bytes));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns whether there is enough for a message.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.events_max || self.bytes >= BYTES_MAX
    }

    /// Takes the events of the next message; none if none wait.
    pub(super) fn take(&mut self) -> Batch {
        let mut events = Vec::with_capacity(self.waiting.len().min(self.events_max));
        let (mut last, mut bytes) = (None, 0);
        while let Some((position, event)) = self.waiting.front() {
            let size = wire_format::length_of_bytes(event.len());
            if !events.is_empty() && (events.len() == self.events_max || bytes + size > BYTES_MAX) {
                break;
            }
            bytes += size;
            last = Some(*position);
            events.extend(self.waiting.pop_front().map(|(_, event)| event));
        }
        self.bytes -= bytes;
        Batch { events, last }
    }
}

#[cfg(test)]
mod tests {
    use leftfold_model::{ContentType, EventId, Revision, Timestamp};
    use leftfold_proto::{prost::Message, umadb::v1::SequencedEvent};

    use super::*;

    fn event(position: u64, bytes: usize) -> RecordedEvent {
        RecordedEvent {
            position: Position::new(position),
            stream: "default".try_into().unwrap(),
            revision: Revision::new(position),
            id: EventId::fresh(),
            event_type: "T".try_into().unwrap(),
            content_type: ContentType::Binary,
            data: Bytes::from(vec![b'x'; bytes]),
            metadata: Bytes::new(),
            tags: Vec::new(),
            time: Timestamp::default(),
        }
    }

    fn positions(taken: &Batch) -> Vec<u64> {
        let read = |event: &Bytes| SequencedEvent::decode(event.clone()).unwrap().position;
        let positions: Vec<_> = taken.events.iter().map(read).collect();
        assert_eq!(positions.last().copied(), taken.last.map(Position::get));
        positions
    }

    #[test]
    fn a_message_has_no_more_events_than_asked_for() {
        let mut pack = MessageBatcher::of(Some(2));
        for position in 1..=3 {
            assert!(!(position < 3 && pack.is_full()));
            pack.add(&event(position, 1));
        }
        assert!(pack.is_full());
        assert_eq!(positions(&pack.take()), [1, 2]);
        assert!(!pack.is_full());
        assert_eq!(positions(&pack.take()), [3]);
        assert!(pack.is_empty() && pack.take().events.is_empty());
        assert_eq!(pack.bytes, 0);
    }

    #[test]
    fn a_message_fits_what_clients_take_unless_one_event_is_larger() {
        let mut pack = MessageBatcher::of(None);
        for (position, mib) in [(1, 1), (2, 2), (3, 1), (4, 5), (5, 1)] {
            pack.add(&event(position, mib << 20));
        }
        assert_eq!(positions(&pack.take()), [1, 2]);
        assert_eq!(positions(&pack.take()), [3]);
        assert_eq!(positions(&pack.take()), [4]);
        assert_eq!(positions(&pack.take()), [5]);
    }

    #[test]
    fn a_batch_size_of_none_or_too_many_is_cut_to_what_is_sensible() {
        assert_eq!(MessageBatcher::of(None).events_max, 1024);
        assert_eq!(MessageBatcher::of(Some(0)).events_max, 1);
        assert_eq!(MessageBatcher::of(Some(u32::MAX)).events_max, 4096);
    }
}
