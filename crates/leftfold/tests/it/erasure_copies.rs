//! Subjects that are forgotten while copies of the log are made.
//!
//! **Owns:** what an exact copy, an export through a store with keys, and a copy of the keys give afterwards.
//! **Does not know:** programs that make backups; they read as these tests do.
//! **Invariants:** the subject is forgotten in the middle of each copy, and not by luck.

use std::{fs, path::Path, sync::Arc};

use futures_util::TryStreamExt;
use leftfold::{
    Aggregate, Event, FileKeys, Personal, Recorded, Store,
    model::{Position, Read},
    stores::{Backend, restore::LogRestore},
};
use serde::{Deserialize, Serialize};

const NAME: &str = "Ann Q. Example-7341";
const EVENTS: usize = 3_000;

#[derive(Event, Serialize, Deserialize, Debug)]
enum StayEvent {
    #[event("GuestStayed")]
    Stayed {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
    },
}

#[derive(Default)]
struct Stay;

impl Aggregate for Stay {
    const CATEGORY: &'static str = "stay";
    type Event = StayEvent;

    fn apply(&mut self, _: &StayEvent) {}
}

fn stayed(guest: &str, name: &str) -> StayEvent {
    StayEvent::Stayed {
        guest: guest.to_owned(),
        name: Personal::new(name.to_owned()),
    }
}

/// A log of stays, of two guests in turn.
async fn filled(log: &Path, keys: FileKeys) -> Store {
    let store = Store::open(log).await.unwrap().with_keys(keys);
    let stay = |nth: usize| match nth % 2 {
        0 => stayed("g1", NAME),
        _ => stayed("g2", "Bob"),
    };
    let stays = store.repository::<Stay>();
    let all = |_: &Stay| (0..EVENTS).map(stay).collect::<Vec<_>>();
    stays.execute("1", all).await.unwrap();
    store
}

/// Copies a log entry by entry, and forgets the guest `g1` when half of it is copied.
async fn copy_while_forgetting(store: &Store, to: Arc<dyn Backend>) {
    let mut restore = LogRestore::begin(to).await.unwrap();
    let from = store.event_store().storage().unwrap();
    let mut entries = from.entries(Position::START);
    let mut copied = 0;
    while let Some(batch) = entries.try_next().await.unwrap() {
        for entry in batch {
            restore.push(entry).await.unwrap();
            copied += 1;
            if copied == EVENTS / 2 {
                assert!(store.forget("guest", "g1").await.unwrap());
            }
        }
    }
    restore.finish().await.unwrap();
    assert!(copied >= EVENTS, "{copied}");
}

/// How many events have the name in clear, sealed or forgotten, of the guest `g1` alone.
fn states(events: &[Recorded<StayEvent>]) -> [usize; 3] {
    let of_ann = events.iter().filter_map(|event| {
        let StayEvent::Stayed { guest, name } = &event.event;
        (guest == "g1").then_some(name)
    });
    let mut states = [0; 3];
    for name in of_ann {
        match name.get() {
            Some(known) => {
                assert_eq!(known, NAME);
                states[0] += 1;
            }
            None if name.is_sealed() => states[1] += 1,
            None => states[2] += 1,
        }
    }
    states
}

fn holds(directory: &Path, bytes: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => holds(&path, bytes),
            false => fs::read(&path)
                .unwrap()
                .windows(bytes.len())
                .any(|part| part == bytes),
        }
    })
}

#[tokio::test]
async fn a_backup_that_runs_while_a_subject_is_forgotten_holds_no_value_that_opens() {
    let (place, half) = (tempfile::tempdir().unwrap(), EVENTS / 2);
    let at = |name: &str| place.path().join(name);
    let keys = FileKeys::open(at("keys")).await.unwrap();
    let store = filled(&at("log"), keys.clone()).await;
    let copy = Store::open(at("copy")).await.unwrap();
    copy_while_forgetting(&store, copy.event_store().storage().unwrap()).await;

    let events = copy.events::<StayEvent>().collect().await.unwrap();
    assert_eq!(states(&events), [0, half, 0], "without keys");
    let opened = copy.clone().with_keys(keys);
    let events = opened.events::<StayEvent>().collect().await.unwrap();
    assert_eq!(states(&events), [0, 0, half], "with the keys that are left");
    let of_bob = |event: &&Recorded<StayEvent>| {
        let StayEvent::Stayed { guest, name } = &event.event;
        guest == "g2" && name.get().map(String::as_str) == Some("Bob")
    };
    assert_eq!(events.iter().filter(of_bob).count(), half);
    copy.close().await.unwrap();
    store.close().await.unwrap();
    assert!(!holds(&at("copy"), NAME.as_bytes()) && !holds(&at("log"), NAME.as_bytes()));
    assert!(holds(&at("copy"), b"$sealed"));
}

#[tokio::test]
async fn a_backup_of_keys_from_before_opens_what_was_forgotten() {
    let (place, half) = (tempfile::tempdir().unwrap(), EVENTS / 2);
    let at = |name: &str| place.path().join(name);
    let keys = FileKeys::open(at("keys")).await.unwrap();
    let store = filled(&at("log"), keys).await;
    fs::copy(at("keys"), at("keys-before")).unwrap();
    assert!(store.forget("guest", "g1").await.unwrap());
    fs::copy(at("keys"), at("keys-after")).unwrap();
    for (name, expected) in [("keys-before", [half, 0, 0]), ("keys-after", [0, 0, half])] {
        let keys = FileKeys::open(at(name)).await.unwrap();
        let restored = store.clone().with_keys(keys);
        let events = restored.events::<StayEvent>().collect().await.unwrap();
        assert_eq!(states(&events), expected, "{name}");
    }
    store.close().await.unwrap();
}

#[tokio::test]
async fn an_export_through_a_store_with_keys_has_in_clear_only_what_it_read_before() {
    let place = tempfile::tempdir().unwrap();
    let keys = FileKeys::open(place.path().join("keys")).await.unwrap();
    let store = filled(&place.path().join("log"), keys).await;
    let mut batches = store.event_store().read(Read::all());
    let mut before = 0;
    let mut exported = Vec::new();
    while let Some(batch) = batches.try_next().await.unwrap() {
        exported.extend(batch.events);
        if before == 0 {
            before = exported.len();
            assert!(store.forget("guest", "g1").await.unwrap());
        }
    }
    assert!(
        before > 0 && before < exported.len(),
        "{before} of {}",
        exported.len()
    );
    for (nth, event) in exported.iter().enumerate() {
        let text = String::from_utf8_lossy(&event.data);
        let is_of_ann = text.contains("\"g1\"");
        assert_eq!(
            text.contains(NAME),
            is_of_ann && nth < before,
            "{nth}: {text}"
        );
        assert_eq!(
            text.contains("$forgotten"),
            is_of_ann && nth >= before,
            "{nth}: {text}"
        );
    }
    store.close().await.unwrap();
}
