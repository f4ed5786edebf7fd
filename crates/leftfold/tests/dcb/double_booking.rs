//! Record duplication: a form that is sent twice books once.
//!
//! The key is the caller's, made when the form was opened.

use leftfold::{Boundary, Event, Model, Store, testing::GivenEvents};
use serde::{Deserialize, Serialize};

#[derive(Event, Serialize, Deserialize, Clone, Debug, PartialEq)]
enum BookingEvent {
    #[event("TableBooked")]
    Booked {
        #[tag("form")]
        form: String,
        guests: u32,
    },
}
use BookingEvent::Booked;

#[derive(Clone)]
struct Form {
    id: &'static str,
    sent: bool,
}

impl Model for Form {
    type Event = BookingEvent;

    fn boundary(&self) -> Boundary {
        Boundary::tag("form", self.id)
    }
    fn apply(&mut self, _: &BookingEvent) {
        self.sent = true;
    }
}

fn book(form: &Form, guests: u32) -> Result<BookingEvent, &'static str> {
    match form.sent {
        true => Err("sent already"),
        false => Ok(booked(form.id, guests)),
    }
}

fn booked(form: &str, guests: u32) -> BookingEvent {
    let form = form.into();
    Booked { form, guests }
}

fn form(id: &'static str) -> Form {
    Form { id, sent: false }
}

#[test]
fn a_form_is_accepted_once() {
    GivenEvents::of([booked("f1", 4)])
        .when(form("f2"), |it| book(it, 2))
        .then([booked("f2", 2)]);
    GivenEvents::of([booked("f1", 4)])
        .when(form("f1"), |it| book(it, 4))
        .then_err("sent already");
}

#[tokio::test]
async fn an_idempotency_key_says_the_same_in_one_word_and_answers_what_was_booked() {
    let store = Store::memory();
    let send = async || {
        let decision = store
            .decision(form("unused"))
            .with_idempotency_key("book", "f1");
        decision
            .decide(|_| Ok::<_, String>(booked("f1", 4)))
            .await
            .unwrap()
    };
    let (first, second) = (send().await, send().await);
    assert!(!first.repeated && second.repeated);
    assert_eq!(first.events, second.events);
}
