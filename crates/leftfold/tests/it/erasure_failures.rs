//! Subjects whose keys cannot be destroyed at the first attempt.
//!
//! **Owns:** a store of keys that fails, and what a repeated call must do. **Does not know:** real stores of keys.
//! **Invariants:** each step that destroys a key fails once, before it was done and after.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use futures_util::{TryStreamExt, future::BoxFuture};
use leftfold::{
    Aggregate, Event, KeyError, KeyId, KeyStore, MemoryKeys, Personal, Snapshot, Store, Subject,
    SubjectKey,
    model::{Position, Read, StreamName},
};
use serde::{Deserialize, Serialize};

const NAME: &str = "Ann Q. Example-7341";

/// Keys in memory, one of whose destructions ends with an error.
#[derive(Debug, Clone)]
struct FailingKeys {
    keys: Arc<MemoryKeys>,
    /// How many destructions are left until the one that fails.
    left: Arc<AtomicU32>,
    /// Whether that one destroys its key all the same.
    is_done: bool,
}

impl KeyStore for FailingKeys {
    fn key<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<SubjectKey, KeyError>> {
        self.keys.key(subject)
    }

    fn existing<'a>(
        &'a self,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<SubjectKey>, KeyError>> {
        self.keys.existing(subject)
    }

    fn find<'a>(&'a self, ids: &'a [KeyId]) -> BoxFuture<'a, Result<Vec<SubjectKey>, KeyError>> {
        self.keys.find(ids)
    }

    fn destroy<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<(), KeyError>> {
        Box::pin(async move {
            let fails = self.left.fetch_sub(1, SeqCst) == 1;
            if !fails || self.is_done {
                self.keys.destroy(subject).await?;
            }
            let reason = "the disk is gone".to_owned();
            match fails {
                true => Err(KeyError::Unavailable { reason }),
                false => Ok(()),
            }
        })
    }
}

#[derive(Event, Serialize, Deserialize, Clone, Debug)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
    },
}

#[derive(Default, Serialize, Deserialize, Snapshot, Debug)]
#[snapshot(every = 100)]
struct Room {
    /// In clear, as a careless state has it.
    names: Vec<String>,
}

impl Aggregate for Room {
    const CATEGORY: &'static str = "room";
    type Event = RoomEvent;

    fn apply(&mut self, event: &RoomEvent) {
        let RoomEvent::Booked { name, .. } = event;
        self.names.extend(name.get().cloned());
    }
}

/// The position of the last event that tells of a forgotten guest.
async fn last_told(store: &Store) -> Option<Position> {
    let told = StreamName::new("forgotten-guest").unwrap();
    let read = Read::stream(told).backwards().limit(1);
    let told: Vec<_> = store.event_store().read(read).try_collect().await.unwrap();
    let mut told = told.into_iter().flat_map(|batch| batch.events);
    told.next().map(|event| event.position)
}

#[tokio::test]
async fn a_call_that_failed_is_repeated_to_its_end_whatever_it_had_destroyed() {
    for (nth, is_done) in (1..=3).flat_map(|nth| [(nth, false), (nth, true)]) {
        let keys = FailingKeys {
            keys: Arc::new(MemoryKeys::new()),
            left: Arc::new(AtomicU32::new(nth)),
            is_done,
        };
        let store = Store::memory().with_keys(keys.clone());
        let rooms = store.repository::<Room>().with_snapshots();
        let booked = RoomEvent::Booked {
            guest: "g1".into(),
            name: Personal::new(NAME.into()),
        };
        rooms.execute("101", |_| booked.clone()).await.unwrap();
        assert!(rooms.snapshot("101").await.unwrap());
        let mut failed = 0;
        while store.forget("guest", "g1").await.is_err() {
            failed += 1;
        }
        assert!(failed <= 1, "{nth} {is_done}");
        let loaded = rooms.load("101").await.unwrap();
        assert!(
            loaded.state().names.is_empty(),
            "{nth} {is_done}: {loaded:?}"
        );
        assert!(
            last_told(&store).await > Some(Position::new(2)),
            "{nth} {is_done}"
        );
        assert!(
            !store.forget("guest", "g1").await.unwrap(),
            "{nth} {is_done}"
        );
    }
}
