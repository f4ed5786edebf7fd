//! Dynamic prices: an order is taken at the price the guest saw, or not at all.
//!
//! An old price is good for a while after it was changed.

use std::collections::BTreeMap;

use leftfold::{Boundary, Event, Model, testing::GivenEvents};
use serde::{Deserialize, Serialize};

/// For how many minutes an old price is still good.
const GRACE_MINUTES: u32 = 10;

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum MenuEvent {
    #[event("DishAdded")]
    Added {
        #[tag("dish")]
        dish: String,
        cents: u32,
        minute: u32,
    },
    #[event("DishPriced")]
    Priced {
        #[tag("dish")]
        dish: String,
        cents: u32,
        minute: u32,
    },
    #[event("DishesOrdered")]
    Ordered {
        #[tag("dish")]
        dishes: Vec<String>,
        cents: u32,
    },
}
use MenuEvent::{Added, Ordered, Priced};

/// A dish: its price, and until when earlier ones are good.
#[derive(Clone)]
struct Dish {
    id: &'static str,
    cents: Option<u32>,
    until: BTreeMap<u32, u32>,
}

impl Model for Dish {
    type Event = MenuEvent;

    // Orders change no price, so they make no other order void.
    fn boundary(&self) -> Boundary {
        Boundary::tag("dish", self.id).of_types(["DishAdded", "DishPriced"])
    }
    fn apply(&mut self, event: &MenuEvent) {
        let (Added { cents, minute, .. } | Priced { cents, minute, .. }) = event else {
            return;
        };
        if let Some(before) = self.cents.replace(*cents) {
            self.until.insert(before, minute + GRACE_MINUTES);
        }
    }
}

impl Dish {
    fn may_cost(&self, cents: u32, minute: u32) -> bool {
        self.cents == Some(cents) || self.until.get(&cents).is_some_and(|until| minute <= *until)
    }
}

fn dish(id: &'static str) -> Dish {
    Dish {
        id,
        cents: None,
        until: BTreeMap::new(),
    }
}

fn order(it: &Dish, seen: u32, minute: u32) -> Result<MenuEvent, &'static str> {
    if !it.may_cost(seen, minute) {
        return Err("another price");
    }
    Ok(ordered(&[it.id], seen))
}

fn order_both((soup, fish): &(Dish, Dish), seen: (u32, u32)) -> Result<MenuEvent, &'static str> {
    if !soup.may_cost(seen.0, 50) || !fish.may_cost(seen.1, 50) {
        return Err("another price");
    }
    Ok(ordered(&[soup.id, fish.id], seen.0 + seen.1))
}

fn added(dish: &str, cents: u32) -> MenuEvent {
    Added {
        dish: dish.into(),
        cents,
        minute: 0,
    }
}
fn priced(dish: &str, cents: u32, minute: u32) -> MenuEvent {
    Priced {
        dish: dish.into(),
        cents,
        minute,
    }
}
fn ordered(dishes: &[&str], cents: u32) -> MenuEvent {
    Ordered {
        dishes: dishes.iter().map(|&dish| dish.into()).collect(),
        cents,
    }
}

#[test]
fn an_order_is_taken_at_the_price_that_was_seen_or_not_at_all() {
    let soup = || dish("soup");
    GivenEvents::none()
        .when(soup(), |it| order(it, 700, 5))
        .then_err("another price");
    let on = || GivenEvents::of([added("soup", 700)]);
    on().when(soup(), |it| order(it, 600, 5))
        .then_err("another price");
    on().when(soup(), |it| order(it, 700, 5))
        .then([ordered(&["soup"], 700)]);
}

#[test]
fn an_old_price_is_good_for_a_while_and_a_new_one_at_once() {
    let soup = || dish("soup");
    let dearer = || GivenEvents::of([added("soup", 700), priced("soup", 800, 30)]);
    dearer()
        .when(soup(), |it| order(it, 800, 31))
        .then([ordered(&["soup"], 800)]);
    dearer()
        .when(soup(), |it| order(it, 700, 40))
        .then([ordered(&["soup"], 700)]);
    dearer()
        .when(soup(), |it| order(it, 700, 41))
        .then_err("another price");
}

#[test]
fn an_order_of_several_dishes_rests_on_the_price_of_each() {
    let both = || (dish("soup"), dish("fish"));
    let menu = || {
        GivenEvents::of([
            added("soup", 700),
            added("fish", 1_900),
            priced("fish", 2_100, 45),
        ])
    };
    let seen = |soup, fish| move |both: &(Dish, Dish)| order_both(both, (soup, fish));
    menu()
        .when(both(), seen(700, 2_100))
        .then([ordered(&["soup", "fish"], 2_800)]);
    menu()
        .when(both(), seen(700, 1_900))
        .then([ordered(&["soup", "fish"], 2_600)]);
    menu()
        .when(both(), seen(600, 2_100))
        .then_err("another price");
    menu()
        .when(both(), seen(700, 1_800))
        .then_err("another price");
}
