//! The event-sourced aggregate as a special case.
//!
//! One tag is the aggregate, and every event of it makes a decision void.

use leftfold::{Boundary, Event, Model, Store, testing::GivenEvents};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum PurseEvent {
    #[event("CoinsPut")]
    Put {
        #[tag("purse")]
        purse: String,
        coins: u32,
    },
    #[event("CoinsTaken")]
    Taken {
        #[tag("purse")]
        purse: String,
        coins: u32,
    },
}
use PurseEvent::{Put, Taken};

#[derive(Clone)]
struct Purse {
    id: &'static str,
    coins: u32,
}

impl Model for Purse {
    type Event = PurseEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("purse", self.id)
    }
    fn apply(&mut self, event: &PurseEvent) {
        match event {
            Put { coins, .. } => self.coins += coins,
            Taken { coins, .. } => self.coins -= coins,
        }
    }
}

impl Purse {
    fn take(&self, coins: u32) -> Result<PurseEvent, u32> {
        let purse = self.id.into();
        match coins > self.coins {
            true => Err(self.coins),
            false => Ok(Taken { purse, coins }),
        }
    }
}

fn put(purse: &str, coins: u32) -> PurseEvent {
    let purse = purse.into();
    Put { purse, coins }
}

fn empty(id: &'static str) -> Purse {
    Purse { id, coins: 0 }
}

#[test]
fn no_more_is_taken_than_is_in_it() {
    let facts = || GivenEvents::of([put("red", 5), put("blue", 100)]);
    facts()
        .when(empty("red"), |purse| purse.take(6))
        .then_err(5);
    let taken = Taken {
        purse: "red".into(),
        coins: 5,
    };
    facts()
        .when(empty("red"), |purse| purse.take(5))
        .then([taken]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_take_at_once_only_as_many_succeed_as_there_are_coins() {
    let store = Store::memory();
    let filled = store.decide(empty("red"), |_| Ok::<_, String>(put("red", 5)));
    filled.await.unwrap();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let decision = store.decision(empty("red")).with_attempts(10_000);
            tokio::spawn(async move { decision.decide(|purse| purse.take(1)).await.is_ok() })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += u32::from(task.await.unwrap());
    }
    assert_eq!(taken, 5);
}
