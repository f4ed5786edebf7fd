//! What writers were told, and what the log must hold because of it.
//!
//! **Owns:** [`Ledger`]. **Does not know:** how connections fail.

use std::{collections::HashMap, sync::Mutex};

use futures_util::TryStreamExt;
use leftfold_model::{
    Append, EventId, EventType, ExpectedRevision, NewEvent, Position, Read, RecordedEvent,
    Revision, StreamName,
};
use leftfold_store::{AppendError, EventStore};

/// What writers were told of their events.
#[derive(Default)]
pub(crate) struct Ledger {
    acknowledged: Mutex<HashMap<EventId, Position>>,
    unknown: Mutex<Vec<EventId>>,
}

impl Ledger {
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    pub(crate) fn unknown(&self) -> usize {
        self.unknown.lock().unwrap().len()
    }

    /// Appends one event and records the outcome.
    pub(crate) async fn write(
        &self,
        store: &dyn EventStore,
        stream: &StreamName,
        expected: ExpectedRevision,
    ) {
        let event = event();
        let id = event.id();
        let append = Append::to(stream.clone(), expected, vec![event]).unwrap();
        match store.append(append).await {
            Ok(appended) => {
                assert_eq!(appended.first, appended.last);
                self.acknowledged.lock().unwrap().insert(id, appended.first);
            }
            Err(AppendError::OutcomeUnknown { .. }) if expected == ExpectedRevision::Any => {
                self.unknown.lock().unwrap().push(id);
            }
            Err(error) => panic!("{stream} under {expected}: {error:?}"),
        }
    }

    /// Writes `count` events to a stream of its own, each under the revision before it.
    pub(crate) async fn write_exactly(&self, store: &dyn EventStore, stream: &str, count: u64) {
        let stream = StreamName::new(stream).unwrap();
        for revision in 0..count {
            let expected = match revision.checked_sub(1) {
                None => ExpectedRevision::NoStream,
                Some(last) => ExpectedRevision::Exact(Revision::new(last)),
            };
            self.write(store, &stream, expected).await;
        }
    }

    /// Writes `count` events under any revision.
    pub(crate) async fn write_anyhow(&self, store: &dyn EventStore, stream: &str, count: u64) {
        let stream = StreamName::new(stream).unwrap();
        for _ in 0..count {
            self.write(store, &stream, ExpectedRevision::Any).await;
        }
    }

    /// Each acknowledged event is there once, where it was said to be; each unknown one at most once; nothing else is.
    pub(crate) fn check(&self, log: &[RecordedEvent]) {
        let mut found = HashMap::new();
        for event in log {
            let before = found.insert(event.id, event.position);
            assert_eq!(before, None, "event {} is there twice", event.id);
        }
        for (id, position) in self.acknowledged.lock().unwrap().iter() {
            assert_eq!(found.remove(id), Some(*position), "event {id}");
        }
        for id in self.unknown.lock().unwrap().iter() {
            found.remove(id);
        }
        assert!(found.is_empty(), "nobody wrote {found:?}");
    }
}

pub(crate) fn event() -> NewEvent {
    NewEvent::json(EventType::new("Noted").unwrap(), "{}")
}

/// All events of a read.
pub(crate) async fn all(store: &dyn EventStore, read: Read) -> Vec<RecordedEvent> {
    let batches: Vec<_> = store.read(read).try_collect().await.unwrap();
    batches.into_iter().flat_map(|batch| batch.events).collect()
}
