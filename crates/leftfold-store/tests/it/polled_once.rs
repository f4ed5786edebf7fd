//! Futures that are polled once and then left alone.
//!
//! **Owns:** the proof that such a future keeps no other call of its task waiting. **Does not know:** how the store
//! remembers what it looked up.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use leftfold_model::{Append, EventType, ExpectedRevision::Any, NewEvent, StreamName};
use leftfold_store::{Delete, EmbeddedStore, EventStore, LogOptions};

/// Far longer than any call takes; a call that waits for the one left alone waits forever.
const HANG: Duration = Duration::from_secs(60);

fn append(stream: &str) -> Append {
    let event = NewEvent::json(EventType::new("Noted").unwrap(), "{}");
    Append::to(StreamName::new(stream).unwrap(), Any, vec![event]).unwrap()
}

#[tokio::test]
async fn an_append_that_is_polled_once_and_left_keeps_no_other_call_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), LogOptions::default())
        .await
        .unwrap();
    let mut left = pin!(store.append(append("left")));
    let first = poll_fn(|context| Poll::Ready(left.as_mut().poll(context))).await;
    assert!(first.is_pending(), "the append was done at its first poll");

    let others = async {
        store.append(append("other")).await.unwrap();
        let other = StreamName::new("other").unwrap();
        store.stream_state(other.clone()).await.unwrap();
        store.delete(Delete::stream(other, Any)).await.unwrap();
    };
    tokio::time::timeout(HANG, others)
        .await
        .expect("a call waited for the append that was left alone");
    left.await.unwrap();
}
