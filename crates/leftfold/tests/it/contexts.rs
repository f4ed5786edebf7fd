//! States that depend on what is stored beside their events.
//!
//! **Owns:** the tests of `EventContext`. **Does not know:** how events are loaded.
//! **Invariants:** the clock is the test's: the nth event is recorded at second n.

use futures_util::TryStreamExt;
use leftfold::{
    Aggregate, Boundary, Created, Event, EventContext, Metadata, Model, Store, Upcasters,
    model::{
        Append, EventType, ExpectedRevision, NewEvent, Position, Revision, StreamName, Timestamp,
    },
    testing::{self, Given, TestClock},
};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Debug, PartialEq, Clone)]
enum DoorEvent {
    #[event("DoorOpened")]
    Opened {
        #[tag("door")]
        door: String,
    },
}

fn opened() -> DoorEvent {
    DoorEvent::Opened {
        door: "front".into(),
    }
}

/// What an event tells beside itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Seen {
    second: u64,
    actor: Option<String>,
    revision: u64,
    position: u64,
    stream: String,
    tags: usize,
}

impl Seen {
    fn of(context: &EventContext<'_>) -> Self {
        Self {
            second: context.time().as_micros() / 1_000_000,
            ..Self::without_time(context)
        }
    }

    fn without_time(context: &EventContext<'_>) -> Self {
        Self {
            second: 0,
            actor: context.metadata().actor,
            revision: context.revision().get(),
            position: context.position().get(),
            stream: context.stream().to_string(),
            tags: context.tags().len(),
        }
    }
}

#[derive(Default, Debug, Clone, PartialEq, Serialize)]
struct Door {
    seen: Vec<Seen>,
}

impl Aggregate for Door {
    const CATEGORY: &'static str = "door";
    type Event = DoorEvent;

    fn apply(&mut self, _: &DoorEvent) {
        unreachable!("the override is called in its stead");
    }

    fn apply_with_context(&mut self, _: &DoorEvent, context: &EventContext<'_>) {
        self.seen.push(Seen::of(context));
    }
}

/// Does not depend on times, so its state is kept between commands.
#[derive(Default, Debug, Clone, PartialEq)]
struct Window {
    seen: Vec<Seen>,
}

impl Aggregate for Window {
    const CATEGORY: &'static str = "window";
    type Event = DoorEvent;

    fn apply(&mut self, _: &DoorEvent) {}

    fn apply_with_context(&mut self, _: &DoorEvent, context: &EventContext<'_>) {
        self.seen.push(Seen::without_time(context));
    }
}

fn store() -> Store {
    testing::store(&TestClock::from(Timestamp::from_micros(1_000_000)))
}

#[tokio::test]
async fn a_state_sees_times_metadata_and_places_however_it_is_loaded() {
    let store = store();
    let doors = store.repository::<Door>();
    let ann = doors.with_metadata(Metadata::new().actor("ann"));
    ann.execute("1", |_| vec![opened(), opened()])
        .await
        .unwrap();
    doors.execute("1", |_| opened()).await.unwrap();
    let loaded = doors.load("1").await.unwrap().into_state();
    let actors: Vec<_> = loaded.seen.iter().map(|seen| seen.actor.clone()).collect();
    let ann = Some("ann".to_owned());
    assert_eq!(actors, [ann.clone(), ann, None]);
    let places: Vec<_> = loaded
        .seen
        .iter()
        .map(|seen| (seen.revision, seen.position, seen.tags))
        .collect();
    assert_eq!(places, [(0, 1, 1), (1, 2, 1), (2, 3, 1)]);
    assert!(loaded.seen.iter().all(|seen| seen.stream == "door-1"));
    assert_eq!(
        loaded.seen[0].second, loaded.seen[1].second,
        "one append has one time"
    );
    assert!(loaded.seen[1].second < loaded.seen[2].second);
    let then = doors.load_at("1", Revision::new(1)).await.unwrap();
    assert_eq!(then.state().seen, loaded.seen[..2]);
    let steps: Vec<_> = doors.history("1").try_collect().await.unwrap();
    assert_eq!(
        steps[2].after,
        serde_json::to_value(&loaded).unwrap(),
        "history folds alike"
    );
}

#[tokio::test]
async fn a_kept_state_that_depends_on_times_is_what_a_load_gives() {
    let store = store();
    let doors = store.repository::<Door>();
    let kept = doors.with_state_cache(8);
    for nth in 0..4 {
        let before = doors.load("1").await.unwrap().into_state();
        let mut decided_on = Vec::new();
        let decide = |door: &Door| {
            decided_on.push(door.clone());
            opened()
        };
        kept.execute("1", decide).await.unwrap();
        assert_eq!(decided_on, [before], "command {nth}");
    }
    let windows = store.repository::<Window>();
    let kept = windows.with_state_cache(8);
    for nth in 0..4 {
        let before = windows.load("1").await.unwrap().into_state();
        let mut decided_on = Vec::new();
        let decide = |window: &Window| {
            decided_on.push(window.clone());
            vec![opened(), opened()]
        };
        kept.execute("1", decide).await.unwrap();
        assert_eq!(decided_on, [before], "command {nth}");
    }
}

/// Which door was opened last, and when.
#[derive(Debug, Clone, PartialEq)]
struct LastOpened {
    at: Option<Timestamp>,
}

impl Model for LastOpened {
    type Event = DoorEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("door", "front")
    }

    fn apply(&mut self, _: &DoorEvent) {}

    fn apply_with_context(&mut self, _: &DoorEvent, context: &EventContext<'_>) {
        self.at = Some(context.time());
    }
}

#[tokio::test]
async fn a_model_and_a_created_state_see_times_too() {
    let store = store();
    store
        .repository::<Window>()
        .execute("1", |_| opened())
        .await
        .unwrap();
    let recorded = store.events::<DoorEvent>().collect().await.unwrap();
    let mut seen = None;
    let decide = |model: &LastOpened| {
        seen = model.at;
        opened()
    };
    store
        .decision(LastOpened { at: None })
        .decide(decide)
        .await
        .unwrap();
    assert_eq!(seen, Some(recorded[0].time));

    struct Gate {
        built: Timestamp,
        opened: u32,
    }
    impl Created for Gate {
        const CATEGORY: &'static str = "gate";
        type Event = DoorEvent;
        fn create(_: &DoorEvent) -> Option<Self> {
            None
        }
        fn create_with_context(_: &DoorEvent, context: &EventContext<'_>) -> Option<Self> {
            Some(Self {
                built: context.time(),
                opened: 0,
            })
        }
        fn apply(&mut self, _: &DoorEvent) {
            self.opened += 1;
        }
    }
    let gates = store.repository::<Option<Gate>>();
    gates.create("1", opened).await.unwrap();
    gates.execute("1", |_| opened()).await.unwrap();
    let gate = gates.load("1").await.unwrap().into_state().unwrap();
    let events = store.events::<DoorEvent>().collect().await.unwrap();
    assert_eq!((gate.built, gate.opened), (events[2].time, 1));
}

#[test]
fn a_fixture_gives_events_times_and_metadata() {
    let at = |second: u64| Timestamp::from_micros(second * 1_000_000);
    let seen = |second: u64, actor: Option<&str>, revision: u64| Seen {
        second,
        actor: actor.map(str::to_owned),
        revision,
        position: revision + 1,
        stream: "default".to_owned(),
        tags: 1,
    };
    Given::<Door>::nothing()
        .at(at(7))
        .and([opened()])
        .at(at(9))
        .with_metadata(Metadata::new().actor("ann"))
        .and([opened()])
        .then_state(Door {
            seen: vec![seen(7, None, 0), seen(9, Some("ann"), 1)],
        });
}

#[derive(Event, Serialize, Deserialize, Debug, PartialEq)]
#[event(upcast = history)]
enum Dated {
    #[event("DoorDated", version = 2)]
    Dated {
        second: u64,
        by: Option<String>,
        at: u64,
    },
}

fn history() -> Upcasters {
    Upcasters::new().change_with_context("DoorDated", 1, |data, context| {
        data["second"] = (context.time().as_micros() / 1_000_000).into();
        data["by"] = context.metadata().actor.into();
        data["at"] = context.position().get().into();
    })
}

#[tokio::test]
async fn an_upcaster_fills_in_what_is_stored_beside_the_old_event() {
    let store = store();
    let old = NewEvent::json(EventType::new("DoorDated").unwrap(), "{}")
        .with_metadata(r#"{"$actor":"ann"}"#);
    let stream = StreamName::new("door-1").unwrap();
    let append = Append::to(stream, ExpectedRevision::Any, vec![old]).unwrap();
    store.event_store().append(append).await.unwrap();
    let read = store.events::<Dated>().collect().await.unwrap().remove(0);
    let expected = Dated::Dated {
        second: read.time.as_micros() / 1_000_000,
        by: Some("ann".to_owned()),
        at: Position::FIRST.get(),
    };
    assert_eq!(read.event, expected);
}
