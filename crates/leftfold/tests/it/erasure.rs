//! Personal fields: sealed, read, forgotten.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use futures_util::TryStreamExt;
use leftfold::{
    Aggregate, ErasureEvent, Event, ExecuteError, FileKeys, HandlerError, KeyStore, MemoryKeys,
    MemoryTransaction, MemoryView, Personal, Projection, Recorded, Snapshot, Store, Subject,
    model::{
        Append, EventType, ExpectedRevision, NewEvent, Position, Read, RecordedEvent, StreamName,
    },
    stores::{EventStore, MemoryStore, ReadError},
    testing::Given,
};
use serde::{Deserialize, Serialize};

const NAME: &str = "Ann Q. Example-7341";

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum RoomEvent {
    #[event("RoomBooked")]
    Booked {
        #[tag("guest")]
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
        #[personal(subject = "guest", id = "payer")]
        card: Personal<Option<u64>>,
        payer: String,
        nights: u32,
    },
    #[event("RoomCleaned")]
    Cleaned,
}

#[derive(Default, Serialize, Deserialize, Snapshot, Debug, PartialEq)]
#[snapshot(every = 100)]
struct Room {
    /// In clear, as a careless state has it.
    names: Vec<String>,
    last: Option<Personal<String>>,
    nights: u32,
}

impl Aggregate for Room {
    const CATEGORY: &'static str = "room";
    type Event = RoomEvent;

    fn apply(&mut self, event: &RoomEvent) {
        if let RoomEvent::Booked { name, nights, .. } = event {
            self.names.extend(name.get().cloned());
            self.last = Some(name.clone());
            self.nights += nights;
        }
    }
}

fn booking(guest: &str, name: &str) -> RoomEvent {
    RoomEvent::Booked {
        guest: guest.into(),
        name: Personal::new(name.into()),
        card: Personal::new(Some(4_242)),
        payer: guest.into(),
        nights: 2,
    }
}

async fn book(store: &Store, room: &str, guest: &str, name: &str) -> Position {
    let rooms = store.repository::<Room>();
    let done = rooms.execute(room, |_| booking(guest, name)).await.unwrap();
    done.position.unwrap()
}

async fn names(store: &Store, room: &str) -> Vec<String> {
    let room = store.repository::<Room>().load(room).await.unwrap();
    room.into_state().names
}

/// What the store below holds.
async fn stored(store: &dyn EventStore) -> Vec<RecordedEvent> {
    let batches: Vec<_> = store.read(Read::all()).try_collect().await.unwrap();
    batches.into_iter().flat_map(|batch| batch.events).collect()
}

/// The files below a directory that hold these bytes.
fn files_with(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if fs::read(&path)
            .unwrap()
            .windows(bytes.len())
            .any(|part| part == bytes)
        {
            found.push(path.display().to_string());
        }
    }
    found
}

/// Who has stayed, in clear: a view of an application.
#[derive(Event, Serialize, Deserialize, Debug)]
#[event(unknown = "skip")]
enum Stay {
    #[event("RoomBooked")]
    Booked {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
    },
    #[event("SubjectForgotten")]
    Forgotten { subject: String, id: String },
}

struct Guests;

impl Projection for Guests {
    type Event = Stay;
    type View = MemoryView<BTreeMap<String, String>>;
    const NAME: &'static str = "guests";
    const VERSION: u32 = 1;

    async fn project(
        &self,
        guests: &mut MemoryTransaction<BTreeMap<String, String>>,
        event: &Recorded<Stay>,
    ) -> Result<(), HandlerError> {
        match &event.event {
            Stay::Booked { guest, name } => {
                if let Some(name) = name.get() {
                    guests.insert(guest.clone(), name.clone());
                }
            }
            Stay::Forgotten { id, .. } => {
                guests.remove(id);
            }
        }
        Ok(())
    }
}

async fn names_are_read_from_the_snapshot(store: &Store) {
    assert_eq!(names(store, "101").await, [NAME, "Bob"]);
    let rooms = store.repository::<Room>().with_snapshots();
    let loaded = rooms.load("101").await.unwrap();
    let state = loaded.state();
    assert_eq!((state.names.len(), loaded.events_replayed()), (2, 0));
    assert_eq!(state.last.as_ref().unwrap().get().unwrap(), "Bob");
}

async fn the_other_guest_is_left(store: &Store) {
    let rooms = store.repository::<Room>().with_snapshots();
    assert_eq!(names(store, "101").await, ["Bob"]);
    assert_eq!(names(store, "102").await, [""; 0]);
    let loaded = rooms.load("101").await.unwrap();
    assert_eq!(
        (&loaded.state().names[..], loaded.state().nights),
        (&["Bob".to_owned()][..], 4)
    );
    assert_eq!(
        loaded.events_replayed(),
        2,
        "the snapshot is of no use any more"
    );
    let last = rooms.load("102").await.unwrap().into_state().last.unwrap();
    assert!(last.is_forgotten() && format!("{last:?}") == "Forgotten");
}

#[tokio::test]
async fn no_byte_of_a_forgotten_subject_is_in_log_snapshots_views_or_keys() {
    let (log, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = FileKeys::open(keys.path().join("keys")).await.unwrap();
    let store = Store::open(log.path())
        .await
        .unwrap()
        .with_keys(file.clone());
    for (room, guest, name) in [
        ("101", "g1", NAME),
        ("101", "g2", "Bob"),
        ("102", "g1", NAME),
    ] {
        book(&store, room, guest, name).await;
    }
    let rooms = store.repository::<Room>().with_snapshots();
    assert!(rooms.snapshot("101").await.unwrap());
    names_are_read_from_the_snapshot(&store).await;

    let view = MemoryView::<BTreeMap<String, String>>::new();
    let guests = store.project(Guests, view.clone()).spawn();
    guests.ready().await.unwrap();
    assert_eq!(view.read(|guests| guests["g1"].clone()), NAME);

    let subject = |id: &str| Subject {
        tenant: String::new(),
        kind: "guest".into(),
        id: id.into(),
    };
    let secret = file.existing(&subject("g1")).await.unwrap().unwrap().secret;
    let other = file.existing(&subject("g2")).await.unwrap().unwrap().secret;
    assert_eq!(
        files_with(keys.path(), &secret).len(),
        1,
        "the key is in its file"
    );
    assert!(
        !files_with(log.path(), b"$sealed").is_empty(),
        "what is sealed is in the log"
    );
    assert!(
        files_with(log.path(), NAME.as_bytes()).is_empty(),
        "never in clear"
    );

    assert!(store.forget("guest", "g1").await.unwrap());
    assert!(
        !store.forget("guest", "g1").await.unwrap(),
        "there is nothing left"
    );

    let head = store.event_store().head().await.unwrap();
    guests
        .wait_for(head, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(
        view.read(|guests| guests.keys().cloned().collect::<Vec<_>>()),
        ["g2"]
    );
    the_other_guest_is_left(&store).await;

    assert!(rooms.snapshot("101").await.unwrap());
    guests.stop().await.unwrap();
    store.close().await.unwrap();
    drop((rooms, store));
    assert!(files_with(log.path(), NAME.as_bytes()).is_empty());
    assert!(
        files_with(keys.path(), &secret).is_empty(),
        "no copy of the key is left"
    );
    assert_eq!(files_with(keys.path(), &other).len(), 1);
    // Opened again, the rest is there.
    drop(file);
    let keys = FileKeys::open(keys.path().join("keys")).await.unwrap();
    let store = Store::open(log.path()).await.unwrap().with_keys(keys);
    assert_eq!(names(&store, "101").await, ["Bob"]);
}

#[tokio::test]
async fn a_projection_that_is_built_again_never_sees_what_was_forgotten() {
    let store = Store::memory().with_keys(MemoryKeys::new());
    for nth in 0..50 {
        book(&store, &format!("r{nth}"), "g1", NAME).await;
    }
    let view = MemoryView::<BTreeMap<String, String>>::new();
    let guests = store.project(Guests, view.clone()).spawn();
    // While it is built.
    assert!(store.forget("guest", "g1").await.unwrap());
    let head = store.event_store().head().await.unwrap();
    guests
        .wait_for(head, Duration::from_secs(20))
        .await
        .unwrap();
    assert!(view.read(|guests| guests.is_empty()));
    guests.stop().await.unwrap();
    let again = MemoryView::<BTreeMap<String, String>>::new();
    let guests = store.project(Guests, again.clone()).spawn();
    guests.ready().await.unwrap();
    assert!(again.read(|guests| guests.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_taken_while_a_subject_is_forgotten_holds_nothing_of_it() {
    for _ in 0..20 {
        let store = Store::memory().with_keys(MemoryKeys::new());
        book(&store, "101", "g1", NAME).await;
        let rooms = store.repository::<Room>().with_snapshots();
        let taking = {
            let rooms = rooms.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    rooms.snapshot("101").await.unwrap();
                    tokio::task::yield_now().await;
                }
            })
        };
        tokio::task::yield_now().await;
        store.forget("guest", "g1").await.unwrap();
        let loaded = rooms.load("101").await.unwrap();
        assert!(loaded.state().names.is_empty(), "{loaded:?}");
        taking.await.unwrap();
        let loaded = rooms.load("101").await.unwrap();
        assert!(loaded.state().names.is_empty(), "{loaded:?}");
    }
}

#[tokio::test]
async fn a_store_without_keys_refuses_personal_events_and_reads_them_sealed() {
    let below = Arc::new(MemoryStore::new());
    let plain = Store::from(below as Arc<dyn EventStore>);
    let refused = plain
        .repository::<Room>()
        .execute("101", |_| booking("g1", NAME))
        .await;
    let Err(ExecuteError::Encode(error)) = refused else {
        panic!("{refused:?}")
    };
    assert!(error.to_string().contains("Store::with_keys"), "{error}");
    assert!(stored(plain.event_store().as_ref()).await.is_empty());
    assert!(plain.forget("guest", "g1").await.is_err());

    let store = plain.clone().with_keys(MemoryKeys::new());
    book(&store, "101", "g1", NAME).await;
    let room = plain.repository::<Room>().with_snapshots();
    assert!(
        !room.snapshot("101").await.unwrap(),
        "its state cannot be sealed"
    );
    let last = room.load("101").await.unwrap().into_state().last.unwrap();
    assert!(last.is_sealed() && last.get().is_none() && !last.is_forgotten());
    let text =
        String::from_utf8(stored(plain.event_store().as_ref()).await[0].data.to_vec()).unwrap();
    assert!(
        text.starts_with(r#"{"guest":"g1","name":{"$sealed":"2:guest:guest:"#),
        "{text}"
    );
    assert!(text.ends_with(r#""payer":"g1","nights":2}"#), "{text}");
}

#[tokio::test]
async fn a_sealed_value_opens_in_its_own_event_field_and_subject_alone() {
    let below = Arc::new(MemoryStore::new());
    let plain = Store::from(below as Arc<dyn EventStore>);
    let store = plain.clone().with_keys(MemoryKeys::new());
    book(&store, "101", "g1", NAME).await;
    book(&store, "102", "g2", "Bob").await;
    let events = stored(plain.event_store().as_ref()).await;
    let data = |nth: usize| String::from_utf8(events[nth].data.to_vec()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&data(0)).unwrap();
    let swapped = data(0)
        .replace(&value["name"].to_string(), "\u{1}")
        .replace(&value["card"].to_string(), &value["name"].to_string())
        .replace('\u{1}', &value["card"].to_string());
    let sealed = value["name"]["$sealed"].as_str().unwrap();
    let mut changed = sealed.to_owned();
    changed.replace_range(60..61, if &sealed[60..61] == "A" { "B" } else { "A" });
    for (nth, (event_type, data)) in [
        (
            "RoomBooked",
            data(0).replace(r#""guest":"g1""#, r#""guest":"g2""#),
        ),
        ("RoomSold", data(0)),
        ("RoomBooked", swapped),
        ("RoomBooked", data(0).replace(sealed, &changed)),
    ]
    .into_iter()
    .enumerate()
    {
        let event = NewEvent::json(EventType::new(event_type).unwrap(), data);
        let stream = StreamName::new(format!("forged-{nth}")).unwrap();
        let append = Append::to(stream.clone(), ExpectedRevision::Any, vec![event]).unwrap();
        plain.event_store().append(append).await.unwrap();
        let read: Result<Vec<_>, _> = store
            .event_store()
            .read(Read::stream(stream))
            .try_collect()
            .await;
        assert!(
            matches!(read, Err(ReadError::Corrupt { .. })),
            "{nth}: {read:?}"
        );
    }
}

#[tokio::test]
async fn equal_values_are_sealed_differently_each_time() {
    let below = Arc::new(MemoryStore::new());
    let plain = Store::from(below as Arc<dyn EventStore>);
    let store = plain.clone().with_keys(MemoryKeys::new());
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        book(&store, "101", "g1", NAME).await;
    }
    for event in stored(plain.event_store().as_ref()).await {
        let value: serde_json::Value = serde_json::from_slice(&event.data).unwrap();
        for field in ["name", "card"] {
            // The nonce is what stands behind the name of the key.
            let text = value[field]["$sealed"].as_str().unwrap();
            assert!(seen.insert(text.split(':').nth(3).unwrap()[22..54].to_owned()));
        }
    }
    assert_eq!(seen.len(), 200);
}

#[tokio::test]
async fn a_personal_value_that_is_none_is_sealed_and_read_as_none() {
    let below = Arc::new(MemoryStore::new());
    let plain = Store::from(below as Arc<dyn EventStore>);
    let store = plain.clone().with_keys(MemoryKeys::new());
    let booked = RoomEvent::Booked {
        guest: "g1".into(),
        name: Personal::new(NAME.into()),
        card: Personal::new(None),
        payer: "g1".into(),
        nights: 1,
    };
    let rooms = store.repository::<Room>();
    rooms.execute("101", |_| booked.clone()).await.unwrap();
    let text = stored(plain.event_store().as_ref()).await[0].data.clone();
    assert!(
        !String::from_utf8_lossy(&text).contains(":null"),
        "{text:?}"
    );
    let read = store.events::<RoomEvent>().collect().await.unwrap();
    assert_eq!(read[0].event, booked);
}

#[tokio::test]
async fn tenants_have_keys_of_their_own() {
    let store = Store::memory().with_keys(MemoryKeys::new());
    let (acme, other) = (
        store.tenant("acme").unwrap(),
        store.tenant("other").unwrap(),
    );
    for tenant in [&acme, &other] {
        book(tenant, "101", "g1", NAME).await;
        assert_eq!(names(tenant, "101").await, [NAME]);
    }
    assert!(acme.forget("guest", "g1").await.unwrap());
    assert!(names(&acme, "101").await.is_empty());
    assert_eq!(names(&other, "101").await, [NAME]);
    assert!(!store.forget("guest", "g1").await.unwrap());
}

#[tokio::test]
async fn a_pseudonym_stands_for_a_name_until_it_is_forgotten() {
    let store = Store::memory().with_keys(MemoryKeys::new());
    let ann = store.pseudonym("guest", "ann@example.org").await.unwrap();
    assert_eq!(
        store.pseudonym("guest", "ann@example.org").await.unwrap(),
        ann
    );
    assert_ne!(
        store.pseudonym("guest", "bob@example.org").await.unwrap(),
        ann
    );
    assert_eq!(ann.len(), 32);
    book(&store, "101", &ann, NAME).await;
    assert!(store.forget("guest", "ann@example.org").await.unwrap());
    assert!(names(&store, "101").await.is_empty());
    let erasures = store.events::<ErasureEvent>().collect().await.unwrap();
    let ErasureEvent::SubjectForgotten { subject, id } = &erasures.last().unwrap().event;
    assert_eq!((subject.as_str(), id), ("guest", &ann));
    for event in stored(store.event_store().as_ref()).await {
        let text = String::from_utf8_lossy(&event.data);
        assert!(!text.contains("ann@example"), "{text}");
    }
    assert_ne!(
        store.pseudonym("guest", "ann@example.org").await.unwrap(),
        ann
    );
}

#[tokio::test]
async fn a_prepared_append_is_sealed() {
    let store = Store::memory().with_keys(MemoryKeys::new());
    let acme = store.tenant("acme").unwrap();
    for store in [&store, &acme] {
        let append = store
            .repository::<Room>()
            .prepare("101", |_| booking("g1", NAME))
            .await;
        let append = append.unwrap().unwrap();
        let text = String::from_utf8(append.events().next().unwrap().data().to_vec()).unwrap();
        assert!(text.contains("$sealed") && !text.contains("Ann"), "{text}");
    }
}

#[derive(Event, Serialize, Deserialize, Debug)]
enum Careless {
    #[event("Nested")]
    Nested {
        guest: String,
        #[personal(subject = "guest")]
        name: Personal<String>,
        others: Vec<Personal<String>>,
    },
}

#[derive(Default)]
struct Slip;

impl Aggregate for Slip {
    const CATEGORY: &'static str = "slip";
    type Event = Careless;

    fn apply(&mut self, _: &Careless) {}
}

#[derive(Event, Serialize, Deserialize, Debug)]
enum Unmarked {
    #[event("Unmarked")]
    Unmarked { others: Vec<Personal<String>> },
}

#[tokio::test]
async fn a_personal_value_where_it_is_not_sealed_is_refused() {
    let store = Store::memory().with_keys(MemoryKeys::new());
    let slips = store.repository::<Slip>();
    let refused = slips.execute("1", |_| Careless::Nested {
        guest: "g1".into(),
        name: Personal::new("a".into()),
        others: vec![Personal::new("b".into())],
    });
    let refused = format!("{:?}", refused.await.unwrap_err());
    assert!(refused.contains("not marked"), "{refused}");
    assert!(serde_json::to_string(&Personal::new(NAME)).is_err());
    assert!(!format!("{:?}", booking("g1", NAME)).contains("Ann"));
    let unmarked = Unmarked::Unmarked {
        others: vec![Personal::new("b".into())],
    };
    assert!(unmarked.encode().is_err());
    assert!(booking("g1", NAME).encode().is_err());
    assert!(stored(store.event_store().as_ref()).await.is_empty());
}

#[test]
fn fixtures_and_the_lock_file_know_personal_fields() {
    Given::<Room>::events([booking("g1", NAME)])
        .when(|room| {
            assert_eq!(room.names, [NAME]);
            RoomEvent::Cleaned
        })
        .then([RoomEvent::Cleaned]);
    let shape = RoomEvent::shape(0);
    assert!(
        shape.contains("#[personal(subject=\"guest\")]")
            || shape.contains("personal(subject=\"guest\")"),
        "{shape}"
    );
    assert!(shape.contains("Personal<String>"), "{shape}");
}

#[tokio::test]
async fn a_file_that_holds_no_keys_or_is_open_elsewhere_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("keys"),
        b"this is no file of keys, whatever it is",
    )
    .unwrap();
    let refused = FileKeys::open(directory.path().join("keys"))
        .await
        .unwrap_err();
    assert!(
        refused.to_string().contains("keys are unavailable"),
        "{refused}"
    );
    let path = directory.path().join("other");
    let first = FileKeys::open(&path).await.unwrap();
    assert!(
        FileKeys::open(&path).await.is_err(),
        "one process, one value"
    );
    drop(first);
    assert!(FileKeys::open(&path).await.is_ok());
}
