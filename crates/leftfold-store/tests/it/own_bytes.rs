//! What stores keep of the memory that events came in.
//!
//! **Owns:** these tests. **Does not know:** who makes such events: servers do, whose messages share their memory with the
//! events within them.

use std::sync::{Arc, Weak};

use leftfold_model::{Append, Bytes, EventType, ExpectedRevision::Any, NewEvent, StreamName};
use leftfold_store::{EmbeddedStore, EventStore, LogOptions, MemoryStore};

/// A message, which is alive as long as anything holds a part of it.
struct Message(Arc<[u8]>);

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Appends an event whose data and metadata are parts of a message, and returns the message.
async fn append_part_of_message(store: &dyn EventStore) -> Weak<[u8]> {
    let message: Arc<[u8]> = b"[1]{\"by\":\"ann\"} and what no contract has"
        .as_slice()
        .into();
    let held = Arc::downgrade(&message);
    let bytes = Bytes::from_owner(Message(message));
    let event = NewEvent::json(EventType::new("Noted").unwrap(), bytes.slice(..3));
    let event = event.with_metadata(bytes.slice(3..15));
    let append = Append::to(StreamName::new("a").unwrap(), Any, vec![event]);
    store.append(append.unwrap()).await.unwrap();
    held
}

#[tokio::test]
async fn events_keep_no_more_than_their_own_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(directory.path(), LogOptions::default()).await;
    let stores: [&dyn EventStore; 2] = [&MemoryStore::new(), &embedded.unwrap()];
    for (nth, store) in stores.into_iter().enumerate() {
        let held = append_part_of_message(store).await;
        assert!(held.upgrade().is_none(), "by store {nth}");
    }
}
