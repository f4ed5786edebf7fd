//! Course subscriptions: a rehearsal has so many places, and a singer takes part in so many rehearsals.
//!
//! Two rules about two different things in one decision, and neither a lock nor an aggregate that spans both.

use leftfold::{Boundary, Event, ExecuteError, Model, Store, testing::GivenEvents};
use serde::{Deserialize, Serialize};

const REHEARSALS_MAX: u32 = 5;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum ChoirEvent {
    #[event("RehearsalPlanned")]
    Planned {
        #[tag("rehearsal")]
        rehearsal: String,
        places: u32,
    },
    #[event("PlacesChanged")]
    PlacesChanged {
        #[tag("rehearsal")]
        rehearsal: String,
        places: u32,
    },
    #[event("PlaceTaken")]
    Taken {
        #[tag("rehearsal")]
        rehearsal: String,
        #[tag("singer")]
        singer: String,
    },
}
use ChoirEvent::{PlacesChanged, Planned, Taken};

/// A rehearsal: planned or not, its places, how many are taken.
#[derive(Clone)]
struct Rehearsal {
    id: String,
    places: Option<u32>,
    taken: u32,
}

impl Model for Rehearsal {
    type Event = ChoirEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("rehearsal", &self.id)
    }
    fn apply(&mut self, event: &ChoirEvent) {
        match event {
            Planned { places, .. } | PlacesChanged { places, .. } => self.places = Some(*places),
            Taken { .. } => self.taken += 1,
        }
    }
}

/// A singer: in how many rehearsals.
#[derive(Clone)]
struct Singer {
    id: String,
    rehearsals: u32,
}

impl Model for Singer {
    type Event = ChoirEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("singer", &self.id).of_types(["PlaceTaken"])
    }
    fn apply(&mut self, _: &ChoirEvent) {
        self.rehearsals += 1;
    }
}

/// Whether this singer is in this rehearsal.
#[derive(Clone)]
struct Place {
    rehearsal: String,
    singer: String,
    taken: bool,
}

impl Model for Place {
    type Event = ChoirEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("rehearsal", &self.rehearsal).and_tag("singer", &self.singer)
    }
    fn apply(&mut self, _: &ChoirEvent) {
        self.taken = true;
    }
}

#[derive(Debug, PartialEq)]
enum Refusal {
    NoSuchRehearsal,
    PlannedAlready,
    NothingChanges,
    Full,
    InItAlready,
    InTooMany,
}

fn rehearsal(id: &str) -> Rehearsal {
    Rehearsal {
        id: id.into(),
        places: None,
        taken: 0,
    }
}
fn models(id: &str, singer: &str) -> (Rehearsal, Singer, Place) {
    let who = Singer {
        id: singer.into(),
        rehearsals: 0,
    };
    let place = Place {
        rehearsal: id.into(),
        singer: singer.into(),
        taken: false,
    };
    (rehearsal(id), who, place)
}

fn plan(it: &Rehearsal, places: u32) -> Result<ChoirEvent, Refusal> {
    match it.places {
        Some(_) => Err(Refusal::PlannedAlready),
        None => Ok(planned(&it.id, places)),
    }
}

fn change_places(it: &Rehearsal, places: u32) -> Result<ChoirEvent, Refusal> {
    let rehearsal = it.id.clone();
    match it.places {
        None => Err(Refusal::NoSuchRehearsal),
        Some(now) if now == places => Err(Refusal::NothingChanges),
        Some(_) => Ok(PlacesChanged { rehearsal, places }),
    }
}

fn take((it, singer, place): &(Rehearsal, Singer, Place)) -> Result<ChoirEvent, Refusal> {
    let places = it.places.ok_or(Refusal::NoSuchRehearsal)?;
    if place.taken {
        return Err(Refusal::InItAlready);
    }
    if it.taken >= places {
        return Err(Refusal::Full);
    }
    if singer.rehearsals >= REHEARSALS_MAX {
        return Err(Refusal::InTooMany);
    }
    Ok(taken(&it.id, &singer.id))
}

fn planned(rehearsal: &str, places: u32) -> ChoirEvent {
    let rehearsal = rehearsal.into();
    Planned { rehearsal, places }
}
fn taken(rehearsal: &str, singer: &str) -> ChoirEvent {
    Taken {
        rehearsal: rehearsal.into(),
        singer: singer.into(),
    }
}

#[test]
fn a_rehearsal_is_planned_once() {
    GivenEvents::none()
        .when(rehearsal("mon"), |it| plan(it, 20))
        .then([planned("mon", 20)]);
    GivenEvents::of([planned("mon", 20)])
        .when(rehearsal("mon"), |it| plan(it, 20))
        .then_err(Refusal::PlannedAlready);
}

#[test]
fn places_change_only_where_there_are_some_and_to_another_number() {
    let change = |it: &Rehearsal| change_places(it, 12);
    GivenEvents::none()
        .when(rehearsal("mon"), change)
        .then_err(Refusal::NoSuchRehearsal);
    GivenEvents::of([planned("mon", 12)])
        .when(rehearsal("mon"), change)
        .then_err(Refusal::NothingChanges);
    GivenEvents::of([planned("mon", 20)])
        .when(rehearsal("mon"), change)
        .then([PlacesChanged {
            rehearsal: "mon".into(),
            places: 12,
        }]);
}

#[test]
fn a_place_is_taken_if_there_is_one_and_the_singer_may() {
    let full = [planned("mon", 2), taken("mon", "bea"), taken("mon", "cem")];
    let five = ["tue", "wed", "thu", "fri", "sat"];
    let busy = five
        .iter()
        .flat_map(|day| [planned(day, 9), taken(day, "ada")]);
    let ada = || models("mon", "ada");
    GivenEvents::none()
        .when(ada(), take)
        .then_err(Refusal::NoSuchRehearsal);
    GivenEvents::of(full.clone())
        .when(ada(), take)
        .then_err(Refusal::Full);
    GivenEvents::of(full)
        .when(models("mon", "bea"), take)
        .then_err(Refusal::InItAlready);
    GivenEvents::of(busy.chain([planned("mon", 9)]))
        .when(ada(), take)
        .then_err(Refusal::InTooMany);
    GivenEvents::of([planned("mon", 1), taken("tue", "bea")])
        .when(ada(), take)
        .then([taken("mon", "ada")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_forty_singers_at_once_as_many_get_a_place_as_there_are() {
    let store = Store::memory();
    store
        .decide(rehearsal("mon"), |it| plan(it, 7))
        .await
        .unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let decision = store.decision(models("mon", &format!("singer-{n}")));
            tokio::spawn(async move { decision.with_attempts(10_000).decide(take).await })
        })
        .collect();
    let mut placed = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => placed += 1,
            Err(ExecuteError::Rejected(refusal)) => assert_eq!(refusal, Refusal::Full),
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(placed, 7);
}
