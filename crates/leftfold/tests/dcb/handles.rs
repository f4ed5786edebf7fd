//! Unique user names: a handle belongs to one person, and becomes free some days after it was given up.

use leftfold::{Boundary, Event, Model, Store, testing::GivenEvents};
use serde::{Deserialize, Serialize};

/// For how many days a handle that was given up is kept from others.
const KEPT_DAYS: u32 = 3;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum HandleEvent {
    #[event("HandleChosen")]
    Chosen {
        #[tag("handle")]
        handle: String,
        day: u32,
    },
    #[event("HandleGivenUp")]
    GivenUp {
        #[tag("handle")]
        handle: String,
        day: u32,
    },
    #[event("HandleExchanged")]
    Exchanged {
        #[tag("handle")]
        from: String,
        #[tag("handle")]
        to: String,
        day: u32,
    },
}
use HandleEvent::{Chosen, Exchanged, GivenUp};

#[derive(Clone)]
struct Handle {
    name: String,
    taken: bool,
    given_up: Option<u32>,
}

fn handle(name: &str) -> Handle {
    Handle {
        name: name.into(),
        taken: false,
        given_up: None,
    }
}

impl Model for Handle {
    type Event = HandleEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("handle", &self.name)
    }
    fn apply(&mut self, event: &HandleEvent) {
        let (taken, day) = match event {
            Chosen { day, .. } => (true, day),
            GivenUp { day, .. } => (false, day),
            Exchanged { to, day, .. } => (*to == self.name, day),
        };
        self.taken = taken;
        self.given_up = (!taken).then_some(*day);
    }
}

impl Handle {
    fn is_free(&self, today: u32) -> bool {
        !self.taken && self.given_up.is_none_or(|day| today >= day + KEPT_DAYS)
    }
}

fn choose(it: &Handle, day: u32) -> Result<HandleEvent, &'static str> {
    if !it.is_free(day) {
        return Err("not free");
    }
    Ok(chosen(&it.name, day))
}

fn exchange((from, to): &(Handle, Handle), day: u32) -> Result<HandleEvent, &'static str> {
    if !from.taken || !to.is_free(day) {
        return Err("not free");
    }
    Ok(exchanged(&from.name, &to.name, day))
}

fn chosen(name: &str, day: u32) -> HandleEvent {
    let handle = name.into();
    Chosen { handle, day }
}
fn given_up(name: &str, day: u32) -> HandleEvent {
    let handle = name.into();
    GivenUp { handle, day }
}
fn exchanged(from: &str, to: &str, day: u32) -> HandleEvent {
    Exchanged {
        from: from.into(),
        to: to.into(),
        day,
    }
}

#[test]
fn a_handle_is_free_until_it_is_chosen_and_after_it_was_kept_for_a_while() {
    let on = |day| move |it: &Handle| choose(it, day);
    let owl = || handle("owl");
    GivenEvents::none()
        .when(owl(), on(1))
        .then([chosen("owl", 1)]);
    GivenEvents::of([chosen("fox", 1)])
        .when(owl(), on(1))
        .then([chosen("owl", 1)]);
    GivenEvents::of([chosen("owl", 1)])
        .when(owl(), on(9))
        .then_err("not free");
    let left = || GivenEvents::of([chosen("owl", 1), given_up("owl", 5)]);
    left().when(owl(), on(7)).then_err("not free");
    left().when(owl(), on(8)).then([chosen("owl", 8)]);
    GivenEvents::of([chosen("owl", 1), given_up("owl", 5), chosen("owl", 8)])
        .when(owl(), on(99))
        .then_err("not free");
}

#[test]
fn exchanging_a_handle_takes_the_new_one_and_gives_up_the_old_one() {
    let moved = || GivenEvents::of([chosen("owl", 1), exchanged("owl", "fox", 4)]);
    moved()
        .when(handle("fox"), |it| choose(it, 99))
        .then_err("not free");
    moved()
        .when(handle("owl"), |it| choose(it, 6))
        .then_err("not free");
    moved()
        .when(handle("owl"), |it| choose(it, 7))
        .then([chosen("owl", 7)]);
    let both = || (handle("owl"), handle("fox"));
    GivenEvents::of([chosen("owl", 1), chosen("fox", 1)])
        .when(both(), |both| exchange(both, 2))
        .then_err("not free");
    GivenEvents::of([chosen("owl", 1)])
        .when(both(), |both| exchange(both, 2))
        .then([exchanged("owl", "fox", 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_choose_a_handle_at_once_one_gets_it() {
    let store = Store::memory();
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let decision = store.decision(handle("owl"));
            tokio::spawn(async move { decision.decide(|it| choose(it, 1)).await.is_ok() })
        })
        .collect();
    let mut winners = 0;
    for task in tasks {
        winners += u32::from(task.await.unwrap());
    }
    assert_eq!(winners, 1);
}
